"""Lifting depth maps: triangles, pruning, holes, and the scale of depth."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from geometry.cameras import Cameras, pinhole
from geometry.lifting import (
    depth_scale,
    disparity_to_depth,
    lift_depth,
    lift_points,
    normalise_depth,
    resize_disparity,
)
from geometry.poses import matrix_from_quaternion, pose

seeds = st.integers(0, 2**31 - 1)


def random_camera(seed: int, height: int, width: int) -> Cameras:
    """A float64 camera with skew and an off-centre principal point, in general position."""
    generator = torch.Generator().manual_seed(seed)
    u = torch.rand(9, generator=generator, dtype=torch.float64)
    K = torch.tensor(
        [[20 + 30 * u[0], u[1] - 0.5, width * u[2]], [0, 20 + 30 * u[3], height * u[4]], [0, 0, 1]],
        dtype=torch.float64,
    )
    rotation = matrix_from_quaternion(torch.randn(4, generator=generator, dtype=torch.float64))
    return Cameras(K, pose(rotation, 10 * u[5:8]), height, width)


def random_depth(seed: int, height: int = 7, width: int = 9) -> Tensor:
    generator = torch.Generator().manual_seed(seed + 1)
    return 1 + 3 * torch.rand(height, width, generator=generator)


@given(seeds)
@settings(max_examples=25, deadline=None)
def test_vertices_project_onto_the_pixel_centres_at_their_depth(seed: int) -> None:
    depth = random_depth(seed)
    camera = random_camera(seed, *depth.shape)
    mesh = lift_depth(depth, camera, max_angle=None)
    pixels, z = camera.project(mesh.vertices)
    torch.testing.assert_close(pixels, camera.pixel_centers().reshape(-1, 2), rtol=0, atol=1e-8)
    torch.testing.assert_close(z, depth.double().flatten(), rtol=1e-9, atol=0)


def test_triangles_of_one_cell_in_the_original_order() -> None:
    mesh = lift_depth(torch.ones(2, 3), pinhole(5.0, 2, 3), max_angle=None)
    assert mesh.faces.tolist() == [[0, 3, 4], [1, 4, 5], [0, 4, 1], [1, 5, 2]]


def slow_faces(depth: Tensor, camera: Cameras, max_angle: float) -> list[list[int]]:
    """The rule of the specification, one triangle at a time."""
    height, width = depth.shape
    rays = torch.linalg.inv(camera.K)
    points = torch.stack(
        [
            depth[i, j].double() * (rays @ torch.tensor([j + 0.5, i + 0.5, 1.0], dtype=torch.float64))
            for i in range(height)
            for j in range(width)
        ]
    )
    corners = [(0, width, width + 1), (0, width + 1, 1)]
    kept = []
    for offsets in corners:
        for i in range(height - 1):
            for j in range(width - 1):
                face = [i * width + j + offset for offset in offsets]
                a, b, c = points[face]
                if not all(depth.flatten()[face] > 0):
                    continue
                normal, towards = torch.linalg.cross(b - a, c - b), -(a + b + c) / 3
                cosine = normal @ towards / (normal.norm() * towards.norm())
                if cosine > np.cos(np.deg2rad(max_angle)):
                    kept.append(face)
    return kept


@given(seeds, st.floats(20, 89))
@settings(max_examples=20, deadline=None)
def test_pruning_keeps_the_triangles_of_the_slow_rule(seed: int, max_angle: float) -> None:
    depth = random_depth(seed)
    depth[torch.rand(depth.shape, generator=torch.Generator().manual_seed(seed)) < 0.1] = 0  # holes
    camera = random_camera(seed, *depth.shape)
    colors = torch.arange(depth.numel()).reshape(*depth.shape, 1).expand(-1, -1, 3) / depth.numel()
    mesh = lift_depth(depth, camera, colors, max_angle)
    expected = slow_faces(depth, camera, max_angle)
    assert mesh.colors is not None
    raster = (mesh.colors[:, 0] * depth.numel()).round().long()  # which pixel a vertex came from
    assert raster[mesh.faces].tolist() == expected
    assert raster.tolist() == sorted({corner for face in expected for corner in face})


@pytest.mark.parametrize("unknown", [0.0, -1.0, float("nan"), float("inf")])
def test_unknown_depth_carries_no_vertex(unknown: float) -> None:
    depth = torch.ones(4, 5)
    depth[1, 2] = unknown
    mesh = lift_depth(depth, pinhole(5.0, 4, 5))
    assert len(mesh.vertices) == 19
    assert torch.isfinite(mesh.vertices).all()
    assert len(mesh.faces) == 2 * 3 * 4 - 6  # six triangles share an inner vertex


def test_points_keep_every_known_depth_and_their_colors() -> None:
    depth = random_depth(3)
    depth[2, 4] = 0
    colors = torch.rand(*depth.shape, 3)
    camera = random_camera(3, *depth.shape)
    cloud = lift_points(depth, camera, colors)
    known = depth.flatten() > 0
    assert cloud.faces.shape == (0, 3)
    torch.testing.assert_close(cloud.vertices, camera.unproject(depth.double()).reshape(-1, 3)[known])
    torch.testing.assert_close(cloud.colors, colors.reshape(-1, 3)[known])


def test_large_world_coordinates_keep_their_digits() -> None:
    depth, camera = random_depth(5), random_camera(5, 7, 9)
    offset = torch.tensor([500_000.0, 5_400_000.0, 300.0], dtype=torch.float64)
    far = Cameras(camera.K, camera.c2w.clone(), 7, 9)
    far.c2w[:3, 3] += offset
    moved, still = lift_depth(depth, far), lift_depth(depth, camera)
    assert torch.equal(moved.faces, still.faces)
    torch.testing.assert_close(moved.vertices - offset, still.vertices, rtol=0, atol=1e-8)


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="depth is"):
        lift_depth(torch.ones(3, 4), pinhole(5.0, 4, 3))
    with pytest.raises(ValueError, match="one camera"):
        lift_depth(torch.ones(3, 4), pinhole(5.0, 3, 4).reshape(1))
    with pytest.raises(ValueError, match="colors are"):
        lift_depth(torch.ones(3, 4), pinhole(5.0, 3, 4), torch.ones(4, 3, 3))
    with pytest.raises(ValueError, match="empty"):
        depth_scale(torch.ones(0, 4))


@given(seeds, st.floats(0, 1))
@settings(max_examples=25, deadline=None)
def test_depth_scale_is_the_percentile_of_numpy(seed: int, quantile: float) -> None:
    depth = random_depth(seed)
    assert depth_scale(depth, quantile) == pytest.approx(
        np.percentile(depth.numpy(), 100 * quantile), rel=1e-6
    )


def test_normalised_depth_is_one_at_its_percentile_and_ends_at_the_sky() -> None:
    disparity = torch.tensor([[0.5, 0.0], [0.25, -3.0], [1.0, 0.125]])
    depth = disparity_to_depth(disparity)
    torch.testing.assert_close(depth, torch.tensor([[2.0, 1000.0], [4.0, 1000.0], [1.0, 8.0]]))
    normalised = normalise_depth(depth)  # rank 0.2 * 5 = 1: the second smallest, 2
    torch.testing.assert_close(normalised, torch.tensor([[1.0, 100.0], [2.0, 100.0], [0.5, 4.0]]))


def test_resizing_disparity_keeps_what_is_flat_and_what_is_the_same_size() -> None:
    flat = torch.full((8, 12), 0.25)
    torch.testing.assert_close(resize_disparity(flat, 19, 5), torch.full((19, 5), 0.25))
    ramp = torch.arange(96.0).reshape(8, 12)
    torch.testing.assert_close(resize_disparity(ramp, 8, 12), ramp)
    doubled = resize_disparity(ramp, 16, 24)  # pixel areas stay aligned, so a ramp stays centred
    torch.testing.assert_close(doubled.mean(), ramp.mean())
