"""Baselines that need photos and cameras only: the nearest photo, the mean photo, a single plane."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from common.errors import UserError
from dataloader.pairs import PairData
from dataloader.scene import Scene
from dataloader.scene_depth import seen_depths
from dataloader.scene_sets import SceneSets, has_clips
from engine.method import Method, SourceState
from geometry.cameras import Cameras
from geometry.selection import rank_views
from geometry.views import Rendering, Views


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


@dataclass
class PlaneState(SourceState):
    """The source views, and how far the plane of each is: depth [V]."""

    depth: Tensor


class SinglePlane(Method):
    """The nearest photo on a plane that faces its camera at one depth, seen from the target camera.

    On clips the depth is not the scene's but each source view's: the median of its depth map, or, without
    one, the middle of its bounds in inverse depth.
    """

    Config = SinglePlaneConfig
    needs_scene = True

    def __init__(self, depth: float) -> None:
        super().__init__()
        self.depth = depth

    @classmethod
    def serves(cls, data: Any) -> bool:
        return has_clips(data) or super().serves(data)

    @classmethod
    def create(
        cls, config: SinglePlaneConfig, scene: Scene | PairData | SceneSets | None = None
    ) -> SinglePlane:
        depth = config.depth
        if depth <= 0 and not has_clips(scene):
            if not isinstance(scene, Scene):
                raise UserError("single_plane needs a scene, or model.depth")
            first = (scene.splits.get("train") or scene.split("all"))[0]
            depth = float(seen_depths(scene, first).median())
        method = cls(depth)
        method.config = replace(config, depth=depth)
        return method

    def encode(self, source: Views, reuse: Any = None) -> PlaneState:
        """Raises UserError when the depth is neither known nor bounded."""
        if self.depth > 0:
            return PlaneState(source, source.cameras.K.new_full((len(source),), self.depth))
        return PlaneState(source, torch.stack([_plane_depth(source[i]) for i in range(len(source))]))

    def render(self, state: PlaneState, cameras: Cameras) -> Rendering:
        nearest = rank_views(state.source.cameras, cameras)[:, 0]
        source, images = state.source.cameras[nearest], state.source.images[nearest]
        # [N, H, W, 2], [N, H, W]
        pixels, depth = self._plane_pixels(source, state.depth[nearest], cameras)
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

    def _plane_pixels(self, source: Cameras, away: Tensor, target: Cameras) -> tuple[Tensor, Tensor]:
        """Where each target ray meets the plane [N] `away` from its source: source pixels [N, H, W, 2] and
        target depth [N, H, W].
        """
        normal = source.c2w[:, :3, 2]  # the plane: normal . (x - source centre) = depth
        origins, directions = target.rays(unit=False)
        offset = torch.einsum("nhwc,nc->nhw", source.center[:, None, None] - origins, normal)
        offset = offset + away.to(offset)[:, None, None]
        slope = torch.einsum("nhwc,nc->nhw", directions, normal)
        depth = offset / torch.where(slope.abs() < 1e-12, torch.full_like(slope, 1e-12), slope)
        points = (origins + directions * depth[..., None]).flatten(1, 2)
        pixels, _ = source.project(points)
        return pixels.reshape(*depth.shape, 2), depth


def _plane_depth(view: Views) -> Tensor:
    """How far the plane of a single view is: a float64 scalar."""
    if view.depth is not None and bool((view.depth > 0).any()):
        return view.depth[view.depth > 0].double().median()
    if view.bounds is None:
        raise UserError("single_plane needs depth maps or near and far bounds of its sources, or model.depth")
    return 2 / (1 / view.bounds.double()).sum()


def require_mesh(method: str, scene: Scene | None) -> Any:
    """The scene's mesh. Raises UserError naming the method when there is no scene or no mesh."""
    if scene is None:
        raise UserError(f"{method} needs a scene with a mesh: set data.root")
    return scene.mesh()
