"""Cameras from which a single photo is turned into a scene: on a small circle, looking through its middle.

Directions count from the photo's camera: azimuth 0, elevation 0 is its own. The circle's middle lies ahead of
the photo, and every camera looks at the middle from outside, so that what it sees lies beyond. A positive
azimuth turns the view to the LEFT, a positive elevation looks DOWN (from above). Sources: Invisible Stitch
(Engstler et al. 2024), specs/scene_lifting 3.1 and 3.2.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from common.errors import UserError
from geometry.cameras import Cameras
from geometry.poses import look_at

STEP = 25.0  # degrees from view to view
# The last two views of '360' leave gaps of 22.5 and 43.75 degrees, as the original has them.
MODES: dict[str, tuple[float, ...]] = {
    "single": (0.0,),
    "stage": (0.0, STEP, -STEP),
    "360": (*(STEP * i for i in range(11)), 272.5, 316.25),
}
SUPPORTING_STEP = 5.0  # degrees between the cameras of the supporting grid


def mode_cameras(photo: Cameras, mode: str, radius: float = 0.01) -> Cameras:
    """The cameras [N] of a mode, the photo's own first.

    photo: a single camera; the others have its lens and size. mode: 'single', 'stage' (a step to either side)
    or '360'. radius: of the circle, in world units. Raises UserError for an unknown mode.
    """
    if mode not in MODES:
        raise UserError(f"unknown mode {mode!r}: choose from {', '.join(MODES)}")
    return circle_cameras(photo, [(azimuth, 0.0) for azimuth in MODES[mode]], radius)


def circle_cameras(
    photo: Cameras, directions: Sequence[tuple[float, float]], radius: float = 0.01
) -> Cameras:
    """Cameras [N] around the point that lies `radius` (world units) ahead of the photo's camera.

    photo: a single camera; the others have its lens and size. directions: (azimuth, elevation) in degrees
    from the photo's; (0, 0) is the photo's camera itself.
    """
    _check_single(photo)
    middle = photo.center + radius * photo.c2w[:3, 2]
    return turntable_cameras(photo, middle, directions, radius)


def turntable_cameras(
    photo: Cameras, middle: Tensor, directions: Sequence[tuple[float, float]], distance: float
) -> Cameras:
    """Cameras [N] at a distance (world units) from a point [3] that look at it.

    photo: a single camera, from whose axes the directions (azimuth, elevation), in degrees, count; the
    cameras have its lens and size. Elevations must stay off +-90, where up has no direction.
    """
    _check_single(photo)
    axes = photo.c2w[:3, :3]  # columns: right, down, forward
    azimuth, elevation = torch.tensor(directions, dtype=photo.c2w.dtype).reshape(-1, 2).deg2rad().unbind(-1)
    level = elevation.cos()
    offset = torch.stack([azimuth.sin() * level, -elevation.sin(), -azimuth.cos() * level], dim=-1)
    middle = middle.to(photo.c2w)
    center = middle + distance * offset.to(photo.c2w) @ axes.T
    return photo.with_poses(look_at(center, middle, axes[:, 1]))


def supporting_directions(azimuth: float, elevation: float = 0.0) -> list[tuple[float, float]]:
    """The 3x3 grid of (azimuth, elevation), degrees, around a view's own, azimuth by azimuth."""
    steps = (-SUPPORTING_STEP, 0.0, SUPPORTING_STEP)
    return [(azimuth + a, elevation + e) for a in steps for e in steps]


def supporting_cameras(
    photo: Cameras, azimuth: float, elevation: float, middle: Tensor, depth: float
) -> Cameras:
    """The nine cameras that look at a view's middle from a little to all sides (specs/scene_lifting 3.2).

    photo: the single camera that directions count from. azimuth, elevation: of the view, degrees. middle: [3]
    mean of the points it was lifted to. depth: the mean of its z-depths, which is the cameras' distance.
    """
    return turntable_cameras(photo, middle, supporting_directions(azimuth, elevation), depth)


def _check_single(photo: Cameras) -> None:
    if photo.shape:
        raise ValueError(f"directions count from one camera, not {tuple(photo.shape)}")
