"""Which views tell the depth of a view best: those that see the same points from a moderate angle."""

from __future__ import annotations

import torch
from torch import Tensor

_ANGLE = 5.0  # degrees: the best triangulation angle
_BELOW, _ABOVE = 1.0, 10.0  # degrees: how fast the value falls off on either side


def pair_scores(centers: Tensor, points: Tensor, visible: Tensor) -> Tensor:
    """How well each view supports the stereo matching of each other one (Yao et al. 2018, MVSNet, 4.1).

    centers: [N, 3] camera centres. points: [P, 3]. visible: [N, P] bool, which view observes which point.
    Returns [N, N], symmetric with a zero diagonal: the sum over the points seen by both of a piecewise
    Gaussian of the angle between their rays.
    """
    scores = torch.zeros(len(centers), len(centers), dtype=torch.float64)
    for i in range(len(centers)):
        for j in range(i):
            shared = points[visible[i] & visible[j]]
            scores[i, j] = scores[j, i] = _angle_value(shared, centers[i], centers[j]).sum()
    return scores


def _angle_value(points: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """[P] in [0, 1]: how good the angle at points [P, 3] between two camera centres is."""
    one, two = first - points, second - points
    across = torch.linalg.cross(one, two).norm(dim=-1)
    angle = torch.rad2deg(torch.atan2(across, (one * two).sum(-1)))
    width = torch.where(angle < _ANGLE, _BELOW, _ABOVE)
    return torch.exp(-((angle - _ANGLE) ** 2) / (2 * width**2))


def best_sources(scores: Tensor, view: int, count: int) -> list[int]:
    """Up to `count` views with a positive score for a view, best first."""
    order = scores[view].argsort(descending=True, stable=True)[:count].tolist()
    return [i for i in order if scores[view, i] > 0]
