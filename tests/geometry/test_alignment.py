"""Similarity transforms between frames."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geometry.alignment import Similarity, align_points, pose_errors
from geometry.cameras import Cameras, pinhole
from geometry.poses import matrix_from_quaternion


def random_similarity(seed: int) -> tuple[Similarity, torch.Generator]:
    generator = torch.Generator().manual_seed(seed)
    draw = torch.randn(8, generator=generator, dtype=torch.float64)
    return Similarity(float(draw[0].exp()), matrix_from_quaternion(draw[1:5]), draw[5:]), generator


def random_cameras(generator: torch.Generator, n: int) -> Cameras:
    c2w = torch.eye(4, dtype=torch.float64).repeat(n, 1, 1)
    c2w[:, :3, :3] = matrix_from_quaternion(torch.randn(n, 4, generator=generator, dtype=torch.float64))
    c2w[:, :3, 3] = torch.randn(n, 3, generator=generator, dtype=torch.float64)
    return pinhole(50.0, 48, 64).with_poses(c2w)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_a_similarity_is_found_again(seed: int) -> None:
    similarity, generator = random_similarity(seed)
    points = torch.randn(6, 3, generator=generator, dtype=torch.float64)
    found = align_points(points, similarity.points(points))
    assert found.scale == pytest.approx(similarity.scale, rel=1e-9)
    assert torch.allclose(found.rotation, similarity.rotation, atol=1e-7)
    assert torch.allclose(found.points(points), similarity.points(points), atol=1e-7)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_moved_cameras_see_the_moved_world_in_the_same_pixels(seed: int) -> None:
    similarity, generator = random_similarity(seed)
    cameras = random_cameras(generator, 4)
    points = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    pixels, depth = cameras.project(points)
    moved_pixels, moved_depth = similarity.cameras(cameras).project(similarity.points(points))
    assert torch.allclose(moved_pixels, pixels, rtol=1e-6, atol=1e-4)
    assert torch.allclose(moved_depth, depth * similarity.scale, atol=1e-8)
    errors = pose_errors(similarity.cameras(cameras), cameras)
    assert errors.centers.max() < 1e-7
    assert errors.rotations.max() < 1e-5


def test_errors_are_measured_after_alignment() -> None:
    similarity, generator = random_similarity(3)
    cameras = random_cameras(generator, 40)
    turned = similarity.cameras(cameras)
    turn = matrix_from_quaternion(torch.tensor([1, 0, 0, 0.01]).double())  # 1.146 degrees about the axis
    turned.c2w[:, :3, :3] = turned.c2w[:, :3, :3] @ turn
    turned.c2w[0, 0, 3] += 0.1 * similarity.scale
    errors = pose_errors(turned, cameras)
    assert errors.rotations[1:].median() == pytest.approx(1.146, abs=0.15)
    assert errors.centers[0] == pytest.approx(0.1, abs=0.02)
    assert errors.centers[1:].max() < 0.02


def test_mirrored_points_are_not_mirrored_back() -> None:
    points = torch.randn(9, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = align_points(points, points * torch.tensor([-1.0, 1, 1]))
    assert torch.linalg.det(found.rotation) == pytest.approx(1)


@pytest.mark.parametrize("points", [torch.zeros(2, 3), torch.ones(5, 3)])
def test_too_little_to_align_is_refused(points: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="3 points"):
        align_points(points, points)
