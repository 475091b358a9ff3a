from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from geometry.depth_seams import harmonic, honour_depth


def exactly_harmonic(values: Tensor, known: Tensor) -> Tensor:
    """The same by a dense linear system."""
    height, width = values.shape
    system, right = np.zeros((height * width,) * 2), np.zeros(height * width)
    for y in range(height):
        for x in range(width):
            i = y * width + x
            if known[y, x]:
                system[i, i], right[i] = 1, values[y, x]
                continue
            for v, u in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                if 0 <= v < height and 0 <= u < width:
                    system[i, i] += 1
                    system[i, v * width + u] -= 1
    return torch.from_numpy(np.linalg.solve(system, right)).reshape(height, width)


def smooth(height: int, width: int) -> Tensor:
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    return torch.sin(3 * x) + torch.cos(2 * y) * x


@given(st.integers(0, 1000), st.integers(2, 23), st.integers(2, 23))
@settings(max_examples=25, deadline=None)
def test_harmonic_is_near_the_exact_solution_and_between_what_is_known(
    seed: int, height: int, width: int
) -> None:
    random = torch.Generator().manual_seed(seed)
    values = smooth(height, width)
    known = torch.rand(height, width, generator=random) < 0.1
    known[0, 0] = True
    filled = harmonic(values, known)
    assert torch.equal(filled[known], values[known])
    assert filled.min() >= values[known].min() - 1e-5
    assert filled.max() <= values[known].max() + 1e-5
    spread = max(float(values[known].max() - values[known].min()), 1e-6)
    error = (filled - exactly_harmonic(values, known)).abs().max() / spread
    assert error < 0.01


def test_a_hole_that_ends_at_the_image_is_near_the_exact_solution() -> None:
    values, known = smooth(30, 40), torch.zeros(30, 40, dtype=torch.bool)
    known[:, :18] = True
    error = (harmonic(values, known) - exactly_harmonic(values, known)).abs()
    assert error.max() < 1e-3


def test_harmonic_leaves_maps_alone_that_are_known_everywhere_or_nowhere() -> None:
    values = smooth(5, 6)
    for known in (torch.ones(5, 6, dtype=torch.bool), torch.zeros(5, 6, dtype=torch.bool)):
        assert torch.equal(harmonic(values, known), values)


@pytest.fixture
def half_known() -> tuple[Tensor, Tensor]:
    """A true depth map and which of it is known."""
    true = 2 + smooth(48, 64)
    known = torch.zeros(48, 64, dtype=torch.bool)
    known[:, :30] = True
    return true, known


def test_a_wrong_scale_is_undone_everywhere(half_known: tuple[Tensor, Tensor]) -> None:
    true, known = half_known
    met = honour_depth(true * 1.7, torch.where(known, true, 0.0))
    torch.testing.assert_close(met, true, rtol=1e-4, atol=0)


def test_known_depth_is_kept_and_the_seam_has_no_step(half_known: tuple[Tensor, Tensor]) -> None:
    true, known = half_known
    predicted = true * torch.exp(0.3 * smooth(48, 64)) + 0.2
    met = honour_depth(predicted, torch.where(known, true, 0.0))
    assert torch.equal(met[known], true[known])
    error = (met / true).log()
    slope = 0.3 * 3 / 64  # per pixel, of the prediction's own error
    assert (error[:, 30] - error[:, 29]).abs().max() < 2 * slope
    assert error[~known].abs().mean() < 0.6 * (predicted / true).log()[~known].abs().mean()


def test_a_few_wrong_pixels_on_the_rim_do_not_bend_the_hole(half_known: tuple[Tensor, Tensor]) -> None:
    true, known = half_known
    sparse = torch.where(known, true, 0.0)
    sparse[20:22, 28:30] *= 0.2
    met = honour_depth(true * 1.3, sparse)
    assert (met / true).log()[~known].abs().max() < 0.05


def test_nothing_known_or_everything_known() -> None:
    predicted, none = 1 + smooth(8, 9).abs(), torch.zeros(8, 9)
    assert torch.equal(honour_depth(predicted, none), predicted)
    assert torch.equal(honour_depth(predicted, predicted * 2), predicted * 2)


def test_far_from_the_rim_a_prediction_keeps_to_itself() -> None:
    true = torch.full((40, 60), 2.0)
    known = torch.zeros(40, 60, dtype=torch.bool)
    known[:, :20] = True
    predicted = true.clone()
    predicted[:, 15:] *= 1.5  # wrong at the rim and beyond, right for most of what is known
    met = honour_depth(predicted, torch.where(known, true, 0.0), reach=4.0)
    ratio = met / true
    assert torch.equal(met[known], true[known])
    assert ratio[:, 20].max() < 1.05  # no step at the seam
    assert torch.allclose(ratio[:, -1], torch.tensor(1.5), rtol=1e-3)
    assert (ratio[:, 21:] >= ratio[:, 20:-1] - 1e-6).all()


def test_another_unit_is_put_right_however_far() -> None:
    true = torch.linspace(1, 3, 60).expand(40, 60)
    known = torch.zeros(40, 60, dtype=torch.bool)
    known[:, :20] = True
    met = honour_depth(true * 0.4, torch.where(known, true, 0.0), reach=4.0)
    torch.testing.assert_close(met, true, rtol=1e-3, atol=0)
