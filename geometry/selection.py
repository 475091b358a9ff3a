"""Which source views suit a target camera."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from geometry.cameras import Cameras


def rank_views(sources: Cameras, targets: Cameras) -> Tensor:
    """Order the source cameras [S] by nearness to every target camera [T].

    Nearness adds the distance between centres, in units of the sources' mean distance from their middle, and
    the angle between optical axes in radians. Returns indices [T, S], nearest first.
    """
    dtype = targets.c2w.dtype
    centers = sources.center.to(dtype)
    spread = (centers - centers.mean(0)).norm(dim=-1).mean().clamp(min=1e-12)
    distance = torch.cdist(targets.center, centers) / spread
    cosine = targets.c2w[:, :3, 2] @ sources.c2w[:, :3, 2].to(dtype).T
    return (distance + torch.acos(cosine.clamp(-1, 1))).argsort(dim=1)


def farthest_first(centers: Tensor, start: Sequence[int]) -> list[int]:
    """An order of points [N, 3]: `start`, then always the point farthest from all before it.

    Of points equally far the first comes first.
    """
    order = list(dict.fromkeys(start))
    distance = torch.cdist(centers, centers[order]).min(1).values
    while len(order) < len(centers):
        distance[order] = -1
        order.append(int(distance.argmax()))
        distance = torch.minimum(distance, (centers - centers[order[-1]]).norm(dim=-1))
    return order
