"""The Numba kernels of LazyAdam: a row of values and moments is read and written once."""

from __future__ import annotations

from methods.hash_manifold.grid.jit import adam_row, kernel, prefetch

_AHEAD = 16  # rows asked for in advance


@kernel
def move_listed(values, first, second, rows, gradients, settings, features):
    """Move the rows of flat tables [R * F]; gradients: flat [U * F], in the order of `rows` [U].

    settings: of `adam_row`. features: a tuple whose length is F.
    """
    width = len(features)
    for i in range(len(rows)):
        ahead = rows[min(i + _AHEAD, len(rows) - 1)] * width
        prefetch(values, ahead)
        prefetch(first, ahead)
        prefetch(second, ahead)
        adam_row(values, first, second, rows[i] * width, gradients, i * width, settings, features)


@kernel
def move_nonzero(values, first, second, begin, end, gradients, settings, features):
    """Move those of the rows begin ... end whose gradient, in flat `gradients` [R * F], is not zero."""
    width = len(features)
    for row in range(begin, end):
        at = row * width
        touched = False
        for f in range(width):
            touched |= gradients[at + f] != 0
        if touched:
            adam_row(values, first, second, at, gradients, at, settings, features)
