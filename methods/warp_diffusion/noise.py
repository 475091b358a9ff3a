"""The initial noise of a path's views: independent, shared, or carried along with the geometry."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from engine.sampling import generator
from geometry.cameras import Cameras
from geometry.warp import locate
from methods.warp_diffusion.config import SamplingConfig
from methods.warp_diffusion.sampling import DrawNoise
from methods.warp_diffusion.warps import LiftedPhotos, canvas_cameras

Shape = tuple[int, int, int]  # channels, height, width


def initial_noise(
    photos: LiftedPhotos,
    sources: list[int],
    cameras: Cameras,
    shape: Shape,
    config: SamplingConfig,
    first: int,
) -> Tensor:
    """Unit noise [S, N, C, s, s] of N views whose sources are photos `sources[i]`.

    first: number of the first view, which keys independent noise. 'shared': every view has the same.
    'warped': a latent pixel has the noise of the latent pixel of its photo that sees the same surface point,
    and noise of its own where the photo sees none.
    """
    count = len(cameras)
    if config.noise == "shared":
        drawn = torch.stack([unit_noise(shape, config.seed, "shared", s) for s in range(config.samples)])
        return drawn[:, None].repeat(1, count, 1, 1, 1)
    own = [
        torch.stack([unit_noise(shape, config.seed, "view", first + n, s) for n in range(count)])
        for s in range(config.samples)
    ]
    noise = torch.stack(own)
    if config.noise == "warped":
        for n, source in enumerate(sources):
            seen, cells = source_cells(photos, source, cameras[n : n + 1], shape[-1])
            for s in range(config.samples):
                base = unit_noise(shape, config.seed, "photo", source, s).flatten(1)
                noise[s, n].flatten(1)[:, seen] = base[:, cells[seen]]
    return noise


def unit_noise(shape: Shape, seed: int, *key: int | str) -> Tensor:
    """Noise of its own for what `key` names."""
    return torch.randn(shape, generator=generator(seed, *key))


def step_noise(views: Sequence[int | str], samples: int, shape: Shape, seed: int) -> DrawNoise:
    """Fresh noise [S N, C, h, w] for every step of samplers that add some; a view's depends on its key alone,
    and not on the views drawn with it.
    """
    generators = [generator(seed, "steps", view) for view in views]

    def draw() -> Tensor:
        drawn = [torch.randn(samples, *shape, generator=source) for source in generators]
        return torch.stack(drawn, 1).flatten(0, 1)

    return draw


def source_cells(photos: LiftedPhotos, source: int, camera: Cameras, size: int) -> tuple[Tensor, Tensor]:
    """Which latent pixel of a photo sees what each latent pixel of a view [1] sees.

    size: latent pixels a side. Returns seen [size^2] bool and flat indices [size^2] int64.
    """
    canvas = photos.canvas
    view = canvas_cameras(camera, canvas, size)[0].to(torch.float64)
    home = canvas_cameras(photos.views.cameras[source : source + 1], canvas, size).to(torch.float64)
    depth = photos.surface(source).depth(view)[0].double()
    points = view.unproject(depth).reshape(-1, 3)
    pixels, _, inside = locate(points, home)
    column, row = pixels[0].floor().clamp(0, size - 1).nan_to_num(0).long().unbind(-1)
    return inside[0].cpu() & (depth.reshape(-1) > 0).cpu(), (row * size + column).cpu()
