"""Blend of the nearest photos through a mesh: every surface point takes the colours of the photos that see
it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from common.errors import UserError
from dataloader.scene import Scene
from engine.method import Method
from geometry.cameras import Cameras
from geometry.meshes import Mesh
from geometry.rasterize import Rasterizer
from geometry.selection import rank_views
from geometry.views import Rendering, Views
from geometry.warp import sample_views
from methods.baselines.photos import require_mesh


@dataclass
class PhotoBlendConfig:
    """Settings of `PhotoBlend`."""

    photos: int = 3  # photos blended per pixel: the nearest that see its surface point
    tolerance: float = 0.01  # relative depth difference up to which a photo sees a point

    def __post_init__(self) -> None:
        if self.photos < 1:
            raise UserError(f"model.photos is {self.photos}: at least one photo is blended")


@dataclass
class BlendState:
    """Source photos and the mesh's depth seen from each, [S, 1, H, W]."""

    source: Views
    depth: Tensor


class PhotoBlend(Method):
    """Blend photos as unstructured lumigraphs do (Buehler 2001): weights fall with the angle of the rays."""

    Config = PhotoBlendConfig
    one_scene = True

    def __init__(self, mesh: Mesh, photos: int = 3, tolerance: float = 0.01) -> None:
        super().__init__()
        self.rasterizer = Rasterizer(mesh)
        self.photos = photos
        self.tolerance = tolerance

    @classmethod
    def create(cls, config: PhotoBlendConfig, scene: Scene | None = None) -> PhotoBlend:
        return cls(require_mesh("photo_blend", scene), config.photos, config.tolerance)

    def encode(self, source: Views, reuse: Any = None) -> BlendState:
        self.rasterizer = self.rasterizer.to(source.images.device)
        return BlendState(source, self.rasterizer.depth(source.cameras))

    def render(self, state: BlendState, cameras: Cameras) -> Rendering:
        ranks = rank_views(state.source.cameras, cameras)
        frames = [self._render_one(state, cameras[i : i + 1], ranks[i].tolist()) for i in range(len(cameras))]
        image, depth, opacity = (torch.stack(maps) for maps in zip(*frames, strict=True))
        return Rendering(image, depth, opacity)

    def _render_one(
        self, state: BlendState, camera: Cameras, order: list[int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Image [3, H, W], depth and opacity [1, H, W] of one target; `order`: sources, nearest first."""
        depth = self.rasterizer.depth(camera)[0]  # [1, H, W]
        hit = depth[0] > 0
        points = camera.unproject(depth.to(camera.c2w.dtype))[0][hit]  # [P, 3]
        color, weight = points.new_zeros(len(points), 3), points.new_zeros(len(points))
        wanted = torch.full((len(points),), self.photos, device=points.device)
        for index in order:
            open_points = (wanted > 0).nonzero()[:, 0]
            if len(open_points) == 0:
                break
            sampled, seen = self._sample(state, index, points[open_points])
            rows = open_points[seen]
            share = self._weights(points[rows], camera.center[0], state.source.cameras.center[index])
            color[rows] += sampled[seen] * share[:, None]
            weight[rows] += share
            wanted[rows] -= 1
        opacity = torch.zeros_like(depth)
        opacity[0, hit] = (weight > 0).to(depth.dtype)
        image = depth.new_zeros(3, *depth.shape[1:])
        image[:, hit] = (color / weight.clamp(min=1e-12)[:, None]).T.to(depth.dtype)
        return image, depth, opacity

    def _sample(self, state: BlendState, index: int, points: Tensor) -> tuple[Tensor, Tensor]:
        """Colours [P, 3] that source `index` shows of the points [P, 3], and whether it sees them [P]."""
        one = slice(index, index + 1)
        colors, visible = sample_views(points, state.source[one], state.depth[one], self.tolerance)
        return colors[0].to(points.dtype), visible[0]

    @staticmethod
    def _weights(points: Tensor, target: Tensor, source: Tensor) -> Tensor:
        """Blending weights [P]: the inverse of the squared angle between the two rays, softened at one
        degree.
        """
        to_target = torch.nn.functional.normalize(target - points, dim=-1)
        to_source = torch.nn.functional.normalize(source.to(points) - points, dim=-1)
        angle = torch.acos((to_target * to_source).sum(-1).clamp(-1, 1))
        return 1 / (angle**2 + torch.deg2rad(torch.tensor(1.0)) ** 2)
