"""Relative poses as the diffusion models see them."""

from __future__ import annotations

import math

import pytest
import torch

from geometry.cameras import Cameras, pinhole, stack_cameras
from geometry.poses import look_at
from methods.warp_diffusion.pose_encoding import diagonal_fov, relative_pose, zero123_pose, zeronvs_pose


def cameras(n: int = 3, seed: int = 0) -> Cameras:
    generator = torch.Generator().manual_seed(seed)
    centers = torch.randn(n, 3, generator=generator, dtype=torch.float64) * 3
    down = torch.tensor([0.1, 1.0, 0.2], dtype=torch.float64)
    return pinhole(300.0, 240, 320).with_poses(look_at(centers, torch.zeros(3).double(), down))


def test_the_field_of_view_is_that_of_the_diagonal_at_any_size() -> None:
    camera = pinhole(200.0, 300, 400)  # the diagonal is 500
    assert diagonal_fov(camera).item() == pytest.approx(2 * math.atan(500 / 400))
    assert diagonal_fov(camera.resize(75, 100)).item() == pytest.approx(diagonal_fov(camera).item())


def test_a_camera_relative_to_itself_is_the_identity() -> None:
    pose = relative_pose(cameras(), cameras(), 2.0)
    assert pose.dtype == torch.float32
    torch.testing.assert_close(pose[:, :16], torch.eye(4).flatten().expand(3, -1), atol=1e-6, rtol=0)
    torch.testing.assert_close(pose[:, 17] ** 2 + pose[:, 18] ** 2, torch.ones(3))


def test_scale_divides_translations_only() -> None:
    source, target = cameras(seed=1), cameras(seed=2)
    one, two = (
        relative_pose(source, target, 1.0),
        relative_pose(source, target, torch.tensor([2.0, 4.0, 8.0])),
    )
    moved = torch.tensor([3, 7, 11])
    torch.testing.assert_close(one[:, moved] / torch.tensor([[2.0], [4.0], [8.0]]), two[:, moved])
    rest = [i for i in range(19) if i not in moved.tolist()]
    assert torch.equal(one[:, rest], two[:, rest])


def test_the_pose_does_not_depend_on_the_world_frame() -> None:
    source, target = cameras(seed=1), cameras(seed=2)
    world = look_at(*torch.tensor([[1.0, 2, 3], [0, 0, 0], [0, 1, 0]], dtype=torch.float64))
    moved = [Cameras(c.K, world @ c.c2w, c.height, c.width) for c in (source, target)]
    torch.testing.assert_close(relative_pose(*moved, 1.5), relative_pose(source, target, 1.5))


def test_batches_equal_single_cameras() -> None:
    source, target, scale = cameras(seed=1), cameras(seed=2), torch.tensor([0.5, 1e-9, 3.0])
    for encode in (relative_pose, zeronvs_pose, zero123_pose):
        single = [encode(source[i], target[i], scale[i].item()) for i in range(3)]
        torch.testing.assert_close(torch.stack(single), encode(source, target, scale))


def test_zeronvs_halves_small_translations_and_bounds_large_ones() -> None:
    here = pinhole(300.0, 240, 320)
    poses = torch.eye(4, dtype=torch.float64).repeat(3, 1, 1)
    poses[:, 0, 3] = torch.tensor([0.01, 1e6, torch.nan])
    there = here.with_poses(poses)
    source = stack_cameras([here] * 3)
    assert zeronvs_pose(source, there, 1.0)[:, 3].tolist() == pytest.approx([0.005, 5.0, 0.0], rel=1e-4)
    assert relative_pose(source, there, 1.0)[0, 3].item() == pytest.approx(0.01)


def test_zero123_counts_angles_around_the_origin() -> None:
    poses = torch.eye(4, dtype=torch.float64).repeat(2, 1, 1)
    poses[0, :3, 3] = torch.tensor([1.0, 0.0, 0.0])  # on the equator
    poses[1, :3, 3] = torch.tensor([0.0, 0.0, 3.0])  # at the pole
    poses[1, :3, 3] += torch.tensor([0.0, 1e-12, 0.0])
    pair = pinhole(300.0, 240, 320).with_poses(poses)
    expected = [-math.pi / 2, 1.0, 0.0, 1.0]  # a quarter turn up, a quarter turn left, 2 further out / 2
    assert zero123_pose(pair[0], pair[1], 2.0).tolist() == pytest.approx(expected, abs=1e-6)
