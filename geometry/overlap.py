"""How much of one camera's view another camera could see."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from geometry.cameras import Cameras


def seen_stretch(
    origins: Tensor, directions: Tensor, camera: Cameras, near: float = 0.0, far: float = math.inf
) -> tuple[Tensor, Tensor]:
    """The stretch of rays that projects into a camera's image.

    origins, directions: [..., 3] in the world; the ray is origin + t * direction. camera: a single one. near,
    far: bounds of t. Returns the first and the last t, [...]; where the first exceeds the last, the camera
    sees nothing of the ray. Each edge of the image is a plane through the camera's centre, hence a linear
    condition on t, and what satisfies all of them is one stretch.
    """
    w2c = camera.w2c.to(directions.dtype)
    projection = camera.K.to(directions.dtype) @ w2c[:3, :3]
    start = origins @ projection.T + camera.K.to(directions.dtype) @ w2c[:3, 3]
    slope = directions @ projection.T
    edges = torch.tensor(  # rows on (x z, y z, z): each is >= 0 inside the image, in front of the camera
        [[1, 0, 0], [-1, 0, camera.width], [0, 1, 0], [0, -1, camera.height]],
        dtype=directions.dtype,
        device=directions.device,
    )
    constant, growth = start @ edges.T, slope @ edges.T  # [..., 4]
    crossing = -constant / torch.where(growth == 0, torch.ones_like(growth), growth)
    infinite = torch.full_like(crossing, math.inf)
    never = (growth == 0) & (constant < 0)
    first = torch.where(growth > 0, crossing, -infinite).amax(-1).clamp(min=near)
    last = torch.where(growth < 0, crossing, infinite).amin(-1).clamp(max=far)
    return torch.where(never.any(-1), torch.full_like(first, math.inf), first), last


def seen_fraction(source: Cameras, target: Cameras, near: float = 0.0, far: float = math.inf) -> float:
    """Fraction of one camera's pixels whose rays, anywhere from near to far, project into another's image.

    source, target: single cameras. near, far: distances in world units. The
    point where both cameras stand in one place does not count.
    """
    origins, directions = source.rays()
    first, last = seen_stretch(origins, directions, target, near, far)
    return float((first < last).double().mean())


def overlap(one: Cameras, other: Cameras) -> float:
    """How far two single cameras see the same, in [0, 1]: the smaller of the two `seen_fraction`s."""
    return min(seen_fraction(one, other), seen_fraction(other, one))
