"""Lens calibrations of a rig: one fisheye or polynomial lens per camera (specs/mask_volume 4.2).

Read from JSON, `{"cameras": [{"model": "fisheye" | "opencv", "K": 3x3, "D": [...], "width": W, "height":
H}]}`, or from the multi-camera data set's `calib_*.pkl`, a list of {K, D} of fisheye lenses. K and D are what
OpenCV's calibration returns, so its pixel (0, 0) is the middle of the first pixel; here that is (0.5, 0.5).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import UserError
from dataloader.formats.shared import read_json
from dataloader.plain_pickles import read_plain_pickle
from dataloader.rig.prepare.frames import text_of
from dataloader.scene import ImageSize

_COUNTS = {"fisheye": (4,), "opencv": (4, 5, 8)}
_STEPS = 4096  # radii tried
_ASPECT = 0.01  # relative difference of the two scales between calibration and frames, at most


@dataclass(frozen=True, eq=False)
class RigLens:
    """How one camera distorts. model: 'fisheye' (D: k1 ... k4) or 'opencv' (D: k1, k2, p1, p2[, k3[, k4, k5,
    k6]], a rational radial factor and two tangential terms). K: [3, 3] float64, pixel centres at +0.5.

    size: (height, width) of the photos that K is for; None where the file does not say (those of the frames).
    """

    model: str
    K: NDArray[np.float64]
    D: NDArray[np.float64]
    size: ImageSize | None = None

    def distort(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Camera-plane points at depth 1 [..., 2] -> pixels of the photo [..., 2]."""
        radius = np.linalg.norm(points, axis=-1, keepdims=True)
        factor = np.divide(self._bent(radius), radius, out=np.ones_like(radius), where=radius > 1e-9)
        bent = points * factor
        if self.model == "opencv":
            p1, p2 = self.D[2:4]
            x, y, square = points[..., 0], points[..., 1], radius[..., 0] ** 2
            bent[..., 0] += 2 * p1 * x * y + p2 * (square + 2 * x * x)
            bent[..., 1] += p1 * (square + 2 * y * y) + 2 * p2 * x * y
        return bent @ self.K[:2, :2].T + self.K[:2, 2]

    def reach(self, radius: float) -> float:
        """How far from the axis, up to `radius` at depth 1, the lens is one-to-one."""
        tried = np.linspace(0, radius, _STEPS)
        falling = np.flatnonzero(np.diff(self._bent(tried)) <= 0)
        return float(tried[falling[0]]) if len(falling) else radius

    def _bent(self, radius: NDArray[np.float64]) -> NDArray[np.float64]:
        """The radius at depth 1 after distortion, without the tangential terms."""
        if self.model == "fisheye":  # theta (1 + k1 theta^2 + ... + k4 theta^8), theta = atan(radius)
            theta = np.arctan(radius)
            return theta * np.polyval([*self.D[::-1], 1.0], theta * theta)
        k1, k2, _, _, k3, k4, k5, k6 = np.pad(self.D, (0, 8 - len(self.D)))
        square = radius * radius
        return radius * np.polyval([k3, k2, k1, 1.0], square) / np.polyval([k6, k5, k4, 1.0], square)

    def resized(self, size: ImageSize, source: str) -> RigLens:
        """The lens for photos of another size. Raises UserError naming `source` where their shape differs."""
        if self.size is None or self.size == size:
            return replace(self, size=size)
        scale = np.array([size[1] / self.size[1], size[0] / self.size[0]])
        if abs(scale[0] / scale[1] - 1) > _ASPECT:
            raise UserError(
                f"{source}: the calibration is of {text_of(self.size)} photos, the frames are "
                f"{text_of(size)}, which is another shape: calibrate at the frames' shape"
            )
        K = self.K.copy()
        K[:2] *= scale[:, None]
        return replace(self, K=K, size=size)


def read_calibration(path: Path, count: int) -> list[RigLens]:
    """The lenses of `count` cameras in the order of their names, from JSON or `calib_*.pkl`.

    Raises UserError when the file is unreadable or malformed, or holds another number of cameras.
    """
    if path.suffix == ".pkl":
        cameras = read_plain_pickle(path, "calibration")
    else:
        content = read_json(path)
        cameras = content.get("cameras") if isinstance(content, dict) else None
    if not isinstance(cameras, list) or not cameras:
        raise UserError(f"{path} is no calibration: it must hold a list of cameras with K and D each")
    if len(cameras) != count:
        raise UserError(
            f"{path} calibrates {len(cameras)} cameras, there are {count}: give one entry per camera, in the "
            "order of the cameras' names"
        )
    return [_lens(camera, f"{path}, camera {i}") for i, camera in enumerate(cameras)]


def _lens(entry: Any, source: str) -> RigLens:
    if not isinstance(entry, dict) or "K" not in entry or "D" not in entry:
        raise UserError(f"{source}: the keys 'K' and 'D' are needed")
    model = entry.get("model", "fisheye")
    if model not in _COUNTS:
        raise UserError(f"{source}: model {model!r} is neither 'fisheye' nor 'opencv'")
    K, D = _numbers(entry, "K", source), _numbers(entry, "D", source).ravel()
    if K.shape != (3, 3) or min(K[0, 0], K[1, 1]) <= 0 or len(D) not in _COUNTS[model]:
        counts = " or ".join(map(str, _COUNTS[model]))
        raise UserError(
            f"{source}: a {model} lens has K [3, 3] with positive focal lengths and D of {counts} numbers, "
            f"not K {list(K.shape)} and D of {len(D)}"
        )
    K = K.copy()
    K[:2, 2] += 0.5
    return RigLens(model, K, D, _size(entry, source))


def _numbers(entry: dict[str, Any], key: str, source: str) -> NDArray[np.float64]:
    try:
        values = np.array(entry[key], dtype=np.float64)
    except (TypeError, ValueError):
        raise UserError(f"{source}: {key} must be numbers, row by row") from None
    if not np.isfinite(values).all():
        raise UserError(f"{source}: {key} holds NaN or infinite numbers: calibrate again")
    return values


def _size(entry: dict[str, Any], source: str) -> ImageSize | None:
    if "width" not in entry and "height" not in entry:
        return None
    size = entry.get("height"), entry.get("width")
    if not all(isinstance(side, int) and side > 0 for side in size):
        raise UserError(f"{source}: width and height must both be whole numbers of pixels")
    return size  # type: ignore[return-value]
