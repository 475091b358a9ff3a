"""Rays of photos through a mesh on disk: for each covered pixel the triangles, where on them, and the colour.

One file per view, `NAME.rays`: a record per covered pixel in row-major order (`record_type`), a bit per pixel
of the photo that tells which are covered (`numpy.packbits`, rows first), a JSON footer, its length (uint32)
and `_MAGIC`. All numbers are little-endian. Positions, normals and view directions follow from mesh and
camera, so they are not stored. The footer says what the file was made from: a file of another photo, camera
or mesh is never taken for a good one.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.errors import UserError
from dataloader.scene import Record, Scene
from dataloader.surface_rays import SurfaceRays, record_camera

VERSION = 1
SUFFIX = ".rays"
MISSED = 0xFFFFFFFF  # in place of a triangle
_MAGIC = b"raycache"
_UNIT = 65535  # a barycentric weight of 1
_CAMERA_TOLERANCE = 1e-9  # relative; another processor's inverse of a pose differs by 1e-16


def record_type(supersample: int) -> np.dtype[Any]:
    """What is kept of a covered pixel with S = supersample^2 sub-samples: 8 S + 3 bytes.

    face: triangle, 2^32 - 1 for a miss. barycentric: weights of its first two corners in units of 1/65535.
    """
    count = supersample**2
    return np.dtype([("face", "<u4", (count,)), ("barycentric", "<u2", (count, 2)), ("color", "u1", (3,))])


def encode(face: Tensor, barycentric: Tensor, color: NDArray[np.uint8]) -> NDArray[Any]:
    """Records [N] of face [N, S], barycentric [N, S, 3] and color [N, 3]."""
    records = np.empty(len(face), record_type(round(face.shape[1] ** 0.5)))
    records["face"] = np.where(face.numpy() < 0, MISSED, face.numpy())
    weights = (barycentric[..., :2].clamp(0, 1) * _UNIT).round().to(torch.int64)
    weights[..., 1] = torch.minimum(weights[..., 1], _UNIT - weights[..., 0])  # the third is not below 0
    records["barycentric"] = weights.numpy()
    records["color"] = color
    return records


def decode(records: NDArray[Any], view: Tensor) -> SurfaceRays:
    """The rays of records [N]; weights to 1/65535.

    In NumPy: for so small arrays, torch's threads take longer to meet than to work.
    """
    missed = records["face"] == MISSED
    face = np.where(missed, -1, records["face"].astype(np.int64))
    weights = np.empty((*face.shape, 3), np.float32)
    np.divide(records["barycentric"], np.float32(_UNIT), out=weights[..., :2])
    weights[..., 2] = np.maximum(1 - weights[..., 0] - weights[..., 1], 0)
    weights[missed] = 0
    color = torch.from_numpy(records["color"].copy())
    return SurfaceRays(torch.from_numpy(face), torch.from_numpy(weights), color, view)


@dataclass(frozen=True)
class Origin:
    """What the rays of a view depend on.

    photo, mesh: digests of the files' bytes. camera: K and c2w, row by row, and the lens's numbers.
    """

    photo: str
    mesh: str
    camera: tuple[float, ...]
    height: int
    width: int
    supersample: int
    version: int = VERSION

    def difference(self, stored: dict[str, Any]) -> str:
        """Why the rays of a footer are not those of this origin; '' when they are."""
        if stored.get("version") != self.version:
            return "made by another version of this program"
        if stored["supersample"] != self.supersample:
            return f"made with --supersample {stored['supersample']}, not {self.supersample}"
        if (stored["height"], stored["width"]) != (self.height, self.width):
            return f"of {stored['width']}x{stored['height']} pixels, not {self.width}x{self.height}"
        if not _equal(stored["camera"], self.camera):
            return "the camera has changed"
        changed = [name for name in ("photo", "mesh") if stored[name] != getattr(self, name)]
        return f"the {changed[0]} has changed" if changed else ""


def _equal(a: Sequence[float], b: Sequence[float]) -> bool:
    scale = max(1.0, *(abs(value) for value in b))
    return len(a) == len(b) and np.allclose(a, b, rtol=0, atol=_CAMERA_TOLERANCE * scale)


def _digest(parts: Iterator[bytes | memoryview]) -> str:
    found = hashlib.blake2b(digest_size=16)
    for part in parts:
        found.update(part)
    return found.hexdigest()


def _file_digest(path: Path) -> str:
    """Digest of a file's bytes, read in pieces. Raises UserError when it cannot be read."""
    try:
        with path.open("rb") as file:
            return _digest(iter(lambda: file.read(1 << 20), b""))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error})") from None


def _array_digest(*arrays: NDArray[Any]) -> str:
    return _digest(
        part for a in arrays for part in (str(a.shape).encode(), np.ascontiguousarray(a).tobytes())
    )


def mesh_digest(scene: Scene) -> str:
    """Digest of the scene's mesh: of its file, or of its vertices and faces where it lies in memory."""
    if scene.mesh_path is not None:
        return _file_digest(scene.mesh_path)
    mesh = scene.mesh()
    return _array_digest(mesh.vertices.cpu().numpy(), mesh.faces.cpu().numpy())


def origin_of(record: Record, mesh: str, supersample: int, max_size: int) -> Origin:
    camera, lens, image = record_camera(record, max_size), record.lens, record.image
    numbers = [*camera.K.flatten().tolist(), *camera.c2w.flatten().tolist()]
    if lens is not None:
        numbers += [*lens.K.ravel().tolist(), *lens.radial, *lens.tangential]
    photo = _file_digest(image) if isinstance(image, Path) else _array_digest(record.load())
    return Origin(photo, mesh, tuple(numbers), camera.height, camera.width, supersample)


def read_footer(path: Path) -> dict[str, Any] | None:
    """The footer of a whole file; None for one that is missing, cut off or no ray file."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            file.seek(max(0, size - len(_MAGIC) - 4))
            tail = file.read()
            length = int.from_bytes(tail[:4], "little")
            if tail[4:] != _MAGIC or length > size:
                return None
            file.seek(size - len(tail) - length)
            footer = json.loads(file.read(length))
            return footer if footer["payload"] == size - len(tail) - length else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def damaged(path: Path, footer: dict[str, Any]) -> bool:
    """Whether the bytes of a file are not those that were written."""
    with path.open("rb") as file:
        left = footer["payload"]
        found = hashlib.blake2b(digest_size=16)
        while left and (part := file.read(min(left, 1 << 20))):
            found.update(part)
            left -= len(part)
    return found.hexdigest() != footer["digest"]


class RayWriter:
    """Counts and digests what is written."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._hash, self.size = file, hashlib.blake2b(digest_size=16), 0

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self._hash.update(data)
        self.size += len(data)

    def finish(self, footer: dict[str, Any]) -> None:
        """Append the footer, and see to it that the disk has everything before the file gets its name."""
        text = json.dumps({**footer, "payload": self.size, "digest": self._hash.hexdigest()}).encode()
        self._file.write(text + len(text).to_bytes(4, "little") + _MAGIC)
        self._file.flush()
        os.fsync(self._file.fileno())
