"""A lifted scene seen by a camera: its Gaussians, or its points."""

from __future__ import annotations

from dataclasses import replace

import torch

from geometry.cameras import Cameras
from geometry.depth_edges import erode
from geometry.points import splat
from geometry.views import Rendering
from geometry.warp import fill_nearest
from methods.scene_lifting.config import PointsConfig
from methods.scene_lifting.state import LiftedScene

_REACH, _SHRINK = (
    0.5,
    2,
)  # pixels: discs that close gaps are so much wider, and reach so far beyond the surface


def render_points(scene: LiftedScene, camera: Cameras, config: PointsConfig) -> Rendering:
    """The scene's points as soft discs, for a single camera; see `geometry.points.splat`.

    opacity is 1 where a disc hits and, with `close_gaps`, in the gaps between neighbouring ones, whose image
    and depth are those of the nearest pixel that is hit.
    """
    found = splat(scene.points, scene.colors, camera, config.radius, weights="soft")
    return _closed(scene, camera, found, config.radius) if config.close_gaps else found


def _closed(scene: LiftedScene, camera: Cameras, found: Rendering, radius: float) -> Rendering:
    assert found.opacity is not None
    assert found.depth is not None
    wide = splat(scene.points, None, camera, radius + _REACH).opacity
    assert wide is not None
    hit = found.opacity[0] > 0
    known = hit | erode(wide[0] > 0, _SHRINK)
    maps = fill_nearest(torch.cat([found.image, found.depth]), hit) * known
    return replace(found, image=maps[:3], depth=maps[3:], opacity=known[None].to(found.opacity))
