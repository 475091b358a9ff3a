"""Rays of cameras as images: what tells a transformer where a pixel looks from, and where to."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from geometry.cameras import Cameras

Part = Literal["direction", "moment", "nearest"]
PLUCKER: tuple[Part, ...] = ("direction", "moment")


def ray_maps(cameras: Cameras, parts: tuple[Part, ...] = PLUCKER) -> Tensor:
    """Ray coordinates at every pixel centre: cameras [...] -> [..., 3 * len(parts), H, W].

    direction: unit vector d in the world. moment: o x d, o the camera centre (Pluecker coordinates with d).
    nearest: the point of the ray's line that is nearest to the origin, o - (o . d) d. Source: LVSM (Jin et
    al. 2024, section 3.1); specs/lvsm 3.
    """
    origin, direction = cameras.rays()
    made = {
        "direction": lambda: direction,
        "moment": lambda: torch.linalg.cross(origin, direction),
        "nearest": lambda: origin - (origin * direction).sum(-1, keepdim=True) * direction,
    }
    return torch.cat([made[part]() for part in parts], dim=-1).movedim(-1, -3)
