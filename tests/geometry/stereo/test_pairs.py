"""Which views are chosen to search a view's depth."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from geometry.stereo.pairs import best_sources, pair_scores

POINT = torch.tensor([[0.0, 0.0, 10.0]], dtype=torch.float64)


def score(angle: float) -> float:
    """Of two cameras that see one point at an angle in degrees."""
    turn = math.radians(angle)
    centers = torch.tensor([[0, 0, 0], [10 * math.sin(turn), 0, 10 - 10 * math.cos(turn)]]).double()
    scores = pair_scores(centers, POINT, torch.ones(2, 1, dtype=torch.bool))
    assert torch.equal(scores, scores.T)
    assert not scores.diagonal().any()
    return float(scores[0, 1])


@given(st.floats(0, 60))
def test_one_point_counts_by_its_angle(angle: float) -> None:
    width = 1 if angle < 5 else 10
    exponent = (angle - 5) ** 2 / (2 * width**2)
    # scores are float32: the exponent's rounding (2^-24 of it) is the relative error of the power
    assert score(angle) == pytest.approx(math.exp(-exponent), rel=1e-6 + exponent * 2**-23)


def test_only_shared_points_count_and_the_best_come_first() -> None:
    centers = torch.tensor([[0, 0, 0], [0.9, 0, 0], [0.9, 0, 0.01], [0.9, 0.01, 0]]).double()
    points = torch.rand(6, 3, generator=torch.Generator().manual_seed(0)).double() + POINT
    visible = torch.tensor(
        [[1, 1, 1, 1, 0, 0], [1, 1, 0, 0, 0, 0], [1, 1, 1, 0, 1, 1], [0, 0, 0, 0, 1, 1]]
    ).bool()
    scores = pair_scores(centers, points, visible)
    assert best_sources(scores, 0, 5) == [2, 1]  # 3 shares no point with 0
    assert best_sources(scores, 0, 1) == [2]
