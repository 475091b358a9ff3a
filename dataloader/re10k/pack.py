"""Making chunk folders: chunk files, what each holds, `index.json` and `meta.json`; runs may be killed.

Beside the chunks of a split lies `.scenes/CHUNK.json`, the keys of the chunk's scenes, written after the
chunk. A chunk with such a list is whole, and `index.json` is made of the lists.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.cli import progress
from common.errors import UserError
from dataloader.formats.shared import read_json, write_json
from dataloader.re10k.chunks import SUFFIXES, Example, read_chunk, size_in_bytes, write_chunk
from dataloader.re10k.examples import scene_of
from dataloader.re10k.roots import INDEX, META
from dataloader.scene import ImageSize

CHUNK_BYTES = 100_000_000
_LISTS = ".scenes"


@dataclass(frozen=True)
class Shard:
    """Part `number` of `count` of the work, from 0."""

    number: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.number < self.count:
            raise UserError(f"--shard {self.number}/{self.count}: the number goes from 0 to {self.count - 1}")

    @classmethod
    def parse(cls, text: str) -> Shard:
        """The shard that '--shard I/N' asks for. Raises UserError when there is none."""
        match = re.fullmatch(r"(\d+)/(\d+)", text)
        if match is None:
            raise UserError(f"--shard is {text!r}: write it as 0/16 to 15/16")
        return cls(int(match[1]), int(match[2]))

    def of(self, items: Iterable[Any]) -> list[Any]:
        """Every `count`-th item."""
        return list(items)[self.number :: self.count]


@dataclass
class Packed:
    """What a run did. chunks: written. scenes: in them. present: scenes that were there. left_out: why."""

    chunks: int = 0
    scenes: int = 0
    present: int = 0
    left_out: list[str] = field(default_factory=list)


class SplitWriter:
    """The chunks of a split that is being made."""

    def __init__(self, root: Path, split: str) -> None:
        self.root, self.folder = root, root / split

    def is_whole(self, stem: str) -> bool:
        """Whether a chunk was finished."""
        return self._list(stem).is_file()

    def keys(self) -> dict[str, str]:
        """The scenes of finished chunks: key -> stem of the chunk."""
        lists = sorted((self.folder / _LISTS).glob("*.json"))
        return {key: path.stem for path in lists for key in json.loads(path.read_text(encoding="utf-8"))}

    def write(self, scenes: list[Example], stem: str, suffix: str = ".torch") -> None:
        """Write a chunk and its list. Raises UserError where the folder has chunks of the other suffix."""
        other = [path for path in self.folder.glob("*") if path.suffix in SUFFIXES and path.suffix != suffix]
        if other:
            raise UserError(f"{other[0]} is there: {suffix} chunks need a folder of their own")
        if scenes:
            write_chunk(scenes, self.folder / f"{stem}{suffix}")
        self.list_keys([str(scene["key"]) for scene in scenes], stem)

    def list_keys(self, keys: list[str], stem: str) -> None:
        """Mark a chunk as whole."""
        write_json(keys, self._list(stem))

    def finish(self, size: ImageSize | None = None, **more: Any) -> dict[str, str]:
        """Write `index.json` of all finished chunks, and `meta.json`.

        The index calls every chunk `.torch`, as the originals' do. size: (height, width) of the photos. more:
        further entries. Raises UserError where `meta.json` says something else.
        """
        index = {key: f"{stem}.torch" for key, stem in self.keys().items()}
        write_json(index, self.folder / INDEX)
        meta = {**({} if size is None else {"expected_shape": [3, *size]}), **more}
        check_meta(self.root, meta)
        write_json(meta, self.root / META)
        return index

    def _list(self, stem: str) -> Path:
        return self.folder / _LISTS / f"{stem}.json"


def check_meta(root: Path, meta: dict[str, Any]) -> None:
    """Raise UserError where a folder has a `meta.json` that differs from `meta`."""
    there = read_json(root / META) if (root / META).is_file() else meta
    if there != meta:
        raise UserError(f"{root / META} says {there}, these chunks {meta}: choose another folder")


def reindex(root: Path, split: str) -> dict[str, str]:
    """Write a split's `index.json` from the chunks themselves, all of which are read."""
    folder = root / split
    chunks = sorted(path for path in folder.glob("*") if path.suffix in SUFFIXES)
    if not chunks:
        raise UserError(f"{folder} holds no chunk: name the folder that holds train/ and test/")
    index = {
        str(scene["key"]): f"{path.stem}.torch"
        for path in progress(chunks, "chunks", unit="chunk")
        for scene in read_chunk(path)
    }
    write_json(index, folder / INDEX)
    return index


def pack(
    examples: Iterable[tuple[str, Callable[[], Example]]],
    writer: SplitWriter,
    shard: Shard,
    size: ImageSize | None = None,
    chunk_bytes: int = CHUNK_BYTES,
) -> Packed:
    """Collect scenes into chunks of about `chunk_bytes`.

    examples: (key, how to read it), in an order that does not change between runs; scenes that are there are
    not read. size: (height, width) of the photos; None takes the first scene's. Scenes that cannot be read,
    or are of another size, are left out and named. Raises UserError where nothing is left.
    """
    done, there, waiting = Packed(), writer.keys(), []
    size = size or _told_size(writer.root)
    todo = shard.of(examples)
    for key, read in progress(todo, "scenes", len(todo), "scene"):
        if key in there:
            done.present += 1
            continue
        try:
            example = read()
            scene = scene_of(example, "", size, max_fov=180)
        except UserError as error:
            done.left_out.append(str(error).removeprefix(", "))
            continue
        camera = scene.records[0].camera
        size = (camera.height, camera.width)
        waiting.append(example)
        if sum(map(size_in_bytes, waiting)) >= chunk_bytes:
            _flush(waiting, writer, shard, done)
    _flush(waiting, writer, shard, done)
    if not writer.keys():
        raise UserError(f"no scene could be packed; the first: {(done.left_out or ['there is none'])[0]}")
    writer.finish(size)
    return done


def _told_size(root: Path) -> ImageSize | None:
    shape = read_json(root / META).get("expected_shape") if (root / META).is_file() else None
    return None if shape is None else (shape[1], shape[2])


def _flush(waiting: list[Example], writer: SplitWriter, shard: Shard, done: Packed) -> None:
    """Write what waits as the shard's next chunk: shard I of N writes chunks I, I + N, I + 2 N, ..."""
    if not waiting:
        return
    number = shard.number
    while writer.is_whole(f"{number:06d}"):
        number += shard.count
    writer.write(waiting, f"{number:06d}")
    done.chunks, done.scenes = done.chunks + 1, done.scenes + len(waiting)
    waiting.clear()
