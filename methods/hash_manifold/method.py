"""`HashManifold`: train a field on a mesh, render it from anywhere."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common.errors import UserError
from dataloader.ray_cache import RayCache
from dataloader.scene import Scene
from dataloader.surface_rays import CastRays, RaySource, mixed_cameras, record_camera
from engine.config import DataConfig, TrainingConfig
from engine.method import Method, Optimization
from engine.optimizers import CombinedOptimizer
from engine.schedule import learning_rate_schedule
from geometry.cameras import Cameras
from geometry.meshes import Mesh
from geometry.rasterize import Rasterizer
from geometry.selection import rank_views
from geometry.views import Rendering, Views
from methods.hash_manifold.colour import photo_values, quantize_original
from methods.hash_manifold.config import HashManifoldConfig
from methods.hash_manifold.data import PixelSample, PixelSamples
from methods.hash_manifold.grid.encoding import HashGrid
from methods.hash_manifold.grid.layout import GridConfig
from methods.hash_manifold.lazy_adam import LazyAdam
from methods.hash_manifold.network import SurfaceField
from methods.hash_manifold.originals import find_checkpoint, original_cameras, read_checkpoint
from methods.hash_manifold.surface import Seen, Surface

_TILE_SAMPLES = 1 << 21  # surface samples looked up at a time when rendering


class HashManifold(Method):
    """A field of colours on a given mesh (specs/hash_manifold).

    mesh: the surface. photos: rows of the exposure table, the number of training photos.
    """

    Config = HashManifoldConfig
    one_scene = True
    trains = True
    reads_sources = False

    def __init__(self, config: HashManifoldConfig, mesh: Mesh, photos: int) -> None:
        super().__init__()
        self.config = config
        self.rasterizer = Rasterizer(mesh)
        self.surface = Surface(mesh, config.box)
        self.photos = photos
        self.field = SurfaceField(
            HashGrid(_grid(config), implementation=config.encoding, sparse_gradient=config.sparse_optimizer),
            photos,
            config.width,
            config.lighting,
            config.lights,
            config.exposure,
            config.exposure_length,
            widen=config.original_colours,
        )

    @classmethod
    def create(cls, config: HashManifoldConfig, scene: Scene | None = None) -> HashManifold:
        if scene is None:
            raise UserError("hash_manifold needs a scene with a mesh: set data.root")
        return cls(config, scene.mesh(), len(scene.split("train")))

    # Training

    def samples(self, scene: Scene, data: DataConfig) -> PixelSamples:
        chosen = scene.split(data.source)
        if len(chosen) != self.photos:
            raise UserError(
                f"data.source={data.source} has {len(chosen)} photos, the exposure table a row for each of "
                f"the {self.photos} of split 'train': train from that one"
            )
        if self.config.original_camera:
            seen = [replace(record, camera=original_cameras(record.camera)) for record in scene.records]
            scene = replace(scene, records=seen)
        cameras = mixed_cameras([record_camera(scene.records[i], data.max_size) for i in chosen])
        rays_of = self._rays(scene, data, chosen)
        return PixelSamples(rays_of, cameras, self.surface, self.config.rays, self.config.views)

    def _rays(self, scene: Scene, data: DataConfig, chosen: list[int]) -> RaySource:
        """The pixels of the training photos: from `data.ray_cache`, or cast as they are drawn."""
        s, size = self.config.supersample, data.max_size
        if not data.ray_cache:
            return CastRays(scene, chosen, self.rasterizer, s, size)
        if self.config.original_camera:
            raise UserError(
                "data.ray_cache holds rays of full intrinsics: leave it out with model.original_camera"
            )
        return RayCache.open(data.ray_cache, scene, chosen, s, size, root=data.root)

    def _seen_through(self, cameras: Cameras) -> Cameras:
        return original_cameras(cameras) if self.config.original_camera else cameras

    def forward(self, sample: PixelSample, step: int) -> dict[str, Tensor]:
        """Mean absolute (or squared) error of the pixels' colours, and their PSNR."""
        seen = self.surface.look(sample.face, sample.barycentric, sample.eye)
        colors = self._shade(seen, sample.photo)
        truth = photo_values(sample.color, 256 if self.config.original_colours else 255)
        squared = torch.nn.functional.mse_loss(colors, truth)
        loss = torch.nn.functional.l1_loss(colors, truth) if self.config.loss == "l1" else squared
        return {"loss": loss, "psnr": -10 * squared.detach().log10()}

    def _shade(self, seen: Seen, photo: Tensor | None) -> Tensor:
        """Display colours [N, 3] of what pixels see; photo: [N] exposure rows, None: the mean."""
        return self.field(seen.points, seen.direction, photo, None, seen.covered)

    def optimization(self, config: TrainingConfig) -> Optimization:
        if config.clip_norm and self.config.sparse_optimizer:
            raise UserError("training.clip_norm needs whole gradients: set model.sparse_optimizer=False")
        # data-parallel training sums whole gradients; LazyAdam then moves the rows that any process touched
        alone = not (torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1)
        self.field.grid.sparse_gradient = self.config.sparse_optimizer and alone
        table = self.field.grid.params
        others = [parameter for parameter in self.parameters() if parameter is not table]
        rate = self.config.table_learning_rate or config.learning_rate
        settings: dict[str, Any] = {"betas": (0.9, self.config.beta2), "eps": self.config.eps}
        of_table: torch.optim.Optimizer
        if self.config.sparse_optimizer:
            of_table = LazyAdam([table], lr=rate, **settings)
        else:
            of_table = torch.optim.Adam([table], lr=rate, fused=True, **settings)
        of_others = torch.optim.Adam(others, lr=config.learning_rate, **settings)
        return Optimization(CombinedOptimizer(of_table, of_others), learning_rate_schedule(config))

    # Rendering

    def encode(self, source: Views, reuse: Any = None) -> Cameras:
        """Where the photos were taken from, to tell the nearest; the photos themselves are not looked at."""
        return source.cameras

    def render(self, state: Cameras, cameras: Cameras) -> Rendering:
        self.rasterizer = self.rasterizer.to(cameras.K.device)
        photos = self._exposures(state, cameras)
        frames = [self._render_one(self._seen_through(cameras[i]), photos[i]) for i in range(len(cameras))]
        image, depth, opacity = (torch.stack(maps) for maps in zip(*frames, strict=True))
        return Rendering(image, depth, opacity)

    def _exposures(self, source: Cameras, cameras: Cameras) -> list[int | None]:
        """The row of the exposure table that each camera is rendered with; None: the mean photo."""
        chosen = self.config.render_exposure
        if chosen == "mean" or self.config.exposure == "none":
            return [None] * len(cameras)
        if chosen == "nearest":
            if len(source) != self.photos:
                raise UserError(
                    f"model.render_exposure=nearest needs the {self.photos} training photos as sources, "
                    f"there are {len(source)}: set data.source=train"
                )
            return list(rank_views(source, cameras)[:, 0].tolist())
        if int(chosen) >= self.photos:
            raise UserError(
                f"model.render_exposure is {chosen}: there are {self.photos} photos, numbered from 0"
            )
        return [int(chosen)] * len(cameras)

    def _render_one(self, camera: Cameras, photo: int | None) -> tuple[Tensor, Tensor, Tensor]:
        """Image [3, H, W], depth and opacity [1, H, W] of one camera, some rows at a time."""
        rows = max(1, _TILE_SAMPLES // (camera.width * self.config.supersample**2))
        tiles = [
            self._render_rows(camera.crop(top, 0, min(rows, camera.height - top), camera.width), photo)
            for top in range(0, camera.height, rows)
        ]
        image, depth, opacity = (torch.cat(maps, dim=-2) for maps in zip(*tiles, strict=True))
        return image, depth, opacity

    def _render_rows(self, camera: Cameras, photo: int | None) -> tuple[Tensor, Tensor, Tensor]:
        s = self.config.supersample
        fragments = self.rasterizer.rasterize(camera.resize(s * camera.height, s * camera.width))
        face, weights, depth = (
            _by_pixel(maps[0], s) for maps in (fragments.face, fragments.barycentric, fragments.depth)
        )
        opacity = (face >= 0).float().mean(-1)  # [H, W]
        hit = opacity > 0
        eye = self.surface.relative(camera.center)
        colors = self._colors(face[hit], weights[hit], eye, photo)
        image = torch.full(
            (*hit.shape, 3), 1.0 if self.config.background == "white" else 0.0, device=face.device
        )
        share = opacity[hit][:, None]
        image[hit] = torch.lerp(image[hit], colors.to(image.dtype), share)
        if self.config.original_colours:
            image = quantize_original(image).float() / 255
        mean_depth = depth.sum(-1) / (face >= 0).sum(-1).clamp(min=1)
        return image.movedim(-1, 0), mean_depth[None], opacity[None]

    def _colors(self, face: Tensor, weights: Tensor, eye: Tensor, photo: int | None) -> Tensor:
        """Display colours [P, 3] of pixels that see faces [P, S] with corner weights [P, S, 3]."""
        colors = torch.empty(len(face), 3, device=face.device)
        for start in range(0, len(face), self.config.render_rays):
            part = slice(start, start + self.config.render_rays)
            seen = self.surface.look(face[part], weights[part], eye.expand(len(face[part]), 3))
            rows = None if photo is None else torch.full((len(seen.points),), photo, device=face.device)
            colors[part] = self._shade(seen, rows)
        return colors.clamp(0, 1)

    # Original checkpoints

    def load_original(self, folder: Path) -> dict[str, Tensor] | None:
        path = find_checkpoint(folder)
        return None if path is None else read_checkpoint(path, self.config.features)


def _grid(config: HashManifoldConfig) -> GridConfig:
    return GridConfig(
        n_levels=config.levels,
        n_features=config.features,
        log2_hashmap_size=config.log2_table,
        base_resolution=config.base_resolution,
        per_level_scale=config.growth,
    )


def _by_pixel(maps: Tensor, s: int) -> Tensor:
    """Samples of s x s sub-pixels [s H, s W, ...] -> [H, W, s s, ...], row by row within the pixel."""
    height, width = maps.shape[0] // s, maps.shape[1] // s
    blocks = maps.reshape(height, s, width, s, *maps.shape[2:]).transpose(1, 2)
    return blocks.reshape(height, width, s * s, *maps.shape[2:])
