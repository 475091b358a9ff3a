"""Learning-rate factors as functions of the step, so that resuming needs no scheduler state."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.config import TrainingConfig


def learning_rate_schedule(config: TrainingConfig) -> Callable[[int], float]:
    """step (0 is the first) -> factor on every parameter group's base learning rate.

    `training.warmup_steps` steps rise linearly from `training.initial_lr_factor`; then the factor stays at 1
    ('constant') or falls to `training.final_lr_factor`, which the last step has, along half a cosine, a
    straight line or an exponential. 'multistep' multiplies it at every step of `training.milestones`, counted
    from the run's first; 'poly' is the part of the run that is left after the warm-up, to a power.
    """
    warmup, initial, final = config.warmup_steps, config.initial_lr_factor, config.final_lr_factor
    span = max(1, config.steps - 1 - warmup)

    def factor(step: int) -> float:
        if step < warmup:
            return initial + (1 - initial) * step / warmup
        if config.schedule == "multistep":
            return config.milestone_factor ** sum(step >= milestone for milestone in config.milestones)
        if config.schedule == "poly":
            left = (config.steps - step) / max(1, config.steps - warmup)
            return max(0.0, left) ** config.poly_power
        progress = min(1.0, (step - warmup) / span)
        if config.schedule == "cosine":
            return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))
        if config.schedule == "linear":
            return final + (1 - final) * (1 - progress)
        if config.schedule == "exponential":
            return final**progress
        return 1.0

    return factor
