"""Gaussians: from points, and turned with their world."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from geometry.cameras import Cameras
from geometry.gaussian_render import render_gaussians
from geometry.gaussians import (
    Gaussians,
    from_points,
    matrix_to_quaternion,
    multiply_quaternions,
    neighbour_distances,
    quaternions_to_matrices,
    rotate_gaussians,
)


def random_gaussians(count: int, seed: int, dtype: torch.dtype = torch.float64) -> Gaussians:
    """Gaussians of all shapes around (0, 0, 3)."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=dtype)

    return Gaussians(
        means=0.5 * normal(count, 3) + torch.tensor([0.0, 0, 3], dtype=dtype),
        log_scales=0.5 * normal(count, 3) - 2,
        quaternions=normal(count, 4),
        opacity_logits=normal(count, 1),
        sh_dc=normal(count, 1, 3),
        sh_rest=0.3 * normal(count, 15, 3),
    )


def camera(c2w: torch.Tensor | None = None) -> Cameras:
    K = torch.tensor([[50.0, 0, 21], [0, 48, 16], [0, 0, 1]], dtype=torch.float64)
    return Cameras(K, torch.eye(4, dtype=torch.float64) if c2w is None else c2w, 35, 40)


@given(seed=st.integers(0, 10**6))
@settings(max_examples=25, deadline=None)
def test_quaternions_are_those_of_scipy(seed: int) -> None:
    first, second = (Rotation.random(rng=seed + i) for i in (0, 1))
    quaternions = [torch.from_numpy(turn.as_quat(scalar_first=True)) for turn in (first, second)]
    matrices = [torch.from_numpy(turn.as_matrix()) for turn in (first, second)]
    torch.testing.assert_close(quaternions_to_matrices(3 * quaternions[0]), matrices[0])
    torch.testing.assert_close(quaternions_to_matrices(matrix_to_quaternion(matrices[0])), matrices[0])
    product = quaternions_to_matrices(multiply_quaternions(*quaternions))
    torch.testing.assert_close(product, matrices[0] @ matrices[1])


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_half_revolutions_have_quaternions(axis: int) -> None:
    rotation = -torch.eye(3, dtype=torch.float64)
    rotation[axis, axis] = 1
    quaternion = matrix_to_quaternion(rotation)
    torch.testing.assert_close(quaternion.abs(), torch.eye(4, dtype=torch.float64)[axis + 1])


@given(seed=st.integers(0, 10**6))
@settings(max_examples=10, deadline=None)
def test_a_turned_scene_looks_the_same_to_a_turned_camera(seed: int) -> None:
    scene = random_gaussians(30, seed)
    turn = torch.eye(4, dtype=torch.float64)
    turn[:3, :3] = torch.from_numpy(Rotation.random(rng=seed).as_matrix())
    expected = render_gaussians(scene, camera())
    made = render_gaussians(rotate_gaussians(scene, turn[:3, :3]), camera(turn))
    torch.testing.assert_close(made.image, expected.image, atol=1e-6, rtol=0)
    torch.testing.assert_close(made.opacity, expected.opacity, atol=1e-6, rtol=0)
    assert expected.image.std() > 0.02


def test_mirrors_are_refused() -> None:
    scene = random_gaussians(2, 0)
    for matrix in (torch.diag(torch.tensor([1.0, 1, -1])), 2 * torch.eye(3), torch.ones(3, 3)):
        with pytest.raises(ValueError, match="proper rotations"):
            rotate_gaussians(scene, matrix)


def test_sizes_follow_the_neighbours() -> None:
    x, y = torch.meshgrid(torch.arange(5.0), torch.arange(4.0), indexing="ij")
    points = torch.stack([x, y, torch.zeros_like(x)], dim=-1).reshape(-1, 3) * 0.5
    distances = neighbour_distances(points)
    assert distances[6] == pytest.approx(0.25)  # inside: three at 0.5
    assert distances[0] == pytest.approx((0.25 + 0.25 + 0.5) / 3)  # a corner: the third is the diagonal one
    made = from_points(points, torch.rand(20, 3), opacity=0.7, width=2.0)
    assert made.log_scales.exp()[6].tolist() == pytest.approx([1.0] * 3)
    assert made.opacity_logits.sigmoid()[0].item() == pytest.approx(0.7)


def test_few_points() -> None:
    for count in (0, 1, 2):
        made = from_points(torch.rand(count, 3), torch.rand(count, 3))
        assert len(made) == count
        assert made.log_scales.isfinite().all()


def test_colours_come_back() -> None:
    colors = torch.rand(6, 3)
    made = from_points(torch.rand(6, 3), colors)
    torch.testing.assert_close(made.colors(torch.tensor([0.0, 0, -5])), colors)


@pytest.mark.parametrize("opacity", [0.0, 1.0, -0.5])
def test_an_opacity_without_logit_is_refused(opacity: float) -> None:
    with pytest.raises(ValueError, match="opacity"):
        from_points(torch.rand(3, 3), torch.rand(3, 3), opacity)
