"""One pair as the split files of MegaScenes NVS state it, checked (specs/warp_diffusion 3.2 and 4.1)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from common.errors import UserError
from geometry.cameras import Cameras

MODELS = {"SIMPLE_PINHOLE": 3, "PINHOLE": 4, "SIMPLE_RADIAL": 4}  # COLMAP's names -> numbers after the size
_UNIT_TOLERANCE = 1e-2  # of a quaternion's length


@dataclass(frozen=True)
class Photo:
    """A photo of a pair. path: as the split file states it. extrinsics: (qw, qx, qy, qz, tx, ty, tz), world
    to camera. width, height: pixels. params: (fx, fy, cx, cy) in pixels.
    """

    path: str
    extrinsics: tuple[float, ...]
    width: int
    height: int
    params: tuple[float, ...]

    def camera(self) -> Cameras:
        """The single float64 camera of the photo at its own size."""
        fx, fy, cx, cy = self.params
        K = torch.tensor([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], dtype=torch.float64)
        return Cameras(K, colmap_c2w(self.extrinsics), self.height, self.width)


@dataclass(frozen=True)
class Entry:
    """A pair: the photo given, the photo to make, and the 20th percentile of the former's depth (NaN where
    the file has none).
    """

    source: Photo
    target: Photo
    scale: float


def colmap_c2w(extrinsics: Sequence[float]) -> Tensor:
    """[4, 4] float64 camera-to-world pose of COLMAP's (qw, qx, qy, qz, tx, ty, tz).

    The quaternion is not normalised and the matrix inverted as it comes, as in the original.
    """
    w, x, y, z, *translation = extrinsics
    w2c = torch.eye(4, dtype=torch.float64)
    w2c[:3, :3] = torch.tensor(
        [
            [1 - 2 * y * y - 2 * z * z, 2 * x * y - 2 * w * z, 2 * z * x + 2 * w * y],
            [2 * x * y + 2 * w * z, 1 - 2 * x * x - 2 * z * z, 2 * y * z - 2 * w * x],
            [2 * z * x - 2 * w * y, 2 * y * z + 2 * w * x, 1 - 2 * x * x - 2 * y * y],
        ],
        dtype=torch.float64,
    )
    w2c[:3, 3] = torch.tensor(translation, dtype=torch.float64)
    return torch.linalg.inv(w2c)


def parse_entry(raw: Any, source: str) -> Entry:
    """Check `[path1, path2, dict1, dict2, scale]`, or the same without scale; numbers may be texts.

    source: what messages call the entry. Raises UserError when anything is missing or out of range.
    """
    if not isinstance(raw, (list, tuple)) or len(raw) not in (4, 5):
        raise UserError(f"{source} is no pair [path1, path2, dict1, dict2, scale]: make the split file again")
    given, made = (_photo(raw[i], raw[i + 2], source) for i in (0, 1))
    scale = math.nan
    if len(raw) == 5 and raw[4] is not None:
        (scale,) = _numbers([raw[4]], 1, source, "scale")
        if scale < 0:
            raise UserError(f"{source}: the scale is {scale}, it must not be negative")
    return Entry(given, made, scale)


def _photo(path: Any, camera: Any, source: str) -> Photo:
    if not isinstance(path, str) or "0/pictures/" not in path:
        raise UserError(f"{source}: {path!r} is no path CATEGORY/commons/SUBCATEGORY/0/pictures/FILE")
    if not isinstance(camera, dict) or not {"extrinsics", "intrinsics"} <= camera.keys():
        raise UserError(f"{source} lacks 'extrinsics' or 'intrinsics': make the split file again")
    extrinsics = _numbers(camera["extrinsics"], 7, source, "extrinsics")
    length = math.hypot(*extrinsics[:4])
    if abs(length - 1) > _UNIT_TOLERANCE:
        raise UserError(f"{source}: the rotation has the length {length:.4g}, a quaternion has 1")
    return Photo(path, extrinsics, *_intrinsics(camera["intrinsics"], source))


def _intrinsics(raw: Any, source: str) -> tuple[int, int, tuple[float, ...]]:
    """Width, height and (fx, fy, cx, cy) of `[model, w, h, ...]`; the distortion is ignored."""
    model = raw[0] if isinstance(raw, (list, tuple)) and len(raw) else None
    if model not in MODELS:
        raise UserError(f"{source}: camera model {model!r} is not one of {', '.join(MODELS)}")
    width, height, *params = _numbers(raw[1:], 2 + MODELS[model], source, f"{model} intrinsics")
    focal, center = (params[:2], params[2:]) if model == "PINHOLE" else (params[:1] * 2, params[1:3])
    if min(width, height, *focal) < 1 or width % 1 or height % 1:
        raise UserError(
            f"{source}: a {width:g}x{height:g} photo with focal length {focal[0]:g} is impossible"
        )
    return int(width), int(height), (*focal, *center)


def _numbers(raw: Any, count: int, source: str, what: str) -> tuple[float, ...]:
    """`count` finite numbers. Raises UserError otherwise."""
    try:
        values = tuple(map(float, raw))
    except (TypeError, ValueError):
        raise UserError(f"{source}: {what} are no list of numbers: {str(raw)[:60]}") from None
    if len(values) != count or not all(map(math.isfinite, values)):
        raise UserError(f"{source}: {what} must be {count} finite numbers, not {str(raw)[:60]}")
    return values
