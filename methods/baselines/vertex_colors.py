"""Trained vertex colours: one colour per mesh vertex, fitted to the photos by Adam through the rasteriser."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from common.errors import UserError
from dataloader.scene import Scene
from engine.config import DataConfig, TrainingConfig
from engine.data import source_views
from engine.method import Method, Optimization
from engine.sampling import generator
from engine.schedule import learning_rate_schedule
from geometry.cameras import Cameras
from geometry.meshes import Mesh
from geometry.rasterize import Rasterizer, interpolate
from geometry.views import Rendering, Views
from methods.baselines.photos import require_mesh


@dataclass
class VertexColorsConfig:
    """Settings of `VertexColors`."""

    rays: int = 32768  # pixels per training sample, drawn over all training photos

    def __post_init__(self) -> None:
        if self.rays < 1:
            raise UserError(f"model.rays is {self.rays}: at least one pixel is drawn")


@dataclass
class SurfacePixels:
    """Pixels of photos and the surface they show.

    face: [N] int64, triangle; barycentric: [N, 3]; color: [N, 3] in [0, 1].
    """

    face: Tensor
    barycentric: Tensor
    color: Tensor

    def to(self, device: torch.device) -> SurfacePixels:
        """The same pixels on a device."""
        return replace(self, **{name: value.to(device) for name, value in vars(self).items()})


class SurfaceSamples:
    """Keyed draws with replacement of covered pixels, from all training photos at once."""

    size = None

    def __init__(self, views: Views, rasterizer: Rasterizer, rays: int) -> None:
        self.rays = rays
        fragments = rasterizer.rasterize(views.cameras)
        covered = fragments.face[:, 0] >= 0  # [N, H, W]
        if not covered.any():
            raise UserError(
                "the mesh covers no pixel of any training photo: do mesh and cameras share one frame?"
            )
        self.pixels = SurfacePixels(
            face=fragments.face[:, 0][covered],
            barycentric=fragments.barycentric[:, 0][covered].float(),
            color=views.images.permute(0, 2, 3, 1)[covered],
        )

    def draw(self, index: int, seed: int) -> SurfacePixels:
        """`rays` pixels, chosen by the seed."""
        rows = torch.randint(len(self.pixels.face), (self.rays,), generator=generator(seed))
        return replace(self.pixels, **{name: value[rows] for name, value in vars(self.pixels).items()})

    def collate(self, items: list[SurfacePixels]) -> SurfacePixels:
        """One sample of all the items' pixels."""
        return SurfacePixels(
            *(torch.cat([getattr(i, n) for i in items]) for n in ("face", "barycentric", "color"))
        )

    def name(self, index: int) -> str:
        return f"draw {index}"


class VertexColors(Method):
    """A colour per vertex, interpolated over the triangles; grey where no photo looks."""

    Config = VertexColorsConfig
    one_scene = True
    trains = True
    reads_sources = False

    faces: Tensor

    def __init__(self, mesh: Mesh, rays: int = 32768) -> None:
        super().__init__()
        self.rasterizer = Rasterizer(mesh)
        self.rays = rays
        self.colors = nn.Parameter(torch.full((len(mesh.vertices), 3), 0.5))
        self.register_buffer("faces", mesh.faces, persistent=False)

    @classmethod
    def create(cls, config: VertexColorsConfig, scene: Scene | None = None) -> VertexColors:
        return cls(require_mesh("vertex_colors", scene), config.rays)

    def samples(self, scene: Scene, data: DataConfig) -> SurfaceSamples:
        views = source_views(scene, data)
        return SurfaceSamples(views, self.rasterizer.to(views.images.device), self.rays)

    def forward(self, sample: SurfacePixels, step: int) -> dict[str, Tensor]:
        """Mean squared error of the interpolated colours, and its PSNR."""
        corners = self.colors[self.faces[sample.face]]  # [N, 3 corners, 3]
        predicted = (corners * sample.barycentric[..., None]).sum(1)
        loss = torch.nn.functional.mse_loss(predicted, sample.color)
        return {"loss": loss, "psnr": -10 * loss.detach().log10()}

    def optimization(self, config: TrainingConfig) -> Optimization:
        optimizer = torch.optim.Adam([self.colors], lr=config.learning_rate, eps=1e-15)
        return Optimization(optimizer, learning_rate_schedule(config))

    def encode(self, source: Views, reuse: Any = None) -> None:
        """The trained colours are all there is; the source photos are not looked at."""

    def render(self, state: None, cameras: Cameras) -> Rendering:
        self.rasterizer = self.rasterizer.to(cameras.K.device)
        fragments = self.rasterizer.rasterize(cameras)
        image = interpolate(fragments, self.faces, self.colors).clamp(0, 1)
        return Rendering(image, fragments.depth, fragments.coverage[:, None])
