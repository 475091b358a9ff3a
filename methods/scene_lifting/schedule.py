"""The one-cycle schedule as a function of the step (Smith and Topin 2019; specs/scene_lifting 5)."""

from __future__ import annotations

import math

_FLAT = 0.7  # part of the training before the learning rate falls; momentum falls in it, and rises after it
_LAST_FACTOR = 1e-4  # of the learning rate, at the last step
_MOMENTA = (0.95, 0.85)  # beta1 at either end, and where the phases meet


def one_cycle(step: int, steps: int) -> tuple[float, float]:
    """Factor on the learning rate, and beta1, of optimiser step `step` (0 is the first) of `steps`.

    The factor stays at 1 and then falls along half a cosine; beta1 falls and rises along one.
    """
    turn, end = _FLAT * steps - 1, steps - 1
    if step <= turn:
        return 1.0, _cosine(*_MOMENTA, step / turn)
    progress = min(1.0, (step - turn) / (end - turn))
    return _cosine(1.0, _LAST_FACTOR, progress), _cosine(*_MOMENTA[::-1], progress)


def _cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * progress))
