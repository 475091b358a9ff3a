"""Millions of image pairs on disk, opened in no time: a safetensors file, mapped and not read.

A photo is stored once, however many pairs it belongs to:

    text [B] uint8, text_end [P] int64     the photos' paths (UTF-8, one after the other) and where each ends
    extrinsics [P, 7], params [P, 4]       float64, as in `entries.Photo`
    size [P, 2] int32                      width, height
    photos [N, 2] int32, scale [N] float64 the pairs: rows of source and target photo, scale (NaN: none)
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import UserError
from common.files import replacing
from dataloader.megascenes.entries import Entry, Photo, parse_entry
from dataloader.megascenes.split_pickle import read_split_pickle

SUFFIX = ".safetensors"
_FORMAT = "image-pairs-1"
_COLUMNS: dict[str, tuple[str, int]] = {  # type, width (0: one-dimensional)
    "text": ("|u1", 0),
    "text_end": ("<i8", 0),
    "extrinsics": ("<f8", 7),
    "params": ("<f8", 4),
    "size": ("<i4", 2),
    "photos": ("<i4", 2),
    "scale": ("<f8", 0),
}
_NAMES = {"|u1": "U8", "<i8": "I64", "<f8": "F64", "<i4": "I32"}  # as safetensors has them
_MAX_HEADER = 1 << 20  # bytes


class PairTable:
    """Pairs by row. source: what messages call the table. columns: see the module. file: what they are mapped
    from, if they are.
    """

    def __init__(self, source: str, columns: dict[str, NDArray[Any]], file: Path | None = None) -> None:
        self.source, self.columns, self.file = source, columns, file

    def __reduce__(self) -> tuple[Any, ...]:
        """A mapped table travels to other processes as its file's name."""
        if self.file is not None:
            return open_pairs, (self.file,)
        return PairTable, (self.source, self.columns)

    def __len__(self) -> int:
        return len(self.columns["scale"])

    def photo_rows(self) -> NDArray[np.int32]:
        """[N, 2] rows of source and target photo."""
        return self.columns["photos"]

    def photo(self, row: int) -> Photo:
        """A photo by its own row."""
        columns = self.columns
        start = int(columns["text_end"][row - 1]) if row else 0
        text = bytes(columns["text"][start : columns["text_end"][row]])
        width, height = columns["size"][row].tolist()
        pose, params = tuple(columns["extrinsics"][row].tolist()), tuple(columns["params"][row].tolist())
        return Photo(text.decode("utf-8", "surrogateescape"), pose, width, height, params)

    def entry(self, row: int) -> Entry:
        """A pair. Raises UserError when the table contradicts itself, IndexError past its end."""
        if not 0 <= row < len(self):
            raise IndexError(f"pair {row} of {len(self)}")
        rows = self.columns["photos"][row].tolist()
        if not all(0 <= photo < len(self.columns["text_end"]) for photo in rows):
            raise UserError(f"{self.source}: pair {row} names a photo that is not there: convert it again")
        return Entry(self.photo(rows[0]), self.photo(rows[1]), float(self.columns["scale"][row]))


def collect_pairs(raw: Iterable[Any], source: str) -> PairTable:
    """A table in memory from raw entries of a split file. Raises UserError naming the first bad one."""
    photos: dict[Photo, int] = {}
    pairs, scales = [], []
    for row, item in enumerate(raw):
        entry = parse_entry(item, f"{source}: entry {row}")
        pairs.append([photos.setdefault(photo, len(photos)) for photo in (entry.source, entry.target)])
        scales.append(entry.scale)
    if not pairs:
        raise UserError(f"{source} holds no pairs: make the split file again")
    texts = [photo.path.encode("utf-8", "surrogateescape") for photo in photos]
    values: dict[str, Any] = {
        "text": np.frombuffer(b"".join(texts), np.uint8),
        "text_end": np.cumsum([len(text) for text in texts]),
        "extrinsics": [photo.extrinsics for photo in photos],
        "params": [photo.params for photo in photos],
        "size": [(photo.width, photo.height) for photo in photos],
        "photos": pairs,
        "scale": scales,
    }
    return PairTable(source, {name: np.asarray(values[name], kind) for name, (kind, _) in _COLUMNS.items()})


def write_pairs(table: PairTable, path: Path) -> None:
    """Write a table. Raises UserError for another suffix than .safetensors, or an unwritable place."""
    from safetensors.numpy import save

    if path.suffix != SUFFIX:
        raise UserError(f"{path}: tables of pairs end in {SUFFIX}")
    with replacing(path) as partial:
        partial.write_bytes(save(table.columns, metadata={"format": _FORMAT}))


def open_pairs(path: Path) -> PairTable:
    """The pairs of a .safetensors file, mapped; or of a split pickle (.pkl), read whole.

    Raises UserError when the file is missing, cut off or malformed.
    """
    if path.suffix in (".pkl", ".pickle"):
        return collect_pairs(read_split_pickle(path), str(path))
    if path.suffix != SUFFIX:
        raise UserError(f"{path}: pairs are read from .pkl (a split file) or {SUFFIX} (converted)")
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length)) if length <= _MAX_HEADER else None
        places = dict(_places(header, 8 + length))
        columns = {name: _map(path, *place) for name, place in places.items()}
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): give the path of a pair file") from None
    except (ValueError, TypeError, KeyError, AttributeError):
        raise UserError(f"{path} is cut off or no table of pairs: convert the split file again") from None
    _check_lengths(columns, path)
    return PairTable(str(path), columns, path.absolute())


def _places(header: Any, start: int) -> Iterator[tuple[str, tuple[str, tuple[int, ...], int]]]:
    """(name, (type, shape, offset in the file)) of the columns. Raises ValueError and the like."""
    if header["__metadata__"]["format"] != _FORMAT:
        raise ValueError("another format")
    for name, (kind, width) in _COLUMNS.items():
        shape = tuple(header[name]["shape"])
        first, last = header[name]["data_offsets"]
        right = shape[1:] == ((width,) if width else ()) and header[name]["dtype"] == _NAMES[kind]
        if not right or first < 0 or last - first != np.dtype(kind).itemsize * int(np.prod(shape)):
            raise ValueError(f"{name} is malformed")
        yield name, (kind, shape, start + first)


def _map(path: Path, kind: str, shape: tuple[int, ...], offset: int) -> NDArray[Any]:
    """Raises ValueError when the file ends before the array does."""
    return np.memmap(path, kind, "r", offset, shape)


def _check_lengths(columns: dict[str, NDArray[Any]], path: Path) -> None:
    photos = {len(columns[name]) for name in ("text_end", "extrinsics", "params", "size")}
    pairs = {len(columns[name]) for name in ("photos", "scale")}
    if len(photos) != 1 or len(pairs) != 1 or columns["text_end"][-1] != len(columns["text"]):
        raise UserError(f"{path}: its columns do not fit each other: convert the split file again")
