"""Camera paths: pure functions `path(reference, scale, n, ...) -> Cameras [n]`.

The paths of `AROUND_ONE` start from one camera, the others from all cameras [N] of a scene. `scale` is always
the scene's depth unit in world units: the 20th percentile of the z-depth seen from the reference
(MegaScenes). Paths around one camera are given in that unit; the others, whose extent the cameras set, use it
where cameras alone leave a distance open. Every path is computed in float64 and returned in the reference's
dtype, with the (first) reference camera's image size and, unless said otherwise, its intrinsics. Frames of
closed paths (spiral, llff_spiral, ellipse) do not repeat the first camera at the end.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from common.errors import UserError
from geometry.cameras import Cameras
from geometry.poses import (
    focus_point,
    look_at,
    matrix_from_quaternion,
    pose,
    quaternion_from_matrix,
    rig_frame,
    rotation_y,
    slerp,
    turn_angle,
)

_DENSE = 20_000  # samples of a curve, among which frames of equal distance are found


def orbit(
    reference: Cameras,
    scale: float = 1.0,
    n: int = 19,
    angle: float = 30.0,
    radius: float = 1.0,
    ends: tuple[float, float] = (1.0, -1.0),
) -> Cameras:
    """One camera -> [n] cameras that swing around what lies ahead, from left to right (MegaScenes).

    angle: degrees; with j = i - (n - 1) / 2, frame i turns by angle * j / ((n + 1) / 2), so the ends stay one
    step short of it (27 of 30 degrees for 19 frames). radius: how far the scene slides sideways at the ends,
    in units of `scale`. ends: that slide in the first and the last frame, in radii, positive to the right. An
    odd n has the reference itself as its middle frame. Source: MegaScenes NVS (specs/warp_diffusion 3.4),
    whose 19 frames these are at the default.
    """
    _check(reference, n, single=True)
    step = torch.arange(n, dtype=torch.float64) - (n - 1) / 2
    turn = math.radians(angle) * step / ((n + 1) / 2)
    sideways = torch.where(step < 0, -ends[0] * step, ends[1] * step) / max((n - 1) / 2, 0.5)
    shift = radius * torch.stack([sideways, torch.zeros_like(turn), turn.sin()], dim=-1)
    return _around(reference, scale, torch.linalg.inv(pose(rotation_y(turn), shift)))


def spiral(
    reference: Cameras, scale: float = 1.0, n: int = 20, max_trans: float = 3.0, z_div: float = 2.0
) -> Cameras:
    """One camera -> [n] cameras on a closed curve that keep its orientation (MegaScenes).

    max_trans: largest sideways shift, in units of `scale`; a quarter of it up and down, 1 / z_div of it
    forwards and backwards. Source: MegaScenes NVS (specs/warp_diffusion 3.4).
    """
    _check(reference, n, single=True)
    phase = _turn(n)
    center = max_trans * torch.stack([-phase.sin(), -phase.cos() / 4, phase.sin() / z_div], dim=-1)
    return _around(reference, scale, pose(torch.eye(3, dtype=torch.float64).expand(n, 3, 3), center))


def lateral(reference: Cameras, scale: float = 1.0, n: int = 20, extent: float = 1.0) -> Cameras:
    """One camera -> [n] cameras on a straight line along its x axis, from +extent to -extent (MegaScenes).

    extent: in units of `scale`. Source: MegaScenes NVS (specs/warp_diffusion 3.4).
    """
    _check(reference, n, single=True)
    center = torch.zeros(n, 3, dtype=torch.float64)
    center[:, 0] = torch.linspace(extent, -extent, n, dtype=torch.float64)
    return _around(reference, scale, pose(torch.eye(3, dtype=torch.float64).expand(n, 3, 3), center))


def llff_spiral(
    reference: Cameras,
    scale: float = 1.0,
    n: int = 120,
    bounds: tuple[float, float] | None = None,
    turns: float = 2.0,
    zrate: float = 0.5,
) -> Cameras:
    """[N >= 2] cameras -> [n] cameras that spiral about the average one and look at one point (LLFF).

    bounds: least and greatest z-depth of the scene in world units; (scale / 2, 2 scale) when None.
    turns: rounds in the image plane. zrate: waves to and fro per turn. The spiral's half axes are the 90th
    percentiles of the cameras' distances from the average camera. Source: LLFF (specs/mask_volume 4.5).
    """
    _check(reference, n, least=2)
    frame = rig_frame(reference.c2w.double(), bounds or (scale / 2, 2 * scale))
    right, down, _ = frame.reach
    phase = _turn(n).to(right.device) * turns
    local = torch.stack(
        [right * phase.cos(), -down * phase.sin(), 0.2 * frame.close * (zrate * phase).sin()], dim=-1
    )
    center = frame.mean[:3, 3] + local @ frame.mean[:3, :3].T
    return _like(reference, look_at(center, frame.focus, frame.down))


def ellipse(reference: Cameras, scale: float = 1.0, n: int = 120) -> Cameras:
    """[N >= 3] cameras -> [n] cameras on an ellipse, equally far apart, that look at the scene's middle.

    The middle is the point nearest to the optical axes (`geometry.poses.focus_point`, which may use `scale`),
    up the mean of the cameras' up. Where the cameras stand all around it (neighbouring directions less than
    120 degrees apart), the ellipse encloses it: level, counter-clockwise seen from above, at the cameras'
    median height, axes along and across their greatest spread, half axes sqrt(2) times the root mean square
    of their coordinates. Where they cover an arc only, as in front of a wall, the curve stays among them: the
    ellipse inscribed in the cameras' range of azimuth and elevation about the middle, at their median
    distance from it.

    Raises UserError when the cameras look at no common point or do not spread around it.
    """
    _check(reference, n, least=3)
    cameras = reference.to(torch.float64)
    focus = focus_point(cameras, scale)
    down = normalize(cameras.c2w[:, :3, 1].sum(0), dim=-1)
    axes = _level_axes(down)
    local = (cameras.center - focus) @ axes.T  # [N, 3]: two level coordinates and the height
    phase = _turn(_DENSE).to(local.device)
    curve = _ring(local, phase) if _surrounds(local) else _arc(local, phase)
    nearest = (curve - local[0]).norm(dim=-1).argmin()
    curve = curve.roll(-int(nearest), dims=0)  # start beside the first camera
    travel = _cumulative((curve.roll(-1, dims=0) - curve).norm(dim=-1))
    if travel[-1] <= 1e-9 * local.norm(dim=-1).max():
        raise UserError("the cameras do not spread around the scene: use the path 'interpolate' or 'orbit'")
    position = torch.arange(n, dtype=torch.float64) / n * float(travel[-1])
    center = focus + _linear(travel, torch.cat([curve, curve[:1]]), position) @ axes
    return _like(reference, look_at(center, focus, down))


def interpolate(reference: Cameras, scale: float = 1.0, n: int = 120) -> Cameras:
    """[N >= 2] cameras -> [n] cameras, equally far apart, on a smooth path through all of them in order.

    Centres, logarithms of the focal lengths and principal points follow natural cubic splines; rotations
    turn steadily from camera to camera, the shorter way (slerp). The distance between frames is
    sqrt(travel^2 + (scale * radians turned)^2), so that a turn on the spot takes its time too. The first and
    last frames are the first and last cameras; frames meet the cameras between only where the spacing has it.

    Raises UserError when all cameras are the same.
    """
    _check(reference, n, least=2)
    cameras = reference.to(torch.float64)
    rotation = quaternion_from_matrix(cameras.c2w[:, :3, :3])
    step = _distance(cameras.center, rotation, scale)
    moved = torch.cat([step.new_ones(1), step]) > 1e-9 * step.sum()
    cameras, rotation = cameras[moved], rotation[moved]
    if len(cameras) < 2:
        raise UserError("the cameras are all the same: there is nothing to interpolate")
    knots = _cumulative(_distance(cameras.center, rotation, scale))
    spacing = torch.linspace(0, 1, _DENSE, dtype=torch.float64, device=knots.device)
    dense = torch.cat([knots, spacing * knots[-1]]).unique()
    travel = _cumulative(
        _distance(_spline(knots, cameras.center, dense), _turning(knots, rotation, dense), scale)
    )
    position = torch.linspace(0, 1, n, dtype=torch.float64) * float(travel[-1])
    at = _linear(travel, dense[:, None], position)[:, 0].clamp(0, float(knots[-1]))
    c2w = pose(matrix_from_quaternion(_turning(knots, rotation, at)), _spline(knots, cameras.center, at))
    log_K = torch.cat([cameras.focal.log(), cameras.K[:, :2, 2], cameras.K[:, 0, 1:2]], dim=-1)
    fx, fy, cx, cy, skew = _spline(knots, log_K, at).unbind(-1)
    K = torch.zeros_like(c2w[:, :3, :3])
    K[:, 0, 0], K[:, 1, 1], K[:, 0, 2], K[:, 1, 2], K[:, 0, 1], K[:, 2, 2] = (
        fx.exp(),
        fy.exp(),
        cx,
        cy,
        skew,
        1,
    )
    return Cameras(K, c2w, reference.height, reference.width).to(reference.c2w.dtype)


PATHS: dict[str, Callable[..., Cameras]] = {
    "orbit": orbit,
    "spiral": spiral,
    "lateral": lateral,
    "llff_spiral": llff_spiral,
    "ellipse": ellipse,
    "interpolate": interpolate,
}
AROUND_ONE = frozenset({"orbit", "spiral", "lateral"})  # take a single camera; the others take [N]


def _check(reference: Cameras, n: int, single: bool = False, least: int = 1) -> None:
    """Raise ValueError for a wrong batch shape, UserError for too few cameras, frames or a bad pose."""
    if len(reference.shape) != (0 if single else 1):
        raise ValueError(f"need {'one camera' if single else 'cameras [N]'}, got {tuple(reference.shape)}")
    if n < 1:
        raise UserError(f"a camera path of {n} frames: ask for at least 1")
    if not single and len(reference) < least:
        raise UserError(f"this path needs at least {least} cameras, the scene gives {len(reference)}")


def _around(reference: Cameras, scale: float, relative: Tensor) -> Cameras:
    """Place poses [n, 4, 4] relative to a camera, their translations multiplied by `scale`."""
    relative = relative.to(reference.c2w.device)
    placed = pose(relative[:, :3, :3], scale * relative[:, :3, 3])
    return _like(reference, reference.c2w.double() @ placed)


def _like(reference: Cameras, c2w: Tensor) -> Cameras:
    """Cameras at c2w [n, 4, 4] with the (first) reference's intrinsics, size, dtype and device."""
    first = reference[0] if reference.shape else reference
    return first.with_poses(c2w.to(reference.c2w))


def _turn(n: int) -> Tensor:
    """n equal steps of one turn in radians, its end left out."""
    return torch.arange(n, dtype=torch.float64) * (2 * math.pi / n)


def _level_axes(down: Tensor) -> Tensor:
    """[3, 3] rows: two level axes and up, right-handed. down: unit vector [3]."""
    least = torch.eye(3, dtype=down.dtype, device=down.device)[down.abs().argmin()]
    first = normalize(torch.linalg.cross(down, least), dim=-1)
    return torch.stack([first, torch.linalg.cross(-down, first), -down])


def _surrounds(local: Tensor) -> bool:
    """Whether positions [N, 3] stand all around the vertical axis: no two neighbours 120 degrees apart."""
    azimuth = torch.atan2(local[:, 1], local[:, 0]).sort().values
    gaps = torch.diff(azimuth, append=azimuth[:1] + 2 * math.pi)
    return bool(gaps.max() < math.radians(120))


def _ring(local: Tensor, phase: Tensor) -> Tensor:
    """Level ellipse about the vertical axis fitted to positions [N, 3], at phases [M] -> [M, 3]."""
    level = local[:, :2]
    _, directions = torch.linalg.eigh(level.T @ level)  # columns: across and along the greatest spread
    directions = directions * torch.stack([torch.linalg.det(directions), phase.new_ones(())])  # no mirror
    spread = level @ directions
    half = torch.minimum((2 * spread.square().mean(0)).sqrt(), spread.abs().max(0).values)
    circle = torch.stack([phase.cos(), phase.sin()], dim=-1)
    height = local[:, 2].median().expand(len(phase), 1)
    return torch.cat([(circle * half) @ directions.T, height], dim=-1)


def _arc(local: Tensor, phase: Tensor) -> Tensor:
    """Closed curve within the azimuths and elevations of positions [N, 3], at phases [M] -> [M, 3]."""
    middle = normalize(normalize(local[:, :2], dim=-1).mean(0), dim=-1)
    ahead, aside = local[:, :2] @ middle, local[:, 1] * middle[0] - local[:, 0] * middle[1]
    angles = torch.stack([torch.atan2(aside, ahead), torch.atan2(local[:, 2], local[:, :2].norm(dim=-1))], -1)
    low, high = angles.min(0).values, angles.max(0).values
    circle = torch.stack([phase.cos(), phase.sin()], dim=-1)
    azimuth, elevation = ((low + high) / 2 + circle * (high - low) / 2).unbind(-1)
    azimuth = azimuth + torch.atan2(middle[1], middle[0])
    level = elevation.cos()[:, None] * torch.stack([azimuth.cos(), azimuth.sin()], dim=-1)
    return local.norm(dim=-1).median() * torch.cat([level, elevation.sin()[:, None]], dim=-1)


def _cumulative(steps: Tensor) -> Tensor:
    """[M] distances -> [M + 1] distances from the start."""
    return torch.cat([steps.new_zeros(1), steps.cumsum(0)])


def _distance(center: Tensor, rotation: Tensor, scale: float) -> Tensor:
    """[M - 1] distances between neighbours of M poses: travel and `scale` times the turn, root of squares."""
    travel = (center[1:] - center[:-1]).norm(dim=-1)
    return torch.hypot(travel, scale * turn_angle(rotation[:-1], rotation[1:]))


def _linear(x: Tensor, y: Tensor, at: Tensor) -> Tensor:
    """Piecewise linear interpolation: x [M] rising, y [M, C], at [n] -> [n, C]."""
    known, wanted = x.cpu().numpy(), at.cpu().numpy()
    columns = [np.interp(wanted, known, column) for column in y.T.cpu().numpy()]
    return torch.from_numpy(np.stack(columns, axis=-1)).to(y)


def _spline(knots: Tensor, values: Tensor, at: Tensor) -> Tensor:
    """Natural cubic spline: knots [M] rising, values [M, C], at [n] -> [n, C]."""
    from scipy.interpolate import CubicSpline

    curve = CubicSpline(knots.cpu().numpy(), values.cpu().numpy(), bc_type="natural")
    return torch.from_numpy(curve(at.cpu().numpy())).to(values)


def _turning(knots: Tensor, rotation: Tensor, at: Tensor) -> Tensor:
    """Quaternions [M, 4] at knots [M], turned steadily in between: at [n] -> [n, 4]."""
    before = (torch.searchsorted(knots, at, right=True) - 1).clamp(0, len(knots) - 2)
    fraction = (at - knots[before]) / (knots[before + 1] - knots[before])
    return slerp(rotation[before], rotation[before + 1], fraction)
