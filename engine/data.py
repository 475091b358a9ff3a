"""What an experiment's `data:` section means for a scene: sizes, source views, batches of held-out views."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from common.errors import UserError
from dataloader.images import fit_size
from dataloader.scene import Batch, ImageSize, Scene
from dataloader.surface_rays import mixed_cameras
from engine.config import DataConfig
from geometry.rasterize import Rasterizer
from geometry.views import Views


def view_size(scene: Scene, data: DataConfig) -> ImageSize | None:
    """(height, width) at which a scene's photos are used under `data.max_size`; None means their own size."""
    if not data.max_size:
        return None
    camera = scene.records[0].camera
    return fit_size(camera.height, camera.width, data.max_size)


def source_indices(scene: Scene, data: DataConfig) -> list[int]:
    """The records a method is given. Raises UserError when the split `data.source` is empty."""
    indices = scene.split(data.source)
    if not indices:
        raise UserError(f"scene {scene.name} has no photo in its split {data.source!r}: set data.source=all")
    return indices


def source_views(scene: Scene, data: DataConfig, photos: bool = True) -> Views:
    """The views a method is given: the split `data.source`.

    photos: False leaves the photos unread and the images black, without memory of their own: for methods that
    only ask where the photos were taken from. Photos may then be of several sizes; the cameras take the
    first one's.
    """
    chosen = source_indices(scene, data)
    if photos:
        return scene.views(chosen, view_size(scene, data), data.threads)
    cameras = mixed_cameras([scene.records[i].camera for i in chosen])
    black = torch.zeros(()).expand(len(chosen), 3, cameras.height, cameras.width)
    return Views(black, cameras, names=[scene.records[i].name for i in chosen])


def target_batches(
    scene: Scene, data: DataConfig, batch_size: int, source: Views, chosen: Sequence[int] | None = None
) -> Iterator[Batch]:
    """The held-out views in batches, with the surface's coverage where the scene has a mesh.

    chosen: positions in the split `data.target`; None takes all.
    """
    rasterizer = Rasterizer(scene.mesh()) if scene.has_mesh else None
    split = scene.split(data.target)
    targets = split if chosen is None else [split[i] for i in chosen]
    for start in range(0, len(targets), batch_size):
        target = scene.views(targets[start : start + batch_size], view_size(scene, data), data.threads)
        if rasterizer is not None:
            target.coverage = (rasterizer.rasterize(target.cameras).face >= 0).float()
        yield Batch(source, target, [scene.name] * len(target))
