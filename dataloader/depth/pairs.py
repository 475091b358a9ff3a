"""From two views, of which one's depth is known, to a task: what the other knows of its own depth."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from common.errors import UserError
from dataloader.depth.tasks import DepthTask
from geometry.cameras import Cameras
from geometry.depth_edges import erode
from geometry.points import ndc_radius, splat
from geometry.views import Rendering, Views


@dataclass(frozen=True)
class DepthProtocol:
    """How tasks are made and scored (specs/scene_lifting 6). The default is the corrected protocol.

    radius: of a point; in pixels, or as a share of half the short side where `relative`. weights: as
    `geometry.points.splat`; 'hard' takes the nearest point. per_pixel: points that are blended at most.
    legacy: the original's ways of scoring: unknown truth counts, missing photos score 0, alignment descends.
    """

    radius: float = 1.0
    relative: bool = False
    weights: Literal["hard", "soft", "legacy"] = "hard"
    per_pixel: int = 16
    legacy: bool = False

    def __post_init__(self) -> None:
        if not self.radius > 0 or self.per_pixel < 1:
            raise UserError(
                f"points of radius {self.radius}, {self.per_pixel} per pixel: both must be above 0"
            )

    def render(self, points: Tensor, camera: Cameras) -> Rendering:
        """What a camera sees of points [P, 3]: depth and opacity {0, 1}, [1, H, W]."""
        radius = ndc_radius(self.radius, camera) if self.relative else self.radius
        return splat(points, None, camera, radius, self.weights, self.per_pixel)


def legacy_protocol(radius: float = 0.01, per_pixel: int = 16) -> DepthProtocol:
    """The original's protocol; radius relative to half the short side."""
    return DepthProtocol(radius, True, "legacy", per_pixel, legacy=True)


@dataclass(frozen=True)
class SkippedPair:
    """A pair that gives no task. name: of the pair. reason: one line. counted: the original scores it 0."""

    scene: str
    name: str
    reason: str
    counted: bool = False


def known_points(view: Views) -> Tensor:
    """The world points [P, 3] of one view [1] whose depth is known."""
    assert view.depth is not None
    depth = view.depth[0, 0]
    known = depth > 0 if view.valid is None else (depth > 0) & (view.valid[0, 0] > 0)
    return view.cameras[0].unproject(depth.to(view.cameras.K.dtype))[known]


def make_task(
    source: Views,
    target: Views,
    protocol: DepthProtocol,
    scene: str,
    name: str,
    points: Tensor | None = None,
    scored: Tensor | None = None,
) -> DepthTask:
    """Draw the points of one view into another; what they leave open is to be completed.

    source, target: Views [1] with depth (0 = unknown). points: [P, 3] in place of the source's own. scored:
    [H, W] bool, pixels that may be scored at all (default: all). The sparse depth lacks the outermost pixels
    of what is covered (a plus-shaped 3x3 erosion), as in generation; those are not scored either. Pixels of
    unknown true depth are hidden in the legacy protocol only.
    """
    assert target.depth is not None
    rendered = protocol.render(known_points(source) if points is None else points, target.cameras[0])
    assert rendered.depth is not None
    assert rendered.opacity is not None
    depth = rendered.depth[0].float()
    hidden = rendered.opacity[0] == 0
    if scored is not None:
        hidden &= scored.to(hidden.device)
    target = _with_validity(target)
    assert target.valid is not None
    if not protocol.legacy:
        hidden &= target.valid[0, 0] > 0
    sparse = torch.where(erode(depth > 0, "cross"), depth, 0)
    return DepthTask(
        _with_validity(source),
        target,
        sparse[None, None],
        hidden.float()[None, None],
        scene,
        name,
        uneroded=depth[None, None],
    )


def _with_validity(view: Views) -> Views:
    assert view.depth is not None
    if view.valid is not None:
        return view
    return replace(view, valid=(view.depth > 0).to(view.depth.dtype))
