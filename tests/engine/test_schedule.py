"""Learning-rate schedules."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest

from common.errors import UserError
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


def test_multistep_multiplies_at_every_milestone() -> None:
    factors = _factors(schedule="multistep", milestones=(70, 40), milestone_factor=0.5, warmup_steps=2)
    assert factors[:3] == [0, 0.5, 1]
    assert [factors[i] for i in (39, 40, 69, 70, 100)] == [1, 0.5, 0.5, 0.25, 0.25]


def test_poly_is_a_power_of_what_is_left() -> None:
    factors = _factors(schedule="poly", warmup_steps=21)
    assert factors[21] == 1
    assert factors[61] == pytest.approx(0.5**0.9)
    assert factors[100] == pytest.approx((1 / 80) ** 0.9)
    assert learning_rate_schedule(TrainingConfig(steps=5, schedule="poly"))(7) == 0
    squared = TrainingConfig(steps=5, schedule="poly", poly_power=2.0, warmup_steps=5)
    assert learning_rate_schedule(squared)(4) == pytest.approx(0.8)


@pytest.mark.parametrize(
    "settings", [{"milestones": (0,)}, {"milestone_factor": -1.0}, {"poly_power": 0.0}], ids=str
)
def test_impossible_settings_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(UserError, match=f"training.{next(iter(settings))}"):
        TrainingConfig(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["constant", "cosine", "exponential"])
def test_warm_up_rises_linearly_from_zero_and_meets_the_schedule_at_one(kind: str) -> None:
    factors = _factors(schedule=kind, warmup_steps=10)
    assert factors[:11] == pytest.approx([i / 10 for i in range(11)])
    assert factors[-1] == pytest.approx(1 if kind == "constant" else 0.01)


def test_it_is_defined_beyond_the_last_step_and_for_a_warm_up_longer_than_the_run() -> None:
    schedule = learning_rate_schedule(TrainingConfig(steps=5, schedule="cosine", warmup_steps=20))
    assert schedule(4) == pytest.approx(0.2)
    assert schedule(1000) == pytest.approx(0.1)
