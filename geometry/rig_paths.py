"""Camera paths of a rig: functions `path(cameras, bounds, n) -> Cameras` (specs/mask_volume 4.5).

cameras: [N >= 2] of the rig, looking the same way. bounds: least and greatest z-depth that they see, in world
units. n: the unit in which lengths count; axis paths have n frames, circle and extreme 2 n, the spiral 4 n.
All but `input` look at one point ahead of the average camera (`geometry.poses.rig_frame`) and have the first
camera's intrinsics and size. Computed in float64, returned in the cameras' dtype.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from common.errors import UserError
from geometry.cameras import Cameras
from geometry.paths import llff_spiral
from geometry.poses import RigFrame, look_at, rig_frame

DEFAULT_FRAMES = 30
_SHRINK = 0.8  # axis paths stay that far inside the cameras' reach
_PAIR = (4, 5)  # the original's source cameras, whose baseline `extreme` is measured by
_EXTREME = 10.0  # baselines to the left

Bounds = tuple[float, float]


def x_axis(cameras: Cameras, bounds: Bounds, n: int = DEFAULT_FRAMES) -> Cameras:
    """[n] cameras from left to right, 0.8 of the cameras' reach to either side."""
    frame = _frame(cameras, bounds, n)
    return _along(cameras, frame, n, 0, _SHRINK * float(frame.reach[0]))


def y_axis(cameras: Cameras, bounds: Bounds, n: int = DEFAULT_FRAMES) -> Cameras:
    """[n] cameras from top to bottom, 0.8 of the cameras' reach to either side."""
    frame = _frame(cameras, bounds, n)
    return _along(cameras, frame, n, 1, _SHRINK * float(frame.reach[1]))


def z_axis(cameras: Cameras, bounds: Bounds, n: int = DEFAULT_FRAMES) -> Cameras:
    """[n] cameras from front to back, 0.16 of 0.9 of the least depth to either side."""
    frame = _frame(cameras, bounds, n)
    return _along(cameras, frame, n, 2, -_SHRINK * 0.2 * frame.close)


def extreme(cameras: Cameras, bounds: Bounds, n: int = DEFAULT_FRAMES) -> Cameras:
    """[2 n] times one camera, ten baselines to the left.

    The baseline is that of cameras 4 and 5, the original's sources, or of the middle pair of fewer than six.
    """
    frame = _frame(cameras, bounds, n)
    left, right = _PAIR if len(cameras) > max(_PAIR) else (len(cameras) // 2 - 1, len(cameras) // 2)
    baseline = (frame.offsets[left] - frame.offsets[right]).norm()
    center = frame.mean[:3, 3] - _EXTREME * baseline * frame.mean[:3, 0]
    return _looking(cameras, frame, center.expand(2 * n, 3))


def circle(cameras: Cameras, bounds: Bounds, n: int = DEFAULT_FRAMES) -> Cameras:
    """[2 n] cameras once around the average one, as far as the cameras reach."""
    _frame(cameras, bounds, n)
    return llff_spiral(cameras, n=2 * n, bounds=bounds, turns=1, zrate=0)


def spiral(cameras: Cameras, bounds: Bounds, n: int = DEFAULT_FRAMES) -> Cameras:
    """[4 n] cameras twice around the average one, once to and fro (`geometry.paths.llff_spiral`)."""
    _frame(cameras, bounds, n)
    return llff_spiral(cameras, n=4 * n, bounds=bounds)


def recorded(cameras: Cameras, bounds: Bounds, n: int = DEFAULT_FRAMES) -> Cameras:
    """The rig's own cameras [N], each with its own intrinsics."""
    return cameras


RIG_PATHS: dict[str, Callable[[Cameras, Bounds, int], Cameras]] = {
    "x_axis": x_axis,
    "y_axis": y_axis,
    "z_axis": z_axis,
    "extreme": extreme,
    "circle": circle,
    "spiral": spiral,
    "input": recorded,
}
DEFAULT_PATHS = ("x_axis", "y_axis", "z_axis", "circle", "spiral")


def rig_path(
    cameras: Cameras, bounds: Bounds, names: Sequence[str] = DEFAULT_PATHS, n: int = DEFAULT_FRAMES
) -> Cameras:
    """Paths of a rig one after the other, in the order of `RIG_PATHS`; 9 n frames for those of the default.

    Raises UserError for an unknown name, or where a path cannot be made.
    """
    for name in names:
        if name not in RIG_PATHS:
            raise UserError(f"unknown path {name!r} of a rig: choose from {', '.join(RIG_PATHS)}")
    if not names:
        raise UserError(f"no path of a rig was named: ask for at least one of {', '.join(RIG_PATHS)}")
    parts = [path(cameras, bounds, n) for name, path in RIG_PATHS.items() if name in names]
    K, c2w = torch.cat([part.K for part in parts]), torch.cat([part.c2w for part in parts])
    return Cameras(K, c2w, cameras.height, cameras.width)


def _frame(cameras: Cameras, bounds: Bounds, n: int) -> RigFrame:
    if len(cameras.shape) != 1:
        raise ValueError(f"need cameras [N], got {tuple(cameras.shape)}")
    if n < 1:
        raise UserError(f"a camera path of {n} frames: ask for at least 1")
    if len(cameras) < 2:
        raise UserError(f"the paths of a rig need at least 2 cameras, there are {len(cameras)}")
    if not 0 < bounds[0] < bounds[1]:
        raise UserError(f"near {bounds[0]:g} and far {bounds[1]:g} are no depth range: give 0 < near < far")
    return rig_frame(cameras.c2w.double(), bounds)


def _along(cameras: Cameras, frame: RigFrame, n: int, axis: int, reach: float) -> Cameras:
    """[n] cameras along an axis of the average camera, from -reach to, without, +reach."""
    steps = torch.linspace(-1, 1, n + 1, dtype=torch.float64, device=frame.mean.device)[:-1]
    center = frame.mean[:3, 3] + reach * steps[:, None] * frame.mean[:3, axis]
    return _looking(cameras, frame, center)


def _looking(cameras: Cameras, frame: RigFrame, center: Tensor) -> Cameras:
    """Cameras at centres [n, 3] that look at the rig's focus, with the first camera's intrinsics."""
    return cameras[0].with_poses(look_at(center, frame.focus, frame.down).to(cameras.c2w))
