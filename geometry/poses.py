"""Rotations, camera poses and what a set of poses has in common. Everything keeps dtype and device."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from common.errors import UserError
from geometry.cameras import Cameras


def matrix_from_quaternion(quaternion: Tensor) -> Tensor:
    """[..., 4] quaternions (w, x, y, z) of any length but 0 -> [..., 3, 3] rotation matrices."""
    w, x, y, z = normalize(quaternion, dim=-1, eps=0).unbind(-1)
    rows = [
        torch.stack([1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)], dim=-1),
        torch.stack([2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)], dim=-1),
        torch.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)], dim=-1),
    ]
    return torch.stack(rows, dim=-2)


def quaternion_from_matrix(rotation: Tensor) -> Tensor:
    """[..., 3, 3] rotation matrices -> [..., 4] unit quaternions (w, x, y, z) with w >= 0.

    The outer product 4 q q^T is linear in the matrix; its row with the largest diagonal entry gives q without
    cancellation, also near half turns.
    """
    m = rotation
    trace = m.diagonal(dim1=-2, dim2=-1).sum(-1)
    outer = m.new_zeros(*m.shape[:-2], 4, 4)
    outer[..., 0, 0] = 1 + trace
    for i, (j, k) in enumerate([(1, 2), (2, 0), (0, 1)]):
        outer[..., i + 1, i + 1] = 1 + 2 * m[..., i, i] - trace
        outer[..., 0, i + 1] = outer[..., i + 1, 0] = m[..., k, j] - m[..., j, k]
        outer[..., j + 1, k + 1] = outer[..., k + 1, j + 1] = m[..., k, j] + m[..., j, k]
    best = outer.diagonal(dim1=-2, dim2=-1).argmax(-1)
    rows = outer.gather(-2, best[..., None, None].expand(*best.shape, 1, 4)).squeeze(-2)
    quaternion = normalize(rows, dim=-1, eps=0)
    return torch.where(quaternion[..., :1] < 0, -quaternion, quaternion)


def slerp(start: Tensor, end: Tensor, fraction: Tensor) -> Tensor:
    """Turn steadily from one unit quaternion [..., 4] to another, the shorter way round (Shoemake 1985).

    fraction: [...] in [0, 1]. Returns unit quaternions [..., 4].
    """
    cosine = (start * end).sum(-1, keepdim=True)
    end = torch.where(cosine < 0, -end, end)
    # The half-angle form keeps its precision where the arc cosine loses half the digits: near equality.
    angle = 2 * torch.atan2(
        (end - start).norm(dim=-1, keepdim=True), (end + start).norm(dim=-1, keepdim=True)
    )
    fraction = fraction[..., None]
    small = angle < 1e-9
    sine = torch.where(small, torch.ones_like(angle), angle.sin())
    weight_start = torch.where(small, 1 - fraction, ((1 - fraction) * angle).sin() / sine)
    weight_end = torch.where(small, fraction, (fraction * angle).sin() / sine)
    return normalize(weight_start * start + weight_end * end, dim=-1, eps=0)


def turn_angle(start: Tensor, end: Tensor) -> Tensor:
    """[...] radians in [0, pi] between unit quaternions [..., 4]."""
    end = torch.where((start * end).sum(-1, keepdim=True) < 0, -end, end)
    return 4 * torch.atan2((end - start).norm(dim=-1), (end + start).norm(dim=-1))


def rotation_y(angle: Tensor) -> Tensor:
    """[...] radians -> [..., 3, 3] rotations about y that take z towards x."""
    cosine, sine = angle.cos(), angle.sin()
    zero, one = torch.zeros_like(angle), torch.ones_like(angle)
    rows = [[cosine, zero, sine], [zero, one, zero], [-sine, zero, cosine]]
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def pose(rotation: Tensor, translation: Tensor) -> Tensor:
    """[..., 3, 3] and [..., 3] -> [..., 4, 4] rigid transforms."""
    top = torch.cat([rotation, translation[..., None]], dim=-1)
    bottom = top.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(*top.shape[:-2], 1, 4)
    return torch.cat([top, bottom], dim=-2)


def look_at(center: Tensor, focus: Tensor, down: Tensor) -> Tensor:
    """Camera-to-world poses [..., 4, 4] (OpenCV axes) at `center` that look at `focus`.

    center, focus, down: [..., 3], broadcast. down: world direction that shows downwards in the image; it
    must not be parallel to the line of sight.
    """
    center, focus, down = torch.broadcast_tensors(center, focus, down)
    z = normalize(focus - center, dim=-1, eps=0)
    x = normalize(torch.linalg.cross(down, z), dim=-1, eps=0)
    return pose(torch.stack([x, torch.linalg.cross(z, x), z], dim=-1), center)


def pose_from_llff(columns: Tensor) -> Tensor:
    """[..., 3, 4] LLFF columns [down, right, backwards, position] -> c2w [..., 4, 4], OpenCV axes."""
    down, right, backwards, position = columns.unbind(-1)
    return pose(torch.stack([right, down, -backwards], dim=-1), position)


def llff_from_pose(c2w: Tensor) -> Tensor:
    """c2w [..., 4, 4], OpenCV axes -> [..., 3, 4] LLFF columns [down, right, backwards, position]."""
    right, down, forward, position = c2w[..., :3, :].unbind(-1)
    return torch.stack([down, right, -forward, position], dim=-1)


def mean_pose(c2w: Tensor) -> Tensor:
    """The average camera of LLFF: poses [N, 4, 4] -> [4, 4] (OpenCV axes).

    Mean centre, sum of the optical axes as optical axis, sum of the y axes as the direction of down.
    """
    center = c2w[:, :3, 3].mean(0)
    return look_at(center, center + normalize(c2w[:, :3, 2].sum(0), dim=-1), c2w[:, :3, 1].sum(0))


@dataclass
class RigFrame:
    """What LLFF's paths know of cameras that look the same way (specs/mask_volume 4.5).

    mean: [4, 4] the average camera. down: [3] the sum of the cameras' y axes. offsets: [N, 3] camera centres
    in its frame. reach: [3] 90th percentiles of their sizes. focus: [3] the world point that paths look at.
    close: 0.9 of the nearest depth.
    """

    mean: Tensor
    down: Tensor
    offsets: Tensor
    reach: Tensor
    focus: Tensor
    close: float


def rig_frame(c2w: Tensor, bounds: tuple[float, float]) -> RigFrame:
    """The frame of poses [N, 4, 4]. bounds: least and greatest z-depth of the scene in world units.

    The focus lies at a mean disparity of 0.9 of the least depth (a quarter) and 5 times the greatest.
    """
    near, far = bounds
    close, infinity = 0.9 * near, 5 * far
    mean = mean_pose(c2w)
    offsets = (c2w[:, :3, 3] - mean[:3, 3]) @ mean[:3, :3]
    depth = 1 / (0.25 / close + 0.75 / infinity)
    focus = mean[:3, 3] + depth * mean[:3, 2]
    reach = torch.quantile(offsets.abs(), 0.9, dim=0)
    return RigFrame(mean, c2w[:, :3, 1].sum(0), offsets, reach, focus, close)


def nearest_to_axes(cameras: Cameras) -> tuple[Tensor, Tensor]:
    """The world point [3] nearest to the optical axes of cameras [N], in the least-squares sense.

    Also returns how well it is determined: the smallest eigenvalue of the mean projector across the axes, in
    [0, 2/3]; about sin^2 of the typical angle between an axis and the mean one, 0 for parallel axes.
    """
    axis = normalize(cameras.c2w[:, :3, 2], dim=-1)
    across = torch.eye(3, dtype=axis.dtype, device=axis.device) - axis[:, :, None] * axis[:, None, :]
    mean = across.mean(0)
    target = (across @ cameras.center[..., None]).mean(0)
    return (torch.linalg.pinv(mean, hermitian=True) @ target).squeeze(-1), torch.linalg.eigvalsh(mean)[0]


_PARALLEL = 1e-4  # (0.01 rad)^2: axes closer than this to parallel meet nowhere in particular
_COMMON = 0.5  # length of the mean of unit axes below which cameras look in no common direction


def focus_point(cameras: Cameras, scale: float) -> Tensor:
    """The world point [3] that cameras [N] look at.

    The point nearest to the optical axes; where these are nearly parallel, or that point lies behind most
    cameras, the point `scale` in front of the average camera. Raises UserError when the cameras look in no
    common direction either (a panorama).
    """
    point, certainty = nearest_to_axes(cameras)
    axis = cameras.c2w[:, :3, 2]
    ahead = ((point - cameras.center) * axis).sum(-1)
    if certainty > _PARALLEL and ahead.median() > 0:
        return point
    mean_axis = normalize(axis, dim=-1).mean(0)
    if mean_axis.norm() < _COMMON:
        raise UserError("the cameras look at no common point: use the path 'interpolate'")
    return cameras.center.mean(0) + scale * normalize(mean_axis, dim=-1)
