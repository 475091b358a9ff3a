"""COLMAP model files, binary and text, to and from arrays.

Parsed here, not by pycolmap, because that reads a cut-off cameras.bin as if it were whole and answers others
with errors that name no file. Poses are per photo (`images.*`), so rigs.bin and frames.bin are not needed.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.errors import UserError
from common.files import replacing
from dataloader.formats.shared import read_text

# model number -> (name, number of parameters); only models that `dataloader.lenses` can undo
_MODELS = {
    0: ("SIMPLE_PINHOLE", 3),
    1: ("PINHOLE", 4),
    2: ("SIMPLE_RADIAL", 4),
    3: ("RADIAL", 5),
    4: ("OPENCV", 8),
}
_OBSERVATION = np.dtype([("xy", "<f8", 2), ("point", "<i8")])


@dataclass
class ModelCamera:
    """Intrinsics. model: a name of COLMAP's. params: in COLMAP's order, pixels."""

    model: str
    width: int
    height: int
    params: list[float]


@dataclass
class ModelImage:
    """A posed photo. qvec: (w, x, y, z) and tvec: world to camera. xy: [T, 2] pixels. point_ids: [T], -1 for
    a feature without a point.
    """

    name: str
    camera_id: int
    qvec: NDArray[np.float64]
    tvec: NDArray[np.float64]
    xy: NDArray[np.float64]
    point_ids: NDArray[np.int64]


@dataclass
class Model:
    """A sparse model. cameras, images: by id. point_ids: [P], ascending. xyz: [P, 3]. rgb: [P, 3] uint8.
    error: [P] mean reprojection error in pixels.
    """

    cameras: dict[int, ModelCamera]
    images: dict[int, ModelImage]
    point_ids: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    xyz: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 3)))
    rgb: NDArray[np.uint8] = field(default_factory=lambda: np.empty((0, 3), np.uint8))
    error: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))


def read_model(folder: Path) -> Model:
    """Read cameras, images and points3D, .bin or .txt.

    Raises UserError when a file is missing, cut off or malformed, or uses a camera model that is no pinhole
    with up to four distortion coefficients.
    """
    if (folder / "cameras.bin").is_file():
        cameras = _read_cameras(_Bytes(folder / "cameras.bin"))
        images = _read_images(_Bytes(folder / "images.bin"))
        return Model(cameras, images, *_read_points(_Bytes(folder / "points3D.bin")))
    cameras = _parse_cameras(folder / "cameras.txt")
    images = _parse_images(folder / "images.txt")
    return Model(cameras, images, *_parse_points(folder / "points3D.txt"))


class _Bytes:
    """A binary file read from front to back; running over its end is a UserError."""

    def __init__(self, path: Path) -> None:
        self.path, self.at = path, 0
        try:
            self.data = path.read_bytes()
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error.strerror}): a COLMAP model needs it") from None

    def skip(self, count: int) -> int:
        """Step over `count` bytes; returns where they start."""
        start, self.at = self.at, self.at + count
        if count < 0 or self.at > len(self.data):
            raise UserError(f"{self.path} is cut off after {len(self.data)} bytes: copy or make it again")
        return start

    def take(self, layout: struct.Struct) -> tuple:
        return layout.unpack_from(self.data, self.skip(layout.size))

    def array(self, dtype: np.dtype, count: int) -> NDArray:
        return np.frombuffer(self.data, dtype, count, self.skip(dtype.itemsize * count))

    def text(self) -> str:
        end = self.data.find(b"\0", self.at)
        start = self.skip(end + 1 - self.at)
        return self.data[start:end].decode("utf-8", errors="replace")

    def finish(self) -> None:
        if self.at != len(self.data):
            raise UserError(f"{self.path} has {len(self.data) - self.at} bytes too many: make it again")


_COUNT = struct.Struct("<Q")
_CAMERA = struct.Struct("<IiQQ")
_IMAGE = struct.Struct("<I7dI")
_POINT = struct.Struct("<Q3d3BdQ")
_TRACK_ENTRY = 8  # bytes: image id and feature index


def _read_cameras(file: _Bytes) -> dict[int, ModelCamera]:
    cameras = {}
    for _ in range(*file.take(_COUNT)):
        number, model, width, height = file.take(_CAMERA)
        name, count = _MODELS.get(model, (f"number {model}", -1))
        _check_model(name, count, file.path)
        params = file.array(np.dtype("<f8"), count).tolist()
        cameras[number] = ModelCamera(name, width, height, params)
    file.finish()
    return cameras


def _check_model(name: str, count: int, path: Path) -> None:
    if (name, count) not in _MODELS.values():
        known = ", ".join(model for model, _ in _MODELS.values())
        raise UserError(
            f"{path}: camera model {name} with {max(count, 0)} parameters is not one of {known}: "
            "undistort the photos with 'colmap image_undistorter' first"
        )


def _read_images(file: _Bytes) -> dict[int, ModelImage]:
    images = {}
    for _ in range(*file.take(_COUNT)):
        number, *pose, camera_id = file.take(_IMAGE)
        name = file.text()
        features = file.array(_OBSERVATION, *file.take(_COUNT))
        images[number] = ModelImage(
            name, camera_id, np.array(pose[:4]), np.array(pose[4:]), features["xy"], features["point"]
        )
    file.finish()
    return images


def _read_points(file: _Bytes) -> tuple:
    (count,) = file.take(_COUNT)
    rows = []
    for _ in range(count):
        *row, track = file.take(_POINT)
        file.skip(track * _TRACK_ENTRY)  # images.bin says the same
        rows.append(row)
    file.finish()
    return _point_arrays(rows)


def _point_arrays(rows: list[list[float]]) -> tuple:
    rows.sort(key=lambda row: row[0])
    values = np.array(rows, dtype=np.float64).reshape(-1, 8)
    ids = np.array([row[0] for row in rows], dtype=np.int64)
    return ids, values[:, 1:4], values[:, 4:7].astype(np.uint8), values[:, 7]


def _lines(path: Path) -> tuple[list[str], int | None]:
    """Lines without comments, and the number of entries that a leading comment announces."""
    lines = read_text(path).splitlines()
    announced = re.search(r"^# Number of \w+: (\d+)", "\n".join(lines[:10]), re.MULTILINE)
    return [line for line in lines if not line.startswith("#")], int(announced[1]) if announced else None


def _check_count(path: Path, announced: int | None, count: int) -> None:
    if announced is not None and announced != count:
        raise UserError(
            f"{path} announces {announced} entries and holds {count}: it is cut off; copy it again"
        )


def _malformed(path: Path, line: str, error: Exception) -> UserError:
    return UserError(f"{path}: line {line[:40]!r} is malformed ({error}): make the file again")


def _parse_cameras(path: Path) -> dict[int, ModelCamera]:
    lines, announced = _lines(path)
    cameras = {}
    for line in filter(str.strip, lines):
        try:
            number, model, width, height, *params = line.split()
            cameras[int(number)] = ModelCamera(model, int(width), int(height), list(map(float, params)))
        except ValueError as error:
            raise _malformed(path, line, error) from None
        _check_model(model, len(params), path)
    _check_count(path, announced, len(cameras))
    return cameras


def _parse_images(path: Path) -> dict[int, ModelImage]:
    lines, announced = _lines(path)
    images = {}
    for header, features in _header_pairs(lines):
        try:
            number, qw, qx, qy, qz, tx, ty, tz, camera_id, name = header.split(maxsplit=9)
            table = np.array(features.split(), dtype=np.float64).reshape(-1, 3)
            images[int(number)] = ModelImage(
                name,
                int(camera_id),
                np.array([qw, qx, qy, qz], dtype=np.float64),
                np.array([tx, ty, tz], dtype=np.float64),
                table[:, :2],
                table[:, 2].astype(np.int64),
            )
        except ValueError as error:
            raise _malformed(path, header, error) from None
    _check_count(path, announced, len(images))
    return images


def _header_pairs(lines: list[str]) -> Iterator[tuple[str, str]]:
    """A photo is two lines, of which the second (its features) may be empty."""
    rest = iter(lines)
    for header in rest:
        if header.strip():
            yield header.strip(), next(rest, "")


def _parse_points(path: Path) -> tuple:
    lines, announced = _lines(path)
    rows = []
    for line in filter(str.strip, lines):
        words = line.split()
        try:
            rows.append([int(words[0]), *map(float, words[1:8])])
            if len(words) < 8 or len(words) % 2:
                raise ValueError("8 numbers and pairs of track entries are expected")
        except ValueError as error:
            raise _malformed(path, line, error) from None
    _check_count(path, announced, len(rows))
    return _point_arrays(rows)


def write_model(model: Model, folder: Path) -> None:
    """Write cameras.bin, images.bin and points3D.bin."""
    with replacing(folder / "cameras.bin") as partial:
        partial.write_bytes(_cameras_bytes(model.cameras))
    with replacing(folder / "images.bin") as partial:
        partial.write_bytes(_images_bytes(model.images))
    with replacing(folder / "points3D.bin") as partial:
        partial.write_bytes(_points_bytes(model))


def _cameras_bytes(cameras: dict[int, ModelCamera]) -> bytes:
    numbers = {name: number for number, (name, _) in _MODELS.items()}
    parts = [_COUNT.pack(len(cameras))]
    for number, camera in cameras.items():
        parts.append(_CAMERA.pack(number, numbers[camera.model], camera.width, camera.height))
        parts.append(np.array(camera.params, dtype="<f8").tobytes())
    return b"".join(parts)


def _images_bytes(images: dict[int, ModelImage]) -> bytes:
    parts = [_COUNT.pack(len(images))]
    for number, image in images.items():
        features = np.empty(len(image.xy), dtype=_OBSERVATION)
        features["xy"], features["point"] = image.xy, image.point_ids
        parts.append(_IMAGE.pack(number, *image.qvec, *image.tvec, image.camera_id))
        parts.append(image.name.encode() + b"\0" + _COUNT.pack(len(features)) + features.tobytes())
    return b"".join(parts)


def _points_bytes(model: Model) -> bytes:
    tracks: dict[int, list[tuple[int, int]]] = {int(number): [] for number in model.point_ids}
    for number, image in model.images.items():
        for feature, point in enumerate(image.point_ids.tolist()):
            if point >= 0:
                tracks[point].append((number, feature))
    parts = [_COUNT.pack(len(tracks))]
    for row, (number, track) in enumerate(tracks.items()):
        head = (*model.xyz[row], *model.rgb[row].tolist(), model.error[row], len(track))
        parts.append(_POINT.pack(number, *head) + np.array(track, dtype="<u4").tobytes())
    return b"".join(parts)
