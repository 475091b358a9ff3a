"""How much pixels differ by noise alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_SHARE = 0.25  # of the differences, the least, that noise alone explains: the rest may be movement
_QUANTILE = 0.31864  # of the absolute value of a normal variable, in standard deviations


def spread(differences: NDArray[np.integer]) -> float:
    """Standard deviation of the noise in absolute differences of 8-bit values, most of which may be movement.

    Read off the least quarter of them, between whole numbers as if each were spread over its rounding.
    """
    counts = np.bincount(differences.ravel(), minlength=1)
    below = np.cumsum(counts)
    wanted = _SHARE * below[-1]
    value = int(np.searchsorted(below, wanted))
    part = (wanted - (below[value] - counts[value])) / counts[value]
    low, high = max(value - 0.5, 0.0), value + 0.5
    return float((low + part * (high - low)) / _QUANTILE)
