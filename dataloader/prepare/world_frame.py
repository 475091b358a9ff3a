"""The world frame that prepared scenes share: z up, the scene around the origin, a common size."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from common.errors import UserError
from dataloader.scene import Scene, SparsePoints
from geometry.alignment import Similarity

MEDIAN_DEPTH = 5.0  # world units: what the median depth of the observed points becomes
_LEVEL = 0.1  # length of an axis' horizontal part below which it says nothing about the heading


def world_frame(scene: Scene) -> Similarity:
    """The similarity that takes a scene to the common frame.

    z is the mean up direction of the cameras, y the horizontal part of the mean viewing direction (of the
    first camera that has one, where the cameras look all around). The origin is the median of the sparse
    points, and the median depth of all their observations becomes 5.
    """
    if scene.points is None or not len(scene.points.xyz):
        raise UserError(f"scene {scene.name} has no sparse points to normalise its frame by")
    c2w = torch.stack([record.camera.c2w for record in scene.records])
    up = torch.nn.functional.normalize(-c2w[:, :3, 1].mean(0), dim=0)
    forward = _heading(torch.cat([c2w[:, :3, 2].mean(0)[None], c2w[:, :3, 2]]), up)
    rotation = torch.stack([torch.linalg.cross(forward, up), forward, up])
    scale = MEDIAN_DEPTH / float(torch.cat(_observed_depths(scene)).median())
    turned = scale * scene.points.xyz @ rotation.numpy().T
    return Similarity(scale, rotation, -torch.from_numpy(np.median(turned, axis=0)))


def _heading(axes: Tensor, up: Tensor) -> Tensor:
    """The unit horizontal part of the first axis [N, 3] that has one."""
    level = axes - (axes @ up)[:, None] * up
    row = int((level.norm(dim=1) > _LEVEL).int().argmax())
    return torch.nn.functional.normalize(level[row], dim=0)


def _observed_depths(scene: Scene) -> list[Tensor]:
    """Per record, the depths of the points it observes."""
    assert scene.points is not None
    points = torch.from_numpy(scene.points.xyz)
    tracks = scene.points.tracks
    return [record.camera.project(points[tracks[record.name][0]])[1] for record in scene.records]


def move_scene(scene: Scene, similarity: Similarity) -> Scene:
    """The scene with cameras, points and bounds in another frame. It must have no depth maps and no mesh."""
    records = [
        replace(
            record,
            camera=similarity.cameras(record.camera),
            bounds=record.bounds
            and (record.bounds[0] * similarity.scale, record.bounds[1] * similarity.scale),
        )
        for record in scene.records
    ]
    points = scene.points
    if points is not None:
        xyz = similarity.points(torch.from_numpy(points.xyz)).numpy()
        points = SparsePoints(xyz, points.rgb, points.error, points.tracks)
    return replace(scene, records=records, points=points)
