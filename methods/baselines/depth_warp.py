"""Depth-mesh warp: the nearest photo lifted to a mesh by its depth, torn at depth edges, seen from the
target.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from common.cli import positive
from common.errors import UserError
from dataloader.images import read_depth, read_image
from dataloader.pairs import PairData
from dataloader.scene import Batch, Record, Scene
from dataloader.scene_sets import SceneSets
from engine.config import Experiment
from engine.device import clock
from engine.method import Evaluation, Method, Script
from engine.metrics import ImageMetrics
from engine.pairs import score_pairs
from geometry.cameras import Cameras, pinhole
from geometry.lifting import lift_depth
from geometry.meshes import Mesh
from geometry.rasterize import Rasterizer
from geometry.selection import rank_views
from geometry.views import Rendering, Views
from geometry.warp import fill_nearest, render_lifted


@dataclass
class DepthWarpConfig:
    """Settings of `DepthWarp`."""

    max_angle: float = 85.0  # degrees; faces seen at a more grazing angle are torn out (MegaScenes: 70)
    fill: bool = False  # holes take the colour of their nearest pixel that is none

    def __post_init__(self) -> None:
        if not 0 < self.max_angle <= 90:
            raise UserError(f"model.max_angle is {self.max_angle}: it must lie in (0, 90] degrees")


@dataclass
class LiftedPhotos:
    """Source views with depth, and those lifted so far, ready to render, by index."""

    source: Views
    lifted: dict[int, Rasterizer] = field(default_factory=dict)


class DepthWarp(Method):
    """Warp the nearest source photo by its depth: its own, or that of the scene's mesh from its camera."""

    Config = DepthWarpConfig
    needs_scene = True

    def __init__(self, max_angle: float = 85.0, mesh: Mesh | None = None, fill: bool = False) -> None:
        super().__init__()
        self.max_angle = max_angle
        self.mesh = mesh
        self.fill = fill

    @classmethod
    def create(cls, config: DepthWarpConfig, scene: Scene | None = None) -> DepthWarp:
        mesh = scene.mesh() if isinstance(scene, Scene) and scene.has_mesh else None
        method = cls(config.max_angle, mesh, config.fill)
        method.config = config
        return method

    def encode(self, source: Views, reuse: LiftedPhotos | None = None) -> LiftedPhotos:
        """Find the depth of every source view; the photos are lifted when a target first needs them."""
        if source.depth is None:
            if self.mesh is None:
                raise UserError(
                    "depth_warp needs depth: give --depth FILE, or a scene with depth maps or a mesh"
                )
            source.depth = Rasterizer(self.mesh.to(source.images.device)).depth(source.cameras)
        return LiftedPhotos(source)

    def _lifted(self, state: LiftedPhotos, index: int) -> Rasterizer:
        """The source photo `index` as a mesh ready to render, lifted once."""
        if index not in state.lifted:
            view = state.source[index]
            assert view.depth is not None
            colors = view.images.permute(1, 2, 0)
            state.lifted[index] = Rasterizer(lift_depth(view.depth[0], view.cameras, colors, self.max_angle))
        return state.lifted[index]

    def render(self, state: LiftedPhotos, cameras: Cameras) -> Rendering:
        nearest = rank_views(state.source.cameras, cameras)[:, 0].tolist()
        frames = [render_lifted(self._lifted(state, source), cameras[i]) for i, source in enumerate(nearest)]
        depths = [frame.depth for frame in frames if frame.depth is not None]
        opacities = [frame.opacity for frame in frames if frame.opacity is not None]
        images = [self._filled(frame.image, frame.opacity) for frame in frames]
        return Rendering(torch.stack(images), torch.stack(depths), torch.stack(opacities))

    def _filled(self, image: Tensor, opacity: Tensor | None) -> Tensor:
        if not self.fill or opacity is None:
            return image
        return fill_nearest(image, opacity[0] >= 0.5)

    def evaluate_pairs(self, batch: Batch, metrics: ImageMetrics) -> Evaluation:
        """Score the pairs' own warps."""
        assert batch.pairs is not None
        device, started = batch.target.images.device, clock(batch.target.images.device)
        images = [self._filled(pair.full_warp(), pair.coverage).to(device) for pair in batch.pairs]
        rendering = Rendering(torch.stack(images))
        seconds = clock(device) - started
        return Evaluation(score_pairs(rendering.image, batch, metrics), seconds, rendering)

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser, script: Script) -> None:
        if script != "video":
            return
        parser.add_argument("--depth", type=Path, metavar="FILE", help="z-depth of the photo given with -i")
        parser.add_argument(
            "--focal",
            type=positive(float),
            metavar="PX",
            help="its focal length (default: 53 degrees)",
        )

    @classmethod
    def open(cls, args: argparse.Namespace, experiment: Experiment) -> Scene | PairData | SceneSets:
        if getattr(args, "inputimg", None) is None:
            return super().open(args, experiment)
        if args.depth is None:
            raise UserError(f"depth_warp needs the depth of {args.inputimg}: give --depth FILE")
        return photo_scene(args.inputimg, args.depth, args.focal)


def photo_scene(photo: Path, depth_file: Path, focal: float | None = None) -> Scene:
    """A scene of one photo with its z-depth, at the world's origin.

    focal: pixels; None means a horizontal field of view of 53 degrees.
    """
    image, depth = read_image(photo), read_depth(depth_file)
    if depth.shape != image.shape[:2]:
        raise UserError(
            f"{depth_file} is {depth.shape[1]}x{depth.shape[0]}, "
            f"{photo} is {image.shape[1]}x{image.shape[0]}: depth and photo must have one size"
        )
    if not (depth > 0).any():
        raise UserError(f"{depth_file} holds no positive depth")
    height, width = depth.shape
    camera = pinhole(focal or width / (2 * math.tan(math.radians(53) / 2)), height, width)
    return Scene(
        photo.stem, [Record(photo.stem, camera, image, depth=depth)], splits={"train": [0], "test": [0]}
    )
