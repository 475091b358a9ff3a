"""The densest colour of each pixel's samples, compiled for the CPU."""

from __future__ import annotations

import numpy as np

from geometry.jit import kernel


@kernel
def _distance(samples, one, two):
    """The largest difference of two samples [T, 3] in any channel."""
    red = abs(samples[one, 0] - samples[two, 0])
    green = abs(samples[one, 1] - samples[two, 1])
    return max(red, green, abs(samples[one, 2] - samples[two, 2]))


@kernel
def _best(samples, radius, scores):
    """The sample [T, 3] around which most others lie, closely, within a radius. scores: [T], overwritten."""
    scores[:] = 0
    for one in range(len(samples)):
        for two in range(one):
            closeness = radius + 1 - _distance(samples, one, two)
            if closeness > 0:
                scores[one] += closeness
                scores[two] += closeness
    return scores.argmax()


@kernel
def _mean_around(samples, best, radius, found):
    """Write the rounded mean of the samples [T, 3] within a radius of the best one to found [3]."""
    red = green = blue = agreeing = 0
    for other in range(len(samples)):
        if _distance(samples, best, other) <= radius:
            agreeing += 1
            red += samples[other, 0]
            green += samples[other, 1]
            blue += samples[other, 2]
    found[0] = (2 * red + agreeing) // (2 * agreeing)
    found[1] = (2 * green + agreeing) // (2 * agreeing)
    found[2] = (2 * blue + agreeing) // (2 * agreeing)


@kernel
def densest(samples, radius):
    """samples [T, H, W, 3] uint8, radius in levels -> [H, W, 3] uint8: the rounded mean of the samples within
    the radius of the one around which most others lie.
    """
    count, height, width, _ = samples.shape
    found = np.empty((height, width, 3), np.uint8)
    pixel, scores = np.empty((count, 3), np.int32), np.empty(count, np.int32)
    for row in range(height):
        for column in range(width):
            for i in range(count):
                for channel in range(3):
                    pixel[i, channel] = samples[i, row, column, channel]
            _mean_around(pixel, _best(pixel, radius, scores), radius, found[row, column])
    return found
