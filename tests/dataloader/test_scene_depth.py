"""Depth statistics come out alike, whichever of depth map, mesh and points a scene has."""

import numpy as np
import pytest
import torch

from common.errors import UserError
from dataloader import toy
from dataloader.scene import Record, Scene, SparsePoints
from dataloader.scene_depth import scene_scale, seen_depths


@pytest.fixture(scope="module")
def room() -> Scene:
    return toy.make_scene(0, n_views=3, height=96, width=128)


def _without_depth(room: Scene, **parts) -> Scene:
    records = [Record(record.name, record.camera, record.image) for record in room.records]
    return Scene(room.name, records, splits=room.splits, **parts)


def test_mesh_and_depth_map_agree(room: Scene) -> None:
    bare = _without_depth(room, surface=room.mesh())
    assert scene_scale(bare, 1) == pytest.approx(scene_scale(room, 1), rel=0.02)


def test_points_and_depth_map_agree(room: Scene) -> None:
    depth = torch.from_numpy(np.asarray(room.records[1].depth))
    xyz = room.records[1].camera.unproject(depth.double()).reshape(-1, 3)[::7].numpy()
    count = len(xyz)
    points = SparsePoints(xyz, np.zeros((count, 3), np.uint8), np.zeros(count))
    assert scene_scale(_without_depth(room, points=points), 1) == pytest.approx(
        scene_scale(room, 1), rel=0.02
    )
    points.tracks = {"0001": (np.arange(0, count, 2), np.zeros((count, 2)))}
    assert len(seen_depths(_without_depth(room, points=points), 1)) == (count + 1) // 2


def test_a_scene_without_geometry_is_refused(room: Scene) -> None:
    with pytest.raises(UserError, match="no depth, mesh or points"):
        seen_depths(_without_depth(room), 0)
