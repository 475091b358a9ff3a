"""The common world frame."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import UserError
from dataloader.prepare.world_frame import move_scene, world_frame
from dataloader.scene import Scene, SparsePoints
from dataloader.toy import make_scene
from geometry.alignment import Similarity
from geometry.poses import matrix_from_quaternion


def normalised(scene: Scene) -> Scene:
    return move_scene(scene, world_frame(scene))


def test_z_is_up_and_the_scene_has_the_common_size(posed_scene) -> None:
    scene = posed_scene(7)
    moved = normalised(scene)
    cameras, points = moved.cameras(), torch.from_numpy(moved.points.xyz)
    up = -cameras.c2w[:, :3, 1].mean(0)
    assert torch.allclose(up / up.norm(), torch.tensor([0.0, 0, 1]).double(), atol=1e-9)
    forward = cameras.c2w[:, :3, 2].mean(0)
    assert abs(forward[0]) < 1e-9
    assert forward[1] > 0
    assert np.allclose(np.median(moved.points.xyz, axis=0), 0, atol=1e-9)
    depths = [r.camera.project(points[moved.points.tracks[r.name][0]])[1] for r in moved.records]
    assert torch.cat(depths).median() == pytest.approx(5)
    factor = moved.records[0].bounds[0] / scene.records[0].bounds[0]
    for before, after in zip(scene.records, moved.records, strict=True):
        assert after.bounds == pytest.approx([factor * bound for bound in before.bounds])
        rows, pixels = moved.points.tracks[after.name]
        assert np.allclose(after.camera.project(points[rows])[0], pixels)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000))
def test_the_frame_does_not_depend_on_the_one_before(posed_scene_once: Scene, seed: int) -> None:
    draw = torch.randn(8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    other = Similarity(float(draw[0].exp()), matrix_from_quaternion(draw[1:5]), draw[5:])
    one, two = normalised(posed_scene_once), normalised(move_scene(posed_scene_once, other))
    assert torch.allclose(one.cameras().c2w, two.cameras().c2w, atol=1e-7)
    assert np.allclose(one.points.xyz, two.points.xyz, atol=1e-7)


@pytest.fixture(scope="module")
def posed_scene_once(request: pytest.FixtureRequest) -> Scene:
    scene = make_scene(seed=2, n_views=5, height=24, width=32)
    cameras = scene.cameras()
    xyz = np.random.default_rng(0).uniform(-1, 1, (30, 3))
    tracks = {
        name: (np.arange(30), cameras[i].project(torch.from_numpy(xyz))[0].numpy())
        for i, name in enumerate(scene.names)
    }
    scene.points = SparsePoints(xyz, np.zeros((30, 3), np.uint8), np.zeros(30), tracks)
    return scene


def test_cameras_all_around_still_get_a_heading(posed_scene) -> None:
    scene = posed_scene(4)
    for i, record in enumerate(scene.records):  # looking along x, -y, -x, y with z up
        angle = torch.tensor(i * torch.pi / 2, dtype=torch.float64)
        forward = torch.stack([angle.cos(), -angle.sin(), torch.zeros(()).double()])
        down = torch.tensor([0.0, 0.0, -1.0], dtype=torch.float64)
        record.camera.c2w[:3, :3] = torch.stack([torch.linalg.cross(down, forward), down, forward], -1)
        record.camera.c2w[:3, 3] = -4 * forward
    moved = normalised(scene)
    rotations = moved.cameras().c2w[:, :3, :3]
    assert torch.allclose(rotations[0, :, 2], torch.tensor([0.0, 1, 0]).double(), atol=1e-9)
    assert torch.allclose(rotations @ rotations.mT, torch.eye(3).double().expand(4, 3, 3), atol=1e-9)


def test_a_scene_without_points_is_refused(posed_scene) -> None:
    scene = posed_scene()
    scene.points = None
    with pytest.raises(UserError, match="no sparse points"):
        world_frame(scene)
