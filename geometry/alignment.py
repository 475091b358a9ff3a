"""Similarity transforms between world frames: the one that brings two sets of camera poses together."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from geometry.cameras import Cameras


@dataclass(frozen=True, eq=False)
class Similarity:
    """x -> scale * rotation @ x + translation. rotation: [3, 3], translation: [3], float64."""

    scale: float
    rotation: Tensor
    translation: Tensor

    def points(self, points: Tensor) -> Tensor:
        """Transform points [..., 3]."""
        return self.scale * points @ self.rotation.T + self.translation

    def cameras(self, cameras: Cameras) -> Cameras:
        """The cameras [...] in the new frame: they see the transformed world in the same pixels."""
        c2w = cameras.c2w.clone()
        c2w[..., :3, :3] = self.rotation @ c2w[..., :3, :3]
        c2w[..., :3, 3] = self.points(cameras.center)
        return replace(cameras, c2w=c2w)


def align_points(source: Tensor, target: Tensor) -> Similarity:
    """The similarity that brings points [N, 3] closest to others [N, 3], by least squares (Umeyama 1991).

    Raises ValueError for fewer than 3 points, or points that all lie in one place.
    """
    source, target = source.double(), target.double()
    middle, goal = source.mean(0), target.mean(0)
    spread = ((source - middle) ** 2).sum(1).mean()
    if len(source) < 3 or spread == 0:
        raise ValueError("an alignment needs at least 3 points that differ")
    covariance = (target - goal).T @ (source - middle) / len(source)
    U, singular, Vh = torch.linalg.svd(covariance)
    sign = torch.ones(3, dtype=torch.float64)
    sign[2] = torch.sign(torch.linalg.det(U) * torch.linalg.det(Vh))
    rotation = U @ torch.diag(sign) @ Vh
    scale = float((singular * sign).sum() / spread)
    return Similarity(scale, rotation, goal - scale * rotation @ middle)


@dataclass(frozen=True, eq=False)
class PoseErrors:
    """How far aligned cameras are from others: centers [N] in the others' units, rotations [N] in degrees.

    similarity: the transform that was applied before comparing.
    """

    similarity: Similarity
    centers: Tensor
    rotations: Tensor


def pose_errors(cameras: Cameras, reference: Cameras) -> PoseErrors:
    """Compare the poses of cameras [N] with those of others [N], after the best similarity of their centres.

    Raises ValueError as `align_points`.
    """
    similarity = align_points(cameras.center, reference.center)
    moved = similarity.cameras(cameras)
    turn = moved.c2w[:, :3, :3].transpose(1, 2) @ reference.c2w[:, :3, :3]
    # |R - I| = 2 sqrt(2) sin(angle / 2), exact for small angles where the arc cosine of the trace is not
    chord = (turn - torch.eye(3, dtype=turn.dtype)).flatten(1).norm(dim=1) / 8**0.5
    return PoseErrors(
        similarity,
        (moved.center - reference.center).norm(dim=1),
        torch.rad2deg(2 * torch.asin(chord.clamp(max=1))),
    )
