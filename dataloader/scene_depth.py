"""How far away things are, from the best that a scene offers: depth map, mesh or sparse points."""

from __future__ import annotations

import torch
from torch import Tensor

from common.errors import UserError
from dataloader.scene import Scene
from geometry.lifting import depth_scale


def seen_depths(scene: Scene, index: int) -> Tensor:
    """Z-depths [P] (float64, world units) of what record `index` sees.

    Taken from its depth map, else from the scene's mesh, else from its sparse points. Raises UserError if the
    scene has none of them or the view sees nothing.
    """
    record = scene.records[index]
    if record.depth is not None:
        depth = scene.views([index]).depth
        assert depth is not None
        depths = depth[depth > 0].double()
    elif scene.has_mesh:
        depths = _mesh_depths(scene, index)
    elif scene.points is not None:
        depths = _point_depths(scene, index)
    else:
        raise UserError(
            f"scene {scene.name} has no depth, mesh or points: give a depth where one is asked for"
        )
    if len(depths) == 0:
        raise UserError(
            f"{record.source} sees nothing of the scene's geometry: do mesh and cameras share one frame?"
        )
    return depths


def scene_scale(scene: Scene, index: int) -> float:
    """The scene's depth unit from a view: the 20th percentile of its depths (specs/warp_diffusion 3.5)."""
    return depth_scale(seen_depths(scene, index))


def _mesh_depths(scene: Scene, index: int) -> Tensor:
    from geometry.rasterize import Rasterizer

    camera = scene.records[index].camera
    small = camera.resize(*(max(1, side // 4) for side in (camera.height, camera.width)))
    depth = Rasterizer(scene.mesh()).depth(small)
    return depth[depth > 0].double()


def _point_depths(scene: Scene, index: int) -> Tensor:
    """Depths of the points the record observes; of all points inside its frame when there are no tracks."""
    assert scene.points is not None
    record = scene.records[index]
    if record.name in scene.points.tracks:
        points = scene.points.xyz[scene.points.tracks[record.name][0]]
        return record.camera.project(torch.from_numpy(points))[1]
    pixels, depth = record.camera.project(torch.from_numpy(scene.points.xyz))
    size = torch.tensor([record.camera.width, record.camera.height], dtype=torch.float64)
    return depth[(depth > 0) & (pixels >= 0).all(-1) & (pixels < size).all(-1)]
