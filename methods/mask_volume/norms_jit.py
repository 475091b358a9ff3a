"""ReLU and the sums of a norm in one pass, compiled for the CPU."""

from __future__ import annotations

from functools import partial

import numpy as np

from geometry.jit import kernel


@partial(kernel, fastmath={"contract", "reassoc"})  # sums in any order can run side by side
def rectify(numbers, sums):
    """ReLU of numbers [n] in place (NaN stays NaN); `sums` [2] float64: of them, and of their squares."""
    total, squares = 0.0, 0.0
    for i in range(len(numbers)):
        value = numbers[i] if not numbers[i] < 0 else np.float32(0)
        numbers[i] = value
        total += float(value)
        squares += float(value) * float(value)
    sums[0], sums[1] = total, squares
