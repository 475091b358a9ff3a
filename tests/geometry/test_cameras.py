"""Cameras: projection and its inverse, and intrinsics that keep step with images."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from geometry.cameras import Cameras, pinhole, stack_cameras
from geometry.poses import matrix_from_quaternion, pose

seeds = st.integers(0, 2**31 - 1)
SIZE = (9, 14)


def random_cameras(seed: int, shape: tuple[int, ...] = (3,)) -> Cameras:
    """Float64 cameras in general position: skew, off-centre principal points, different fx and fy."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float, *size: int) -> Tensor:
        return low + (high - low) * torch.rand((*shape, *size), generator=generator, dtype=torch.float64)

    K = torch.zeros(*shape, 3, 3, dtype=torch.float64)
    K[..., 0, 0], K[..., 1, 1], K[..., 0, 1] = uniform(5, 40), uniform(5, 40), uniform(-1, 1)
    K[..., 0, 2], K[..., 1, 2], K[..., 2, 2] = uniform(0, SIZE[1]), uniform(0, SIZE[0]), 1
    rotation = matrix_from_quaternion(torch.randn(*shape, 4, generator=generator, dtype=torch.float64))
    return Cameras(K, pose(rotation, uniform(-10, 10, 3)), *SIZE)


def random_depth(seed: int, shape: tuple[int, ...] = (3,)) -> Tensor:
    generator = torch.Generator().manual_seed(seed + 1)
    return 0.5 + 20 * torch.rand(*shape, *SIZE, generator=generator, dtype=torch.float64)


def points_in_view(cameras: Cameras, seed: int, n: int = 20) -> Tensor:
    """[..., n, 3] world points in front of each camera."""
    generator = torch.Generator().manual_seed(seed + 2)
    scattered = torch.rand(*cameras.shape, n, 3, generator=generator, dtype=torch.float64)
    local = scattered * torch.tensor([4, 4, 9.5]) + torch.tensor([-2, -2, 0.5])
    return local @ cameras.c2w[..., :3, :3].mT + cameras.center[..., None, :]


def close(actual: Tensor, expected: Tensor, atol: float = 1e-9) -> None:
    torch.testing.assert_close(actual, expected, atol=atol, rtol=1e-9)


@given(seeds, st.sampled_from([(), (3,), (2, 2)]))
@settings(max_examples=20, deadline=None)
def test_project_inverts_unproject(seed: int, shape: tuple[int, ...]) -> None:
    cameras, depth = random_cameras(seed, shape), random_depth(seed, shape)
    points = cameras.unproject(depth)
    assert points.shape == (*shape, *SIZE, 3)
    pixels, z = cameras.project(points.flatten(-3, -2))
    close(pixels, cameras.pixel_centers().reshape(-1, 2).expand_as(pixels))
    close(z, depth.flatten(-2))


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_rays_hit_the_points_that_project_to_their_pixels(seed: int) -> None:
    cameras = random_cameras(seed)
    points = points_in_view(cameras, seed)
    pixels, z = cameras.project(points)
    origins, directions = cameras.rays(pixels, unit=False)
    close(origins + z[..., None] * directions, points)
    origins, directions = cameras.rays(pixels)
    close(directions.norm(dim=-1), torch.ones_like(z))
    close(origins + (points - origins).norm(dim=-1, keepdim=True) * directions, points)
    close(origins, cameras.center[:, None].expand_as(origins))


@given(seeds)
@settings(max_examples=10, deadline=None)
def test_ray_maps_agree_with_unproject(seed: int) -> None:
    cameras, depth = random_cameras(seed, (2, 2)), random_depth(seed, (2, 2))
    origins, directions = cameras.rays(unit=False)
    assert origins.shape == directions.shape == (2, 2, *SIZE, 3)
    close(origins + depth[..., None] * directions, cameras.unproject(depth))


@given(seeds, st.integers(1, 40), st.integers(1, 40))
@settings(max_examples=20, deadline=None)
def test_resize_moves_pixels_with_the_image(seed: int, height: int, width: int) -> None:
    cameras = random_cameras(seed)
    points = points_in_view(cameras, seed)
    resized = cameras.resize(height, width)
    assert (resized.height, resized.width) == (height, width)
    pixels, z = cameras.project(points)
    moved, same_z = resized.project(points)
    close(moved, pixels * torch.tensor([width / SIZE[1], height / SIZE[0]], dtype=torch.float64), atol=1e-8)
    close(same_z, z)
    close(resized.resize(*SIZE).K, cameras.K)


@given(seeds, st.integers(-5, 5), st.integers(-5, 5))
@settings(max_examples=20, deadline=None)
def test_crop_shifts_pixels_and_keeps_rays(seed: int, top: int, left: int) -> None:
    cameras = random_cameras(seed)
    points = points_in_view(cameras, seed)
    before = cameras.K.clone()
    cropped = cameras.crop(top, left, 4, 6)
    assert (cropped.height, cropped.width) == (4, 6)
    shift = torch.tensor([left, top], dtype=torch.float64)
    close(cropped.project(points)[0], cameras.project(points)[0] - shift)
    close(
        cropped.rays()[1],
        cameras.rays((cropped.pixel_centers().reshape(-1, 2) + shift).expand(3, -1, 2))[1].reshape(
            3, 4, 6, 3
        ),
    )
    assert torch.equal(cameras.K, before)


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_relative_to_is_a_change_of_frame(seed: int) -> None:
    cameras = random_cameras(seed)
    reference = cameras[0]
    relative = cameras.relative_to(reference)
    close(relative.c2w[0], torch.eye(4, dtype=torch.float64))
    points = points_in_view(cameras, seed)
    in_reference = points @ reference.w2c[:3, :3].T + reference.w2c[:3, 3]
    for seen, expected in zip(relative.project(in_reference), cameras.project(points), strict=True):
        close(seen, expected, atol=1e-8)


def test_known_numbers() -> None:
    camera = pinhole(10, 4, 6)
    pixel, depth = camera.project(torch.tensor([[1.0, -0.5, 5]], dtype=torch.float64))
    close(pixel, torch.tensor([[5.0, 1]], dtype=torch.float64))  # x right, y down, centre at (3, 2)
    close(depth, torch.tensor([5.0], dtype=torch.float64))
    close(camera.pixel_centers()[0, 0], torch.tensor([0.5, 0.5], dtype=torch.float64))
    close(camera.pixel_centers()[3, 5], torch.tensor([5.5, 3.5], dtype=torch.float64))
    close(camera.focal, torch.tensor([10.0, 10], dtype=torch.float64))
    turned = pinhole(
        10, 4, 6, pose(torch.tensor([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]]), torch.tensor([7.0, 0, 0])).double()
    )
    pixel, depth = turned.project(torch.tensor([[9.0, 0, 0]], dtype=torch.float64))  # looks along world x
    close(pixel, torch.tensor([[3.0, 2]], dtype=torch.float64))
    close(depth, torch.tensor([2.0], dtype=torch.float64))


def test_points_behind_have_negative_depth() -> None:
    _, depth = pinhole(10, 4, 6).project(torch.tensor([[0.0, 0, -3], [0, 0, 0]], dtype=torch.float64))
    assert depth.tolist() == [-3, 0]


def test_indexing_reshape_length_and_time() -> None:
    cameras = random_cameras(0, (4,))
    cameras = Cameras(cameras.K, cameras.c2w, *SIZE, time=torch.arange(4.0))
    assert len(cameras) == 4
    assert cameras[2].shape == ()
    assert cameras[2].time == 2
    assert torch.equal(cameras[1:3].c2w, cameras.c2w[1:3])
    picked = cameras[torch.tensor([3, 0])]
    assert picked.time is not None
    assert picked.time.tolist() == [3, 0]
    grid = cameras.reshape(2, 2)
    assert grid.shape == (2, 2)
    assert torch.equal(grid[1, 0].K, cameras[2].K)
    assert torch.equal(grid.reshape(-1).c2w, cameras.c2w)
    with pytest.raises(TypeError, match="no length"):
        len(cameras[0])
    assert cameras.resize(3, 3).time is cameras.time


def test_to_changes_the_dtype_of_every_tensor() -> None:
    cameras = Cameras(*(torch.eye(n, dtype=torch.float64)[None] for n in (3, 4)), *SIZE, time=torch.zeros(1))
    single = cameras.to(torch.float16)
    assert single.K.dtype == single.c2w.dtype == torch.float16
    assert single.time is not None
    assert single.time.dtype == torch.float16


def test_with_poses_broadcasts_the_intrinsics() -> None:
    camera = random_cameras(1, ())
    poses = random_cameras(2, (2, 3)).c2w
    placed = camera.with_poses(poses)
    assert placed.shape == (2, 3)
    assert (placed.height, placed.width) == SIZE
    assert torch.equal(placed[1, 2].K, camera.K)
    assert torch.equal(placed.c2w, poses)


def test_stacking() -> None:
    cameras = [random_cameras(seed, ()) for seed in range(3)]
    stacked = stack_cameras(cameras)
    assert stacked.shape == (3,)
    for i, camera in enumerate(cameras):
        assert torch.equal(stacked[i].K, camera.K)
        assert torch.equal(stacked[i].c2w, camera.c2w)
    with pytest.raises(ValueError, match="different image sizes"):
        stack_cameras([cameras[0], cameras[1].resize(5, 5)])
    with pytest.raises(ValueError, match="cannot be stacked"):
        stack_cameras([])


def test_wrong_shapes_are_refused() -> None:
    K, c2w = torch.eye(3).expand(2, 3, 3), torch.eye(4).expand(2, 4, 4)
    for bad in ((K[:, :2], c2w), (K, c2w[:, :3]), (K, c2w[:1]), (K[0], c2w)):
        with pytest.raises(ValueError, match="need K"):
            Cameras(*bad, *SIZE)
    with pytest.raises(ValueError, match="time has shape"):
        Cameras(K, c2w, *SIZE, time=torch.zeros(3))
    with pytest.raises(ValueError, match="depth is"):
        Cameras(K, c2w, *SIZE).unproject(torch.ones(2, 3, 3))


def test_float32_stays_float32() -> None:
    cameras = random_cameras(0).to(torch.float32)
    pixels, depth = cameras.resize(5, 6).crop(1, 1, 3, 3).project(torch.ones(3, 2, 3))
    assert pixels.dtype == depth.dtype == cameras.rays()[1].dtype == torch.float32
