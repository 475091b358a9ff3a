"""Camera paths between source views, as the LVSM implementations film them (specs/lvsm 6.3).

The paths of `PAIR_PATHS` are functions `path(reference, scale, n) -> Cameras [n]` of the source cameras [N],
computed in float64 and returned in the reference's dtype, with its image size. `scale`, the scene's depth
unit, serves where cameras alone leave a distance open. `pivot` and `wobble` run there and back: an even n
leaves the last frame one step before the first, so that the video loops.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import normalize

from common.errors import UserError
from geometry.cameras import Cameras
from geometry.poses import (
    focus_point,
    matrix_from_quaternion,
    pose,
    quaternion_from_matrix,
    rotation_y,
    slerp,
)

PAIR_FPS = 30.0  # of both implementations' videos
_PARALLEL = 1e-4  # cosines this close to 1 or -1 are of parallel axes


def smooth(t: Tensor) -> Tensor:
    """Fractions [n] of the way, slow at both ends: (cos(pi (t + 1)) + 1) / 2."""
    return ((math.pi * (t + 1)).cos() + 1) / 2


def there_and_back(n: int) -> Tensor:
    """[n] fractions in [0, 1], from 0 to 1 and back; the end of an even n stops a step short of the start."""
    forward = torch.linspace(0, 1, (n + 2) // 2, dtype=torch.float64)
    return torch.cat([forward, forward.flip(0)[1:]])[:n]


def pivot_interpolate(c2w: Tensor, t: Tensor) -> Tensor:
    """Poses [n, 4, 4] at t [n], also outside [0, 1], between two poses c2w [2, 4, 4].

    The camera turns steadily about the point nearest to both optical axes (their centres' middle where the
    axes are parallel): in a frame whose y axis is perpendicular to both lines of sight, the angles about y
    and z and the pivot's position as seen from the camera change linearly.
    """
    look = c2w[:, :3, 2]
    pivot, axes = _pivot(c2w), _turning_frame(c2w)
    turned = axes.T @ c2w[:, :3, :3]  # = rotation about y, then about z: x is level in this frame
    yaw = torch.atan2(turned[:, 0, 2], turned[:, 2, 2])
    roll = torch.atan2(turned[:, 1, 0], turned[:, 1, 1])
    yaw, roll = _between_angles(yaw, t), _between_angles(roll, t)
    up = axes[:, 1]
    offset = torch.einsum("nij,nj->ni", _sight_frame(up, look).mT, pivot - c2w[:, :3, 3])
    offset = torch.lerp(offset[:1], offset[1:], t[:, None])
    rotation = axes @ rotation_y(yaw) @ _rotation_z(roll)
    center = pivot - torch.einsum("nij,nj->ni", _sight_frame(up, rotation[..., 2]), offset)
    return pose(rotation, center)


def wobble_shift(t: Tensor, radius: Tensor, turns: int = 1) -> Tensor:
    """[n, 4, 4] shifts round the camera's optical axis at t [n]: right by the sine, up by the cosine.

    radius: [n] or scalar, world units.
    """
    phase = 2 * math.pi * turns * t
    shift = torch.stack([radius * phase.sin(), -radius * phase.cos(), torch.zeros_like(t)], dim=-1)
    return pose(torch.eye(3, dtype=t.dtype, device=t.device).expand(len(t), 3, 3), shift)


def wobble_poses(c2w: Tensor, t: Tensor) -> Tensor:
    """Poses [n, 4, 4] at t [n]: the first of c2w [2, 4, 4], on a circle that widens to a quarter baseline."""
    return c2w[0] @ wobble_shift(t, 0.25 * _baseline(c2w) * t)


def exaggerated_poses(c2w: Tensor, t: Tensor) -> Tensor:
    """Poses [n, 4, 4] at t [n]: two baselines beyond both of c2w [2, 4, 4], on a coil of five turns."""
    return pivot_interpolate(c2w, 5 * t - 2) @ wobble_shift(t, 0.5 * _baseline(c2w), turns=5)


def spin_poses(n: int, elevation: float, radius: float) -> Tensor:
    """[n, 4, 4] poses once round the origin, which they look at, in a world whose y axis points up.

    elevation: degrees above the level. radius: distance from the origin.
    """
    azimuth = torch.arange(n, dtype=torch.float64) * (2 * math.pi / n)
    tilt = _rotation_x(torch.tensor(math.radians(elevation), dtype=torch.float64))
    upright = torch.diag(torch.tensor([-1.0, -1.0, 1.0], dtype=torch.float64))
    rotation = rotation_y(azimuth) @ tilt @ upright
    return pose(rotation, -radius * rotation[..., 2])


def slerp_cameras(reference: Cameras, counts: list[int]) -> Cameras:
    """Cameras on straight lines from each of reference [N] to the next, turning steadily on the way.

    counts: frames of each of the N - 1 transitions, both of its ends among them, so that cameras between
    transitions come twice. Intrinsics change linearly.
    """
    cameras = reference.to(torch.float64)
    rotation = quaternion_from_matrix(cameras.c2w[:, :3, :3])
    K, poses = [], []
    for i, count in enumerate(counts):
        t = torch.linspace(0, 1, count, dtype=torch.float64, device=cameras.K.device)
        turned = slerp(rotation[i].expand(count, 4), rotation[i + 1].expand(count, 4), t)
        center = torch.lerp(cameras.center[i], cameras.center[i + 1], t[:, None])
        poses.append(pose(matrix_from_quaternion(turned), center))
        K.append(torch.lerp(cameras.K[i], cameras.K[i + 1], t[:, None, None]))
    made = Cameras(torch.cat(K), torch.cat(poses), reference.height, reference.width)
    return made.to(reference.c2w.dtype)


def nearest_order(reference: Cameras) -> list[int]:
    """An order of cameras [N] that starts with the first and always goes on to the nearest one left."""
    left, order = list(range(1, len(reference))), [0]
    centers = reference.center
    while left:
        distance = (centers[left] - centers[order[-1]]).norm(dim=-1)
        order.append(left.pop(int(distance.argmin())))
    return order


# Paths by name


def pivot(reference: Cameras, scale: float = 1.0, n: int = 58) -> Cameras:
    """From the first camera to the last, turning about what both look at, and back."""
    return _between(reference, smooth(there_and_back(n)), pivot_interpolate)


def wobble(reference: Cameras, scale: float = 1.0, n: int = 118) -> Cameras:
    """A widening circle round the first camera, up to a quarter of its distance from the last, and back."""
    return _between(reference, smooth(there_and_back(n)), wobble_poses)


def exaggerated(reference: Cameras, scale: float = 1.0, n: int = 300) -> Cameras:
    """The way of `pivot` from two baselines before the first camera to two beyond the last, coiling."""
    t = torch.linspace(0, 1, n, dtype=torch.float64) if n > 0 else torch.empty(0)
    return _between(reference, t, exaggerated_poses)


def slerp_path(reference: Cameras, scale: float = 1.0, n: int = 120) -> Cameras:
    """Straight from each camera to the next and at last back to the first; frames shared out evenly."""
    _check(reference, n)
    transitions = len(reference)
    if n < 2 * transitions:
        raise UserError(
            f"the path 'slerp' through {transitions} views needs at least {2 * transitions} frames"
        )
    counts = [n // transitions + (i < n % transitions) for i in range(transitions)]
    return slerp_cameras(reference[[*range(len(reference)), 0]], counts)


def spin(reference: Cameras, scale: float = 1.0, n: int = 120) -> Cameras:
    """Once round what the cameras [N] look at, at their mean distance and height, from before the first one.

    Up is the mean of the cameras' up. Raises UserError when the cameras look at no common point.
    """
    _check(reference, n, least=1)
    cameras = reference.to(torch.float64)
    focus = focus_point(cameras, scale)
    up = -normalize(cameras.c2w[:, :3, 1].sum(0), dim=-1)
    offset = cameras.center - focus
    radius = float(offset.norm(dim=-1).mean())
    height = (float((offset @ up).mean()) / max(radius, 1e-12)) if radius else 0.0
    ahead = -offset[0] + (offset[0] @ up) * up
    if ahead.norm() < 1e-9 * max(radius, 1e-12):
        raise UserError(
            "the path 'spin' finds no direction to start from: its first camera looks straight down"
        )
    z = normalize(ahead, dim=-1)
    world = pose(torch.stack([torch.linalg.cross(up, z), up, z], dim=-1), focus)
    elevation = math.degrees(math.asin(max(-1.0, min(1.0, height))))
    return _like(reference, world @ spin_poses(n, elevation, radius).to(world), cameras.K[:1].expand(n, 3, 3))


PAIR_PATHS: dict[str, Callable[..., Cameras]] = {
    "pivot": pivot,
    "wobble": wobble,
    "exaggerated": exaggerated,
    "slerp": slerp_path,
    "spin": spin,
}


def _between(reference: Cameras, t: Tensor, poses: Callable[[Tensor, Tensor], Tensor]) -> Cameras:
    """Poses between the first and the last camera at t [n]; intrinsics change linearly from 0 to 1."""
    _check(reference, len(t))
    ends = reference[[0, -1]].to(torch.float64)
    if _baseline(ends.c2w) == 0 and torch.equal(ends.c2w[0], ends.c2w[1]):
        raise UserError(
            "the first and the last source view have the same pose: there is no path between them"
        )
    t = t.to(ends.K)
    return _like(reference, poses(ends.c2w, t), torch.lerp(ends.K[0], ends.K[1], t[:, None, None]))


def _like(reference: Cameras, c2w: Tensor, K: Tensor) -> Cameras:
    return Cameras(K, c2w, reference.height, reference.width).to(reference.c2w.dtype)


def _check(reference: Cameras, n: int, least: int = 2) -> None:
    if len(reference.shape) != 1:
        raise ValueError(f"need cameras [N], got {tuple(reference.shape)}")
    if n < 1:
        raise UserError(f"a camera path of {n} frames: ask for at least 1")
    if len(reference) < least:
        raise UserError(
            f"this path runs between source views: it needs {least} of them, not {len(reference)}"
        )


def _baseline(c2w: Tensor) -> Tensor:
    return (c2w[1, :3, 3] - c2w[0, :3, 3]).norm()


def _are_parallel(look: Tensor) -> bool:
    return bool((look[0] @ look[1]).abs() > 1 - _PARALLEL)


def _pivot(c2w: Tensor) -> Tensor:
    """The point [3] nearest to the optical axes of c2w [2, 4, 4]; their centres' middle where parallel."""
    look, center = c2w[:, :3, 2], c2w[:, :3, 3]
    if _are_parallel(look):
        return center.mean(0)
    across = torch.eye(3).to(look) - look[:, :, None] * look[:, None, :]
    return torch.linalg.solve(across.sum(0), (across @ center[..., None]).sum(0))[:, 0]


def _turning_frame(c2w: Tensor) -> Tensor:
    """[3, 3] columns: x; y, perpendicular to both lines of sight of c2w [2, 4, 4]; z, the first one's.

    Parallel lines leave y open: it is then the first camera's.
    """
    look = c2w[:, :3, 2]
    y = c2w[0, :3, 1] if _are_parallel(look) else normalize(torch.linalg.cross(look[0], look[1]), dim=-1)
    return torch.stack([torch.linalg.cross(y, look[0]), y, look[0]], dim=-1)


def _sight_frame(up: Tensor, look: Tensor) -> Tensor:
    """[n, 3, 3] columns [up x look, up, look] of lines of sight [n, 3]."""
    up = up.expand_as(look)
    return torch.stack([torch.linalg.cross(up, look), up, look], dim=-1)


def _between_angles(ends: Tensor, t: Tensor) -> Tensor:
    """Angles [n] at t [n] from ends[0] to ends[1], the shorter way round."""
    difference = torch.remainder(ends[1] - ends[0] + math.pi, 2 * math.pi) - math.pi
    return ends[0] + t * difference


def _rotation_x(angle: Tensor) -> Tensor:
    """[...] radians -> [..., 3, 3] rotations about x that take y towards z."""
    cosine, sine = angle.cos(), angle.sin()
    zero, one = torch.zeros_like(angle), torch.ones_like(angle)
    rows = [[one, zero, zero], [zero, cosine, -sine], [zero, sine, cosine]]
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def _rotation_z(angle: Tensor) -> Tensor:
    """[...] radians -> [..., 3, 3] rotations about z that take x towards y."""
    cosine, sine = angle.cos(), angle.sin()
    zero, one = torch.zeros_like(angle), torch.ones_like(angle)
    rows = [[cosine, -sine, zero], [sine, cosine, zero], [zero, zero, one]]
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)
