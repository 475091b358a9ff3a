"""Which surface points of one view other cameras see, told by depth maps."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from geometry.cameras import Cameras
from geometry.warp import locate


@dataclass
class Landing:
    """Where the surface points of a view's pixels [H, W] lie in the images of S other cameras.

    pixels: [S, H, W, 2]. z: [S, H, W] z-depth there. inside: [S, H, W] bool, in front of the camera and
    within its image; False where the view's own depth is unknown. size: (height, width) of their images.
    """

    pixels: Tensor
    z: Tensor
    inside: Tensor
    size: tuple[int, int]

    def sample(self, maps: Tensor) -> Tensor:
        """What maps [S, h, w] of the cameras hold at the nearest pixel, [S, H, W]; the edge's if outside."""
        return self._pick(maps, *self.pixels.nan_to_num(0).clamp(-1, max(self.size)).floor().unbind(-1))

    def _pick(self, maps: Tensor, x: Tensor, y: Tensor) -> Tensor:
        height, width = self.size
        index = y.long().clamp(0, height - 1) * width + x.long().clamp(0, width - 1)
        return maps.flatten(1).gather(1, index.flatten(1)).reshape(index.shape)

    def surface(self, depth: Tensor) -> Tensor:
        """The depth [S, H, W] of the plane through the four pixels around each position; depth: [S, h, w].

        Inverse depth is linear in the image of a plane, so that it is what is interpolated. 0 where one of
        the four is unknown (0).
        """
        corner = (self.pixels.nan_to_num(0) - 0.5).clamp(-1, max(self.size))
        x, y = corner.floor().unbind(-1)
        right, down = (corner - corner.floor()).unbind(-1)
        inverse = torch.zeros_like(self.z)
        for dx, column in ((0, 1 - right), (1, right)):
            for dy, row in ((0, 1 - down), (1, down)):
                inverse += column * row / self._pick(depth, x + dx, y + dy).to(inverse)
        return (1 / inverse).nan_to_num(0)


def land(depth: Tensor, camera: Cameras, others: Cameras) -> Landing:
    """Carry a view's surface points into other cameras.

    depth: [H, W] z-depth, 0 where unknown. camera: single. others: [S], of any one size.
    """
    camera, others = camera.to(torch.float64), others.to(torch.float64)
    points = camera.unproject(depth.double()).reshape(-1, 3)
    pixels, z, inside = locate(points, others)
    shape = (len(others), *depth.shape)
    known = (depth > 0).expand(shape)
    size = (others.height, others.width)
    return Landing(pixels.reshape(*shape, 2), z.reshape(shape), inside.reshape(shape) & known, size)


def visible(landing: Landing, depth: Tensor, tolerance: float = 0.02) -> Tensor:
    """Which of the points the other cameras see: [S, H, W] bool.

    depth: [S, h, w] what each camera sees, 0 where unknown (that hides nothing). tolerance: a point is hidden
    when it lies farther, by more than this part of the depth, than the nearest pixel's depth and than the
    plane through the four pixels around it. The first alone would hide points of slanted surfaces, the
    second alone those beside an edge.
    """
    nearest = landing.sample(depth).to(landing.z)
    nearest = torch.where(nearest > 0, nearest, torch.inf)
    return landing.inside & (landing.z <= torch.maximum(nearest, landing.surface(depth)) * (1 + tolerance))
