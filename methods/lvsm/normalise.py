"""Cameras in a frame and at a scale that the source views set (specs/lvsm 3)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import normalize

from geometry.cameras import Cameras
from geometry.poses import matrix_from_quaternion, pose, quaternion_from_matrix

_FLAT = 1e-6  # extent of cameras, relative to their distance from the origin, that counts as none


@dataclass
class Frame:
    """A similarity transform: x -> scale * (rotation^T (x - origin) - center).

    pose: [4, 4] camera-to-world of the frame. center: [3] in the frame. scale: what one world unit becomes.
    """

    pose: Tensor
    center: Tensor
    scale: Tensor

    def __call__(self, cameras: Cameras) -> Cameras:
        """Cameras [...] of the world in this frame; rotations do not scale."""
        c2w = torch.linalg.inv(self.pose) @ cameras.c2w
        c2w = c2w.clone()
        c2w[..., :3, 3] = self.scale * (c2w[..., :3, 3] - self.center)
        return replace(cameras, c2w=c2w)


def mean_rotation(c2w: Tensor) -> Tensor:
    """The rotation [3, 3] nearest to those of [N, 4, 4] on average.

    It is the top eigenvector of the mean of q q^T over unit quaternions q (Markley et al. 2007).
    """
    q = quaternion_from_matrix(c2w[:, :3, :3])
    vector = torch.linalg.eigh(q.T @ q / len(q)).eigenvectors[:, -1]
    return matrix_from_quaternion(vector)


def source_frame(source: Cameras, single_scale: float = 1.0) -> Frame:
    """The frame of the sources' mean camera, in which their centres fill a box of side 2 around 0.

    source: [S] float64. single_scale: what a world unit becomes where the sources have one place (a single
    view, or several without baseline), which then also is the origin. Source: specs/lvsm 3 ('avgc').
    """
    if len(source) == 1:
        return Frame(source.c2w[0], source.c2w.new_zeros(3), source.c2w.new_tensor(single_scale))
    frame = pose(mean_rotation(source.c2w), source.center.mean(0))
    local = (torch.linalg.inv(frame) @ source.c2w)[:, :3, 3]
    low, high = local.min(0).values, local.max(0).values
    side = (high - low).max()
    if side <= _FLAT * source.center.abs().max().clamp(min=_FLAT):
        return Frame(frame, local.new_zeros(3), local.new_tensor(single_scale))
    return Frame(frame, (low + high) / 2, 2 / side)


def first_frame(source: Cameras) -> Frame:
    """The frame of the first source camera, unscaled (specs/lvsm 3)."""
    return Frame(source.c2w[0], source.c2w.new_zeros(3), source.c2w.new_ones(()))


def official_frame(views: Cameras, margin: float = 1.35) -> Frame:
    """The frame that the official code makes of all its views [V], sources and targets.

    Axes: mean viewing direction, mean down made orthogonal to it. Origin: mean centre. Scale: the largest
    coordinate becomes 1 / margin. Source: specs/lvsm 3. Views of one place are left unscaled.
    """
    c2w = views.c2w
    forward = normalize(c2w[:, :3, 2].mean(0), dim=0)
    right = normalize(torch.linalg.cross(c2w[:, :3, 1].mean(0), forward), dim=0)
    down = normalize(torch.linalg.cross(forward, right), dim=0)
    frame = pose(torch.stack([right, down, forward], dim=1), views.center.mean(0))
    local = (torch.linalg.inv(frame) @ c2w)[:, :3, 3]
    extent = local.abs().max()
    flat = extent <= _FLAT * views.center.abs().max().clamp(min=_FLAT)
    scale = torch.ones_like(extent) if flat else 1 / (margin * extent)
    return Frame(frame, local.new_zeros(3), scale)
