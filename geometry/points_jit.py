"""Point splatting compiled for the CPU; `geometry.points` holds the readable twins."""

from __future__ import annotations

import math

import numpy as np

from geometry.jit import kernel


@kernel
def _reach(position, radius, size):
    """First and last + 1 of the pixels whose centres may lie closer than `radius` to `position`."""
    first = max(math.floor(position - 0.5 - radius), 0)
    return first, min(math.ceil(position - 0.5 + radius) + 1, size)


@kernel
def nearest(x, y, z, radius, height, width):
    """Index of the nearest point of every pixel [H W], -1 where none hits; equal z: the lower index.

    x, y: [P] float64 pixels. z: [P] float32, positive. radius: pixels.
    """
    winner = np.full(height * width, -1, np.int64)
    closest = np.full(height * width, np.inf, np.float32)
    limit = radius * radius
    for i in range(len(x)):
        left, right = _reach(x[i], radius, width)
        top, bottom = _reach(y[i], radius, height)
        for row in range(top, bottom):
            dy = y[i] - (row + 0.5)
            for column in range(left, right):
                dx = x[i] - (column + 0.5)
                at = row * width + column
                if dx * dx + dy * dy < limit and z[i] < closest[at]:
                    closest[at] = z[i]
                    winner[at] = i
    return winner


@kernel
def composite(x, y, values, radius, height, width, per_pixel):
    """Sums of the values and of their weights, [H W, C + 1] float64, over the first points of every pixel.

    x, y: [P] float64 pixels, nearest points first. values: [P, C]. A point weighs 1 - d^2 / radius^2, times
    what the points before it let through.
    """
    channels = values.shape[1]
    total = np.zeros((height * width, channels + 1), np.float64)
    through = np.ones(height * width, np.float64)
    count = np.zeros(height * width, np.int32)
    limit = radius * radius
    for i in range(len(x)):
        left, right = _reach(x[i], radius, width)
        top, bottom = _reach(y[i], radius, height)
        for row in range(top, bottom):
            dy = y[i] - (row + 0.5)
            for column in range(left, right):
                dx = x[i] - (column + 0.5)
                squared = dx * dx + dy * dy
                at = row * width + column
                if squared < limit and count[at] < per_pixel:
                    alpha = 1 - squared / limit
                    weight = alpha * through[at]
                    for channel in range(channels):
                        total[at, channel] += weight * values[i, channel]
                    total[at, channels] += weight
                    through[at] *= 1 - alpha
                    count[at] += 1
    return total
