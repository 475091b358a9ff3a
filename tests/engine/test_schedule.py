"""Learning-rate schedules."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest

from engine.config import TrainingConfig
from engine.schedule import learning_rate_schedule


def _factors(**settings: object) -> list[float]:
    config = TrainingConfig(**{"steps": 101, "final_lr_factor": 0.01, **settings})  # type: ignore[arg-type]
    schedule = learning_rate_schedule(config)
    return [schedule(step) for step in range(config.steps)]


def test_constant() -> None:
    assert set(_factors(schedule="constant")) == {1.0}


def test_cosine_falls_along_half_a_cosine_to_the_final_factor() -> None:
    factors = _factors(schedule="cosine")
    assert factors[0] == 1
    assert factors[50] == pytest.approx(0.505)
    assert factors[25] == pytest.approx(0.01 + 0.99 * (1 + math.cos(math.pi / 4)) / 2)
    assert factors[100] == pytest.approx(0.01)


def test_exponential_falls_by_the_same_ratio_every_step() -> None:
    factors = _factors(schedule="exponential")
    assert factors[100] == pytest.approx(0.01)
    assert factors[50] == pytest.approx(0.1)
    ratios = [b / a for a, b in pairwise(factors)]
    assert max(ratios) - min(ratios) < 1e-12


@pytest.mark.parametrize("kind", ["constant", "cosine", "exponential"])
def test_warm_up_rises_linearly_from_zero_and_meets_the_schedule_at_one(kind: str) -> None:
    factors = _factors(schedule=kind, warmup_steps=10)
    assert factors[:11] == pytest.approx([i / 10 for i in range(11)])
    assert factors[-1] == pytest.approx(1 if kind == "constant" else 0.01)


def test_it_is_defined_beyond_the_last_step_and_for_a_warm_up_longer_than_the_run() -> None:
    schedule = learning_rate_schedule(TrainingConfig(steps=5, schedule="cosine", warmup_steps=20))
    assert schedule(4) == pytest.approx(0.2)
    assert schedule(1000) == pytest.approx(0.1)
