"""From photos to a lifted scene: what `encode`, the command line and the web demo do alike."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from common.errors import UserError
from geometry.views import Views
from methods.scene_lifting.config import GenerationConfig, InpainterConfig, SceneLiftingConfig
from methods.scene_lifting.generation import OnView, add_view, generate, lift_photo
from methods.scene_lifting.inpainters import Inpainter, load_inpainter
from methods.scene_lifting.plan import later_cameras, plan_views
from methods.scene_lifting.state import CompleteDepth, LiftedScene, LiftedView


def lift_views(
    views: Views, complete: CompleteDepth | None, config: GenerationConfig, reuse: LiftedScene | None = None
) -> LiftedScene:
    """The scene that photos [N] show; every one after the first brings what those before it did not show.

    views: their depth, where they have some, is kept, and completed in its holes. complete: None lifts no
    other depth. reuse: a scene that the photos join. Raises UserError where nothing can be lifted.
    """
    scene = reuse
    for i in range(len(views)):
        image, camera = views.images[i], views.cameras[i]
        used = scene is None or config.source_depth == "all"
        known = _known_depth(views, i) if used else None
        if complete is None and (known is None or not (known > 0).any()):
            raise UserError(
                "there is no network to give the photo a depth (model.completion=none): pass --depth FILE"
            )
        name = views.names[i] if views.names else f"photo_{i:03d}"
        if scene is None:
            scene = lift_photo(image, camera, known, complete, config, name)
        else:
            scene = add_view(scene, image, camera, complete, config, name=name, known_depth=known)
    if scene is None:
        raise ValueError("a scene needs at least one photo")
    return scene


def make_scene(
    photo: Views,
    complete: CompleteDepth | None,
    config: SceneLiftingConfig,
    device: torch.device,
    folder: Path | None = None,
    on_view: OnView | None = None,
    models: str = "",
    load: Callable[[InpainterConfig, torch.device], Inpainter | None] = load_inpainter,
) -> LiftedScene:
    """The scene around one photo: Views [1], with or without depth, on the device.

    folder, on_view, models: as for `generation.generate`, but the photo itself is view 0. load: gives the
    inpainter; another than `load_inpainter` may keep it for the next scene. Everything that can be wrong with
    paths, prompts and the inpainter is found before the first network runs.
    """
    settings = config.generation
    cameras = later_cameras(photo.cameras[0], settings)
    plan_views(cameras, settings, painted=config.inpainter.name != "none")
    inpaint = load(config.inpainter, device) if len(cameras) else None
    if inpaint is not None and complete is None:
        raise UserError(
            "painted views need a network to give them depth (model.completion=none): pass --inpainter none"
        )
    scene = lift_views(photo, complete, settings)
    told = None if on_view is None else _after_photo(on_view)
    if on_view is not None:
        on_view(0, len(cameras) + 1, scene.views[0])
    known = json.dumps([dataclasses.asdict(config.inpainter), models], sort_keys=True)
    return generate(scene, cameras, complete, inpaint, settings, folder, told, known)


def _after_photo(on_view: OnView) -> OnView:
    """Counts the photo as view 0."""

    def tell(index: int, total: int, view: LiftedView) -> None:
        on_view(index + 1, total + 1, view)

    return tell


def _known_depth(views: Views, index: int) -> Tensor | None:
    """[H, W] z-depth of a view, 0 where it is unknown; None where views bring no depth."""
    if views.depth is None:
        return None
    depth = views.depth[index, 0]
    return depth if views.valid is None else depth * views.valid[index, 0]
