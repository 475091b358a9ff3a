"""Spherical harmonics: orthonormal, with the signs of 3DGS, and turned by rotations."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from geometry.spherical_harmonics import SH_DC, evaluate_sh, harmonics, rgb_to_dc, rotate_sh


def sphere(count: int) -> torch.Tensor:
    """Directions [count, 3] whose mean stands for the mean over the sphere."""
    index = torch.arange(count, dtype=torch.float64) + 0.5
    z = 1 - 2 * index / count
    angle = math.pi * (3 - math.sqrt(5)) * index
    return torch.stack([(1 - z * z).sqrt() * angle.cos(), (1 - z * z).sqrt() * angle.sin(), z], dim=-1)


def test_the_functions_are_orthonormal() -> None:
    basis = harmonics(sphere(40000))
    basis = torch.cat([torch.full_like(basis[:, :1], SH_DC), basis], dim=1)
    product = 4 * math.pi * basis.T @ basis / len(basis)
    torch.testing.assert_close(product, torch.eye(16, dtype=torch.float64), atol=1e-3, rtol=0)


def test_the_first_band_is_minus_y_z_minus_x() -> None:
    axes = harmonics(torch.eye(3, dtype=torch.float64))[:, :3]
    value = math.sqrt(3 / (4 * math.pi))
    expected = [[0, 0, -value], [-value, 0, 0], [0, value, 0]]
    torch.testing.assert_close(axes, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("count", [0, 3, 8, 15])
@given(seed=st.integers(0, 10**6))
@settings(max_examples=10, deadline=None)
def test_turned_coefficients_give_the_turned_function(count: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    rotation = torch.from_numpy(Rotation.random(rng=seed).as_matrix())
    dc, rest = (torch.randn(5, n, 3, generator=generator, dtype=torch.float64) for n in (1, count))
    directions = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    turned = evaluate_sh(dc, rotate_sh(rest, rotation), directions @ rotation.T)
    torch.testing.assert_close(turned, evaluate_sh(dc, rest, directions))


def test_a_constant_gives_its_colour_from_everywhere() -> None:
    rgb = torch.rand(4, 3)
    made = 0.5 + evaluate_sh(rgb_to_dc(rgb)[:, None], torch.zeros(4, 15, 3), torch.randn(4, 3))
    torch.testing.assert_close(made, rgb)
