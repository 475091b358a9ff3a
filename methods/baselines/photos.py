"""Baselines that need photos and cameras only: the nearest photo, the mean photo, a single plane."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from common.errors import UserError
from dataloader.scene import Scene
from dataloader.scene_depth import seen_depths
from engine.method import Method, SourceState
from geometry.cameras import Cameras
from geometry.selection import rank_views
from geometry.views import Rendering


def _resized(images: Tensor, cameras: Cameras) -> Tensor:
    """Images [N, 3, h, w] at the size of the target cameras."""
    size = (cameras.height, cameras.width)
    if images.shape[-2:] == size:
        return images
    return torch.nn.functional.interpolate(images, size=size, mode="bilinear", antialias=True)


class NearestView(Method):
    """The photo of the nearest source camera, unchanged."""

    def render(self, state: SourceState, cameras: Cameras) -> Rendering:
        nearest = rank_views(state.source.cameras, cameras)[:, 0]
        return Rendering(_resized(state.source.images[nearest], cameras))


class MeanView(Method):
    """The mean of all source photos, for every target."""

    def render(self, state: SourceState, cameras: Cameras) -> Rendering:
        mean = state.source.images.mean(0, keepdim=True)
        return Rendering(_resized(mean, cameras).expand(len(cameras), -1, -1, -1))


@dataclass
class SinglePlaneConfig:
    """Settings of `SinglePlane`."""

    depth: float = 0.0  # of the plane, world units; 0 = median depth that the scene's first photo sees


class SinglePlane(Method):
    """The nearest photo on a plane that faces its camera at one depth, seen from the target camera."""

    Config = SinglePlaneConfig
    one_scene = True

    def __init__(self, depth: float) -> None:
        super().__init__()
        self.depth = depth

    @classmethod
    def create(cls, config: SinglePlaneConfig, scene: Scene | None = None) -> SinglePlane:
        if config.depth > 0:
            return cls(config.depth)
        if scene is None:
            raise UserError("single_plane needs a scene, or model.depth")
        first = (scene.splits.get("train") or scene.split("all"))[0]
        return cls(float(seen_depths(scene, first).median()))

    def render(self, state: SourceState, cameras: Cameras) -> Rendering:
        nearest = rank_views(state.source.cameras, cameras)[:, 0]
        source, images = state.source.cameras[nearest], state.source.images[nearest]
        pixels, depth = self._plane_pixels(source, cameras)  # [N, H, W, 2], [N, H, W]
        size = torch.tensor([source.width, source.height], dtype=pixels.dtype, device=pixels.device)
        grid = pixels / size * 2 - 1
        seen = (depth > 0) & (grid.abs() <= 1).all(-1)
        grid = torch.where(seen[..., None], grid, torch.full_like(grid, 2)).to(images.dtype)
        # border colours up to the photo's edge: opacity says what is outside
        sampled = torch.nn.functional.grid_sample(
            images, grid, mode="bilinear", padding_mode="border", align_corners=False
        )
        opacity = seen[:, None].to(images.dtype)
        return Rendering(sampled * opacity, opacity=opacity)

    def _plane_pixels(self, source: Cameras, target: Cameras) -> tuple[Tensor, Tensor]:
        """Where each target ray meets the plane: source pixels [N, H, W, 2] and target depth [N, H, W]."""
        normal = source.c2w[:, :3, 2]  # the plane: normal . (x - source centre) = depth
        origins, directions = target.rays(unit=False)
        offset = torch.einsum("nhwc,nc->nhw", source.center[:, None, None] - origins, normal) + self.depth
        slope = torch.einsum("nhwc,nc->nhw", directions, normal)
        depth = offset / torch.where(slope.abs() < 1e-12, torch.full_like(slope, 1e-12), slope)
        points = (origins + directions * depth[..., None]).flatten(1, 2)
        pixels, _ = source.project(points)
        return pixels.reshape(*depth.shape, 2), depth


def require_mesh(method: str, scene: Scene | None) -> Any:
    """The scene's mesh. Raises UserError naming the method when there is no scene or no mesh."""
    if scene is None:
        raise UserError(f"{method} needs a scene with a mesh: set data.root")
    return scene.mesh()
