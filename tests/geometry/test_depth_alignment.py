"""geometry.depth_alignment: fits that are exact where they can be, robust or the original's where asked."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geometry.cameras import pinhole
from geometry.depth_alignment import DepthFit, fit_descent, fit_least_squares, fit_robust


def depth_map(seed: int = 0) -> torch.Tensor:
    return 1 + 4 * torch.rand(12, 16, generator=torch.Generator().manual_seed(seed))


def everywhere(depth: torch.Tensor) -> torch.Tensor:
    return torch.ones_like(depth, dtype=torch.bool)


@settings(max_examples=30, deadline=None)
@given(st.floats(0.1, 10), st.floats(-5, 5), st.integers(0, 1000))
def test_a_linear_change_is_undone(scale: float, offset: float, seed: int) -> None:
    depth = depth_map(seed)
    target = DepthFit(scale, offset)(depth.double())
    for fit in (fit_least_squares, fit_robust):
        found = fit(depth, target, everywhere(depth))
        torch.testing.assert_close(found(depth.double()), target, rtol=1e-6, atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000))
def test_least_squares_is_the_minimum(seed: int) -> None:
    depth, target = depth_map(seed).double(), depth_map(seed + 1).double()
    known = depth_map(seed + 2) > 2
    weights = depth_map(seed + 3).double()
    found = fit_least_squares(depth, target, known, weights)

    def cost(fit: DepthFit) -> float:
        return float((weights * (fit(depth) - target) ** 2)[known].sum())

    for change in (DepthFit(1e-3, 0), DepthFit(-1e-3, 0), DepthFit(0, 1e-3), DepthFit(0, -1e-3)):
        assert cost(found) < cost(DepthFit(found.scale + change.scale, found.offset + change.offset))


def test_unknown_pixels_and_zero_weights_do_not_count() -> None:
    depth = depth_map()
    target = 2 * depth + 1
    target[:3] = 100
    known = everywhere(depth)
    known[:3] = False
    assert fit_least_squares(depth, target, known).scale == pytest.approx(2, abs=1e-5)
    weights = known.float().clamp(min=1e-12)
    assert fit_least_squares(depth, target, everywhere(depth), weights).scale == pytest.approx(2, abs=1e-5)


def test_few_wrong_pixels_hardly_move_the_robust_fit() -> None:
    depth = depth_map()
    target = 2 * depth + 1
    target[:2] = 50
    robust = fit_robust(depth, target, everywhere(depth))
    assert robust.scale == pytest.approx(2, abs=1e-3)
    assert robust.offset == pytest.approx(1, abs=5e-3)
    assert abs(fit_least_squares(depth, target, everywhere(depth)).offset - 1) > 0.5


def test_a_constant_depth_is_shifted_only() -> None:
    depth = torch.full((4, 4), 3.0)
    for fit in (fit_least_squares, fit_robust):
        assert fit(depth, depth + 2, everywhere(depth)) == DepthFit(1.0, 2.0)


def test_nothing_known_is_an_error() -> None:
    depth = depth_map()
    for fit in (fit_least_squares, fit_robust):
        with pytest.raises(ValueError, match="no known pixel"):
            fit(depth, depth, depth < 0)


def test_the_descent_depends_on_where_it_starts() -> None:
    depth, camera = depth_map(), pinhole(16.0, 12, 16)
    target = 1.2 * depth + 0.1
    fits = [fit_descent(depth, target, everywhere(depth), camera, offset) for offset in (0.1, 0.9, 0.9)]
    assert fits[1] == fits[2]
    assert fits[0] != fits[1]
    before, after = ((fit(depth) - target).abs().mean() for fit in (DepthFit(1, 0.9), fits[1]))
    assert after < 0.2 * before


def test_the_descent_has_nothing_to_go_by_without_known_pixels() -> None:
    depth = depth_map()
    assert fit_descent(depth, depth, depth < 0, pinhole(16.0, 12, 16), 0.5) == DepthFit(1.0, 0.5)
