"""Views of nothing in particular, where only their number and size matter: for measuring."""

from __future__ import annotations

import math

import torch

from engine.sampling import generator
from geometry.cameras import Cameras
from geometry.poses import look_at
from geometry.views import Views

_RADIUS = 4.0  # of the arc the cameras stand on, world units: also the depth of every pixel
_ARC = 60.0  # degrees


def random_views(count: int, height: int, width: int, seed: int = 0) -> Views:
    """`count` random images with depth, their cameras on an arc around the origin, which they look at."""
    focal = 1.1 * max(height, width)
    K = torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]], dtype=torch.float64)
    angles = torch.linspace(-0.5, 0.5, count, dtype=torch.float64) * math.radians(_ARC)
    centers = _RADIUS * torch.stack([angles.sin(), torch.zeros_like(angles), -angles.cos()], dim=-1)
    down = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)
    c2w = torch.stack([look_at(center, torch.zeros_like(center), down) for center in centers])
    images = torch.rand(count, 3, height, width, generator=generator(seed, "random views"))
    depth = torch.full((count, 1, height, width), _RADIUS)
    return Views(
        images,
        Cameras(K.expand(count, 3, 3).clone(), c2w, height, width),
        depth=depth,
        valid=torch.ones_like(depth),
        names=[f"random_{i}" for i in range(count)],
    )
