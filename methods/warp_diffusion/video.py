"""The original's output folder of a video: photo, mesh, warps, every sample, and the best ones (1.3)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor

from dataloader.images import image_grid, to_uint8, write_image
from engine.outputs import prepare_folder
from engine.video import write_video
from geometry.cameras import Cameras
from geometry.mesh_files import write_mesh
from geometry.selection import rank_views
from geometry.views import Rendering, Views
from geometry.warp import fill_nearest
from methods.warp_diffusion.warps import LiftedPhotos, Warps

if TYPE_CHECKING:
    from methods.warp_diffusion.method import PhotoState, WarpDiffusion


def write_sources(photos: LiftedPhotos, folder: Path) -> list[Path]:
    """reference.png, reference_padded.png and mesh.ply of the first photo."""
    files = [folder / name for name in ("reference.png", "reference_padded.png", "mesh.ply")]
    write_image(photos.views.images[0], files[0])
    write_image((photos.padded()[0] + 1) / 2, files[1])
    write_mesh(photos.mesh(0), files[2])
    return files


def film(method: WarpDiffusion, state: PhotoState, cameras: Cameras, folder: Path) -> Iterator[Rendering]:
    """The views of a path, one by one; warps, samples and best views are written on the way.

    Without weights only the warps are written, and no view comes.
    """
    sources = rank_views(state.photos.views.cameras, cameras)[:, 0].tolist()
    state.drawn = 0  # a path's noise does not depend on the paths before
    if method.config.sampling.sequential and state.code is not None:
        yield from _film_sequentially(method, state, cameras, folder)
        return
    warps = state.photos.warp(sources, cameras)
    write_warps(warps, folder / "warped")
    if state.code is None:
        return
    best: list[Tensor] = []
    views = max(1, method.config.sampling.batch // method.config.sampling.samples)
    for start in range(0, len(cameras), views):
        part = slice(start, start + views)
        rendering = method.render_warped(state, sources[part], cameras[part], warps[part])
        for i in range(len(rendering.image)):
            _write_samples(rendering.extras["samples"][:, i], folder, start + i)
            best.append(rendering.image[i])
            yield _single(rendering, i)
    write_best(best, folder / "videos")


def _single(rendering: Rendering, index: int) -> Rendering:
    extras = {name: value[..., index : index + 1, :, :, :] for name, value in rendering.extras.items()}
    return Rendering(rendering.image[index : index + 1], extras=extras)


def _film_sequentially(
    method: WarpDiffusion, state: PhotoState, cameras: Cameras, folder: Path
) -> Iterator[Rendering]:
    """From the view nearest to the photo outwards; each is lifted for the later ones to see.

    Views come in the order of the path once all are made.
    """
    home = state.photos.views.cameras
    distance = (cameras.center[:, None] - home.center[None].to(cameras.center)).norm(dim=-1).min(1).values
    made: dict[int, Rendering] = {}
    warps: dict[int, Warps] = {}
    for n in distance.argsort(stable=True).tolist():
        camera = cameras[n : n + 1]
        sources = rank_views(home, camera)[:, 0].tolist()
        warps[n] = state.photos.warp(sources, camera)
        made[n] = method.render_warped(state, sources, camera, warps[n])
        view = lifted_view(made[n].image, warps[n], camera)
        method.encode(view, reuse=state)
        _write_samples(made[n].extras["samples"][:, 0], folder, n)
    order = range(len(cameras))
    write_warps(_joined([warps[n] for n in order]), folder / "warped")
    write_best([made[n].image[0] for n in order], folder / "videos")
    yield from (made[n] for n in order)


def lifted_view(image: Tensor, warps: Warps, camera: Cameras) -> Views:
    """A generated view [1] with the depth of its warp; holes take the depth of their nearest known pixel."""
    height, width = warps.canvas.height, warps.canvas.width
    depth = torch.stack([fill_nearest(d, d[0] > 0) for d in warps.depth])
    small = image
    if image.shape[-2:] != (height, width):
        small = torch.nn.functional.interpolate(image, size=(height, width), mode="bilinear", antialias=True)
    return Views(small, camera.resize(height, width), depth=depth)


def _joined(parts: list[Warps]) -> Warps:
    return replace(
        parts[0],
        image=torch.cat([part.image for part in parts]),
        coverage=torch.cat([part.coverage for part in parts]),
        depth=torch.cat([part.depth for part in parts]),
    )


def write_warps(warps: Warps, folder: Path) -> None:
    """N.png for every view, warpgrid.png (five to a row) and warps.gif."""
    prepare_folder(folder)
    for i, image in enumerate(warps.image):
        write_image(image, folder / f"{i}.png")
    _write_film(list(warps.image), folder / "warpgrid.png", folder / "warps.gif")


def write_best(images: list[Tensor], folder: Path) -> None:
    """best.png (a grid) and best.gif (ten views a second)."""
    prepare_folder(folder)
    _write_film(images, folder / "best.png", folder / "best.gif")


def _write_film(images: list[Tensor], grid: Path, gif: Path) -> None:
    frames = [to_uint8(image) for image in images]
    _save(image_grid([Image.fromarray(frame) for frame in frames]), grid)
    write_video(frames, gif, 10.0)


def _write_samples(samples: Tensor, folder: Path, index: int) -> None:
    """All samples [S, 3, H, W] of one view in a row."""
    folder = prepare_folder(folder / "per_view_generations")
    pictures = [Image.fromarray(to_uint8(sample)) for sample in samples]
    _save(image_grid(pictures, columns=len(pictures)), folder / f"{index}.png")


def _save(picture: Image.Image, path: Path) -> None:
    import numpy as np

    write_image(np.asarray(picture), path)
