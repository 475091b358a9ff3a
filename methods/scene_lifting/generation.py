"""A photo lifted to points, and view after view joined to them (specs/scene_lifting 3.4)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from common.cli import progress
from common.errors import UserError
from dataloader.images import to_tensor, to_uint8
from geometry.cameras import Cameras
from geometry.depth_edges import snap_edges
from geometry.depth_seams import honour_depth
from methods.scene_lifting.config import GenerationConfig
from methods.scene_lifting.inpainters import Inpainter
from methods.scene_lifting.plan import PlannedView, plan_views
from methods.scene_lifting.saved_views import fingerprint, read_view, write_preview, write_view
from methods.scene_lifting.seeing import Seen, look
from methods.scene_lifting.state import CompleteDepth, LiftedScene, LiftedView

log = logging.getLogger(__name__)

_NEAREST = 1e-3  # world units; the least depth that networks are trained with

OnView = Callable[[int, int, LiftedView], None]  # (number of the view from 0, of how many, the view)


def lift_photo(
    image: Tensor,
    camera: Cameras,
    known_depth: Tensor | None,
    complete: CompleteDepth | None,
    config: GenerationConfig,
    name: str = "photo",
) -> LiftedScene:
    """A scene of one photo [3, H, W]: a point for every pixel whose depth is known, row by row.

    camera: single, where the photo's camera stands in the world. known_depth: [H, W] z-depth, 0 where
    unknown: it is kept, and completed where it has holes; the depth's unit is the world's. None: the
    network's own. complete: None leaves holes empty. Edges of predicted depth are snapped.
    """
    known = _empty_like(image) if known_depth is None else known_depth.to(image)
    depth = _depth_kept(complete, image, known, config.first_scale, config, name)
    view = LiftedView(image, camera, depth, torch.zeros_like(depth, dtype=torch.bool), name)
    nothing = image.new_zeros(0, 3)
    return _joined(LiftedScene(nothing, nothing), view, depth > 0)


def add_view(
    scene: LiftedScene,
    image: Tensor,
    camera: Cameras,
    complete: CompleteDepth | None,
    config: GenerationConfig,
    seen: Seen | None = None,
    name: str = "",
    prompt: str = "",
    known_depth: Tensor | None = None,
) -> LiftedScene:
    """The scene with the points that a further image [3, H, W] shows and the scene did not.

    camera: of the image, single. seen: what `look` gives for it, where that is at hand. The image's depth is
    completed from what is known of it; under config.seams 'honour' it meets the known depth without a step.
    Edges are snapped, and the pixels of `Seen.hole` join. Points that are there stay as they are.
    known_depth: [H, W], 0 where unknown, of the image itself; it goes before what the scene knows, and is
    kept as `lift_photo` does. complete: None lifts no other depth than that.
    """
    seen = look(scene, camera, config) if seen is None else seen
    name = name or f"view_{len(scene.views):03d}"
    if known_depth is not None or complete is None:
        own = _empty_like(image) if known_depth is None else known_depth.to(image)
        known = own if complete is None else torch.where(own > 0, own, seen.sparse)
        depth = _depth_kept(complete, image, known, config.next_scale, config, name)
    else:
        depth = _completed(complete, image, seen.sparse, config.next_scale, name)
        if config.seams == "honour":
            reach = config.seam_reach * min(depth.shape)
            depth = honour_depth(depth, seen.sparse, reach)
        depth = snap_edges(depth, config.snap_threshold, config.snap_erosion)
    view = LiftedView(image, camera, depth, seen.known, name, prompt)
    return _joined(scene, view, seen.hole & (depth > 0))


def outpaint_view(
    scene: LiftedScene,
    planned: PlannedView,
    complete: CompleteDepth,
    inpaint: Inpainter,
    config: GenerationConfig,
    seen: Seen | None = None,
) -> LiftedScene:
    """The scene with a view that is painted where the scene shows nothing yet.

    Under config.seams 'honour' the known pixels keep their colours; 'network' takes the inpainter's image
    whole, as the original does. The inpainter is not asked where there is nothing to paint.
    """
    seen = look(scene, planned.camera, config) if seen is None else seen
    image, hole = seen.image, seen.hole
    if hole.any():
        painted = _painted(inpaint, seen, planned)
        image = torch.where(hole, painted, image) if config.seams == "honour" else painted
    return add_view(scene, image, planned.camera, complete, config, seen, planned.name, planned.prompt)


def generate(
    scene: LiftedScene,
    cameras: Cameras,
    complete: CompleteDepth | None,
    inpaint: Inpainter | None,
    config: GenerationConfig,
    folder: Path | None = None,
    on_view: OnView | None = None,
    models: str = "",
) -> LiftedScene:
    """A lifted photo grown by the views of cameras [N], one after the other.

    complete: needed where something is painted. inpaint: None paints nothing. Then no view joins and no
    network is asked; the cameras are shown what the scene has, and what they do not see of it stays empty.
    folder: where every finished view is kept (`saved_views`); a later call continues after the last one that
    was made from the same points, camera, prompt, seed, settings and `models` (what callers say of the
    networks: names, checkpoints), and makes the views from the first difference on anew. on_view: told of
    every view, also of kept ones, once it is safe on the disk, as (number from 0, N, view); it may raise to
    stop. Raises UserError without a prompt, or for another number of prompts than cameras.
    """
    planned = plan_views(cameras, config, painted=inpaint is not None)
    if inpaint is None:
        return _show(scene, planned, config, folder, on_view)
    if complete is None:
        raise ValueError("painted views need a network to give them depth")
    for i, plan in enumerate(progress(planned, "views", unit="view", disable=not planned)):
        key = fingerprint(scene, plan, config, models)
        scene = _kept_or_made(scene, plan, complete, inpaint, config, folder, key)
        if on_view is not None:
            on_view(i, len(planned), scene.views[-1])
    return scene


def _kept_or_made(
    scene: LiftedScene,
    plan: PlannedView,
    complete: CompleteDepth,
    inpaint: Inpainter,
    config: GenerationConfig,
    folder: Path | None,
    key: str,
) -> LiftedScene:
    """The scene with the planned view, read from the folder where it lies there under this key."""
    kept = None if folder is None else read_view(folder, plan, key, scene.points.device)
    if kept is not None:
        log.info("%s: kept from an earlier run in %s", plan.name, folder)
        return _joined(scene, kept, Seen(kept.image, kept.known, kept.depth, kept.depth).hole)
    seen = look(scene, plan.camera, config)
    grown = outpaint_view(scene, plan, complete, inpaint, config, seen)
    if folder is not None:
        write_preview(folder, seen, grown.views[-1])
        write_view(folder, grown.views[-1], key)
    return grown


def _show(
    scene: LiftedScene,
    planned: list[PlannedView],
    config: GenerationConfig,
    folder: Path | None,
    on_view: OnView | None,
) -> LiftedScene:
    """Look at the scene from the planned cameras; it stays as it is."""
    if folder is None and on_view is None:
        return scene
    for i, plan in enumerate(planned):
        seen = look(scene, plan.camera, config)
        view = LiftedView(seen.image, plan.camera, seen.depth, seen.known, plan.name)
        if folder is not None:
            write_preview(folder, seen, view)
        if on_view is not None:
            on_view(i, len(planned), view)
    return scene


def _joined(scene: LiftedScene, view: LiftedView, joins: Tensor) -> LiftedScene:
    """The scene with a view whose pixels `joins` [H, W] bool become points, row by row."""
    camera = view.camera.to(view.depth.device)
    points = camera.unproject(view.depth.to(camera.c2w.dtype))[joins].to(scene.points)
    colors = view.image.permute(1, 2, 0)[joins].to(scene.colors)
    return replace(
        scene,
        points=torch.cat([scene.points, points]),
        colors=torch.cat([scene.colors, colors]),
        views=[*scene.views, view],
        gaussians=None,
    )


def _depth_kept(
    complete: CompleteDepth | None,
    image: Tensor,
    known: Tensor,
    scale: float,
    config: GenerationConfig,
    name: str,
) -> Tensor:
    """Known depth [H, W] as it is, its holes completed; left empty without a network."""
    if complete is None or (known > 0).all():
        return known
    # measured depth may be in another unit than the network's: the ratio is carried through whole holes
    predicted = honour_depth(_completed(complete, image, known, scale, name), known)
    snapped = snap_edges(predicted, config.snap_threshold, config.snap_erosion)
    return torch.where(known > 0, known, snapped)


def _empty_like(image: Tensor) -> Tensor:
    return image.new_zeros(image.shape[-2:])


def _completed(complete: CompleteDepth, image: Tensor, sparse: Tensor, scale: float, name: str) -> Tensor:
    """The network's depth [H, W], at least `_NEAREST`. Raises UserError where it is none."""
    depth = complete(image, sparse, scale)
    if depth.shape != sparse.shape:
        raise ValueError(f"the completed depth is {tuple(depth.shape)}, the image {tuple(sparse.shape)}")
    if not depth.isfinite().all() or depth.median() <= 0:
        raise UserError(
            f"{name}: the depth network gave numbers that are no depth (not finite, or not above 0); check "
            "its checkpoint"
        )
    return depth.to(sparse).clamp(min=_NEAREST)  # enlarging a map overshoots beside its edges


def _painted(inpaint: Inpainter, seen: Seen, planned: PlannedView) -> Tensor:
    """The inpainter's image [3, H, W] in [0, 1]."""
    image, hole = to_uint8(seen.image), seen.hole.cpu().numpy().astype("uint8") * 255
    painted = inpaint(image, hole, planned.prompt, planned.negative_prompt, planned.seed)
    if painted.shape != image.shape:
        raise UserError(
            f"{planned.name}: the inpainter made an image of {painted.shape[1]}x{painted.shape[0]} pixels "
            f"where one of {image.shape[1]}x{image.shape[0]} was asked for"
        )
    return to_tensor(painted).to(seen.image)
