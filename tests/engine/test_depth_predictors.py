"""engine.depth_predictors: who answers what, and how answers are aligned."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import torch

from common.errors import UserError
from dataloader.depth_models import DepthModel
from engine.depth_predictors import MODELS, Alignment, AlignmentKind, Predictors, monocular
from methods.baselines.depth_warp import DepthWarp, DepthWarpConfig
from tests.engine.depth_models import Middle, room_tasks


def test_every_model_answers() -> None:
    task = room_tasks()[0]
    predictors = Predictors(Middle(), lambda task: task.target.images.mean(1, keepdim=True) + 1)
    found = predictors(task, tuple(MODELS))
    assert set(found) == set(MODELS)
    assert all(depth.shape == task.sparse.shape for depth in found.values())
    known = task.sparse > 0
    for name in ("zero", "zoedepth"):
        before, after = ((found[n] - task.sparse)[known].square().sum() for n in (name, f"{name}_aligned"))
        assert after < before
    torch.testing.assert_close(found["nearest"][known], task.sparse[known])
    assert (found["zero"] < 1.2).all()
    assert (found["inpainted"] > 1.5).any()


def test_the_method_answers_once_for_plain_and_aligned() -> None:
    calls = []

    class Counted(Middle):
        def predict_depth(self, task: Any) -> torch.Tensor:
            calls.append(bool(task.sparse.any()))
            return super().predict_depth(task)

    Predictors(Counted())(room_tasks()[0], ("inpainted", "zero", "zero_aligned"))
    assert calls == [True, False]


def test_models_that_cannot_be_had() -> None:
    task = room_tasks()[0]
    for name in ("inpainted", "zoedepth", "other"):
        with pytest.raises(UserError, match=f"--models {name} cannot be had"):
            Predictors(None)(task, (name,))


def test_pixels_without_an_answer_stay_without() -> None:
    task = room_tasks()[0]
    depth = 2 * task.sparse + 1
    depth[task.sparse == 0] = 0
    aligned = Alignment()(depth, task, "zero_aligned")
    torch.testing.assert_close(aligned, task.sparse, rtol=0, atol=1e-5)
    nothing = torch.zeros_like(depth)
    assert torch.equal(Alignment()(nothing, task, "zero_aligned"), nothing)


@pytest.mark.parametrize("kind", ["least_squares", "robust", "descent"])
def test_alignment_is_deterministic(kind: AlignmentKind) -> None:
    task = room_tasks()[0]
    depth = 0.8 * task.sparse + 0.3
    one, again = (Alignment(kind, seed=3)(depth, task, "zero_aligned") for _ in range(2))
    assert torch.equal(one, again)
    other = Alignment(kind, seed=4)(depth, task, "zero_aligned")
    assert torch.equal(one, other) == (kind != "descent")
    renamed = Alignment(kind, seed=3)(depth, replace(task, name="else"), "zero_aligned")
    assert torch.equal(one, renamed) == (kind != "descent")


def test_a_depth_model_sees_the_photo_in_8_bits() -> None:
    seen = []

    def model(photo: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        seen.append((photo.dtype, photo.shape, size))
        return np.full(size, 2.5, np.float32)

    task = room_tasks()[0]
    depth = monocular(cast("DepthModel", model))(task)
    assert seen == [(np.dtype(np.uint8), (24, 32, 3), (24, 32))]
    assert depth.shape == (1, 1, 24, 32)
    assert (depth == 2.5).all()


def test_depth_warp_takes_part_without_a_scene() -> None:
    task = room_tasks()[0]
    depth = Predictors(DepthWarp.create(DepthWarpConfig()))(task, ("inpainted",))["inpainted"]
    both = (task.sparse > 0) & (depth > 0)
    assert both.double().mean() > 0.2
    assert (depth - task.sparse)[both].abs().median() < 0.1


def test_an_estimate_knows_nothing() -> None:
    task = room_tasks()[0]
    estimate = Predictors(Middle()).estimate(task.source)
    torch.testing.assert_close(estimate, 1 + 0.1 * task.source.images.mean(1, keepdim=True))
