"""engine.depth_metrics: hidden pixels and the original's validation metrics against hand values."""

from __future__ import annotations

import math

import pytest
import torch

from engine.depth_metrics import crop_mask, hidden_scores, validation_scores


def maps(*rows: list[float]) -> torch.Tensor:
    return torch.tensor(rows)[None, None]


def test_hidden_scores_by_hand() -> None:
    truth, hidden = maps([2.0, 4.0, 1.0]), maps([1.0, 1.0, 0.0])
    scores = hidden_scores(maps([2.2, 0.0, 9.0]), truth, hidden)
    assert scores["mae"] == pytest.approx((0.2 + 4) / 2)
    assert scores["rmse"] == pytest.approx(math.sqrt((0.04 + 16) / 2))
    assert scores["abs_rel"] == pytest.approx((0.1 + 1) / 2)
    assert (scores["delta1"], scores["answered"]) == (0.5, 0.5)
    perfect = hidden_scores(truth, truth, hidden)
    assert (perfect["mae"], perfect["delta1"]) == (0, 1)


def test_what_cannot_be_scored_is_an_error() -> None:
    truth = maps([2.0, 0.0])
    with pytest.raises(ValueError, match="no hidden pixel"):
        hidden_scores(truth, truth, torch.zeros_like(truth))
    with pytest.raises(ValueError, match="no true depth"):
        hidden_scores(truth, truth, torch.ones_like(truth))
    with pytest.raises(ValueError, match="mask"):
        hidden_scores(truth, truth, 0.5 * torch.ones_like(truth))
    with pytest.raises(ValueError, match="no pixel"):
        validation_scores(truth, maps([0.0, 20.0]))


def test_validation_scores_by_hand() -> None:
    nan, inf = math.nan, math.inf
    scores = validation_scores(maps([1.0, nan, inf, 5.0]), maps([2.0, 1.0, 5.0, 12.0]))  # the last is too far
    assert scores["abs_rel"] == pytest.approx((0.5 + 0.999 + 1) / 3, rel=1e-5)
    assert scores["sq_rel"] == pytest.approx((0.5 + 0.999**2 + 5) / 3, rel=1e-5)
    assert scores["log_10"] == pytest.approx((math.log10(2) + 3 + math.log10(2)) / 3, rel=1e-5)
    assert scores["a3"] == 0
    logs = [math.log(0.5), math.log(1e-3), math.log(2)]
    mean = sum(logs) / 3
    variance = sum((value - mean) ** 2 for value in logs) / 3
    assert scores["silog"] == pytest.approx(100 * math.sqrt(variance), rel=1e-5)
    assert scores["rmse_log"] == pytest.approx(math.sqrt(sum(v * v for v in logs) / 3), rel=1e-5)


def test_crops() -> None:
    eigen = crop_mask(480, 640, "eigen")
    assert eigen.sum() == (471 - 45) * (601 - 41)
    assert eigen[45, 41]
    assert not eigen[44, 41]
    assert crop_mask(48, 64, "none").all()
    garg, kitti = crop_mask(100, 100, "garg"), crop_mask(100, 100, "eigen_kitti")
    assert (garg.any(1).sum(), kitti.any(1).sum()) == (99 - 40, 91 - 33)
    outside = maps([1.0] * 4, [9.0] * 4).repeat_interleave(50, 2).repeat_interleave(25, 3)
    truth = torch.ones(1, 1, 100, 100)
    assert validation_scores(outside, truth, "garg")["abs_rel"] > validation_scores(outside, truth)["abs_rel"]


def test_a_smaller_prediction_is_resized() -> None:
    scores = validation_scores(maps([1.0, 2.0]), maps([1.0, 1.5, 2.0]))
    assert scores["rmse"] == pytest.approx(0, abs=1e-6)
