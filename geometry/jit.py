"""How kernels are compiled with Numba."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def kernel(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """Compile on the first call, without the interpreter lock, and keep the result on disk where some folder
    can be written. Further options are those of `numba.njit`.
    """
    options = {"nogil": True, "error_model": "numpy", **options}
    try:
        return numba.njit(function, cache=True, **options)
    except RuntimeError:  # Numba found no folder for its cache
        return numba.njit(function, **options)
