"""The gradient of `geometry.plane_jit.composite` by the layers, compiled for the CPU.

In two steps, for some rows of the new image at a time: `sample_gradients` finds the gradient by what every
pixel sees of every plane, each thread for other pixels, and `add_to_layer` adds that to the texels it was
sampled from, each thread for other planes. So no two threads write to the same place, sums are in the same
order for any number of threads, and there is no division by what a plane lets through. The words are those of
`geometry.plane_jit`.
"""

from __future__ import annotations

import numpy as np

from geometry.plane_jit import BACKDROP, BLOCK, NOTHING, kernel, make_scratch, part, place, span
from geometry.plane_texels import add_pixel, sample_pixel

_TINY = 1e-8  # of geometry.planes


@kernel
def _sample(layers, maps, texels, backdrop, spans, block, samples, through, scratch):
    """Samples [D, B * 4] of a block of pixels in one row, and what shines through to each [D, B]."""
    row, x, end = block
    one, tiny = through.dtype.type(1), through.dtype.type(_TINY)
    light = np.ones(BLOCK, through.dtype)
    for k in range(len(layers) - 1, -1, -1):
        through[k] = light
        i, count = part(spans[k, 0] - x, min(spans[k, 1], end) - x)
        if count == 0:
            samples[k] = 0
        else:
            samples[k, : i * 4] = 0
            samples[k, (i + count) * 4 :] = 0
            place(maps[k], row, x + i, count, texels, BACKDROP if backdrop and k == 0 else NOTHING, scratch)
            top, bottom, left, right, at = scratch[:5]
            for j in range(count):
                start, to = np.int64(at[j]), np.int64((i + j) * 4)
                weights = top[j], bottom[j], left[j], right[j]
                sample_pixel(layers[k], start, start + texels[2], *weights, samples[k], to)
        for j in range(end - x):
            light[j] *= one - samples[k, j * 4 + 3] + tiny


@kernel
def _differentiate(samples, through, rows, premultiplied, pull, block, result):
    """Write to result [D, rows, W * 4] the gradients by the samples, for those [5, H, W] by the outputs."""
    row, x, end, line = block
    one, tiny = through.dtype.type(1), through.dtype.type(_TINY)
    behind = np.zeros(BLOCK, through.dtype)  # how the loss feels what is farther, were nothing nearer
    for k in range(len(samples)):
        value, slope = rows[k, 1] * row + rows[k, 2], rows[k, 0]
        for j in range(end - x):
            column = x + j
            r, g, b = pull[0, row, column], pull[1, row, column], pull[2, row, column]
            own = pull[3, row, column] + pull[4, row, column] * through.dtype.type(value + slope * column)
            at = j * 4
            color = r * samples[k, at] + g * samples[k, at + 1] + b * samples[k, at + 2]
            alpha, light = samples[k, at + 3], through[k, j]
            if premultiplied:
                by_color, by_alpha, felt = light, own, color + alpha * own
            else:
                by_color, by_alpha, felt = light * alpha, own + color, alpha * (own + color)
            to = column * 4
            result[k, line, to] = by_color * r
            result[k, line, to + 1] = by_color * g
            result[k, line, to + 2] = by_color * b
            result[k, line, to + 3] = light * (by_alpha - behind[j])
            behind[j] = felt + (one - alpha + tiny) * behind[j]


@kernel
def sample_gradients(layers, maps, rows, texels, premultiplied, backdrop, pull, result, first, top, bottom):
    """Gradients by what the pixels of rows top ... bottom sample: result [D, R, W * 4], from row `first` on.

    pull: [5, H, W], gradient by the output of `composite`, in whose precision all is computed.
    """
    planes, columns = len(layers), pull.shape[2]
    samples, through = np.empty((planes, BLOCK * 4), pull.dtype), np.empty((planes, BLOCK), pull.dtype)
    scratch, spans = make_scratch(pull.dtype), np.empty((planes, 2), np.int64)
    for row in range(top, bottom):
        for k in range(planes):
            spans[k] = span(maps[k], row, texels, BACKDROP if backdrop and k == 0 else NOTHING, columns)
        for x in range(0, columns, BLOCK):
            end = min(x + BLOCK, columns)
            _sample(layers, maps, texels, backdrop, spans, (row, x, end), samples, through, scratch)
            block = row, x, end, row - first
            _differentiate(samples, through, rows, premultiplied, pull, block, result)


@kernel
def add_to_layer(gradient, matrix, texels, beyond, source, columns, top, bottom):
    """Add to a plane's gradient [h * w * 4] that by its samples [R, W * 4] in rows top ... bottom."""
    scratch = make_scratch(gradient.dtype)
    above, below, left, right, at = scratch[:5]
    for row in range(top, bottom):
        first, last = span(matrix, row, texels, beyond, columns)
        for x in range(0, columns, BLOCK):
            end = min(x + BLOCK, columns)
            i, count = part(first - x, min(last, end) - x)
            place(matrix, row, x + i, count, texels, beyond, scratch)
            line = source[row - top]
            for j in range(min(count, end - x - i)):
                start = np.int64(at[j])
                weights = above[j], below[j], left[j], right[j]
                add_pixel(gradient, start, start + texels[2], *weights, line, np.int64((x + i + j) * 4))
