"""Planes seen through homographies, compiled for the CPU; `geometry.planes` holds the readable twins.

Nothing of the size of all planes is made: a block of pixels marches through the planes, near to far. What the
kernels share: layers [D, h * w * 4], far to near, of h x w texels each (both at least 2). maps [D, 3, 3]
float64, from the column and row of a new pixel (integers, 0 for the first) to coordinates on the planes.
texels: (h, w) as far as they hold anything (1 where a column or row of zeros was added), the numbers in a row
of them, and the coordinates (x and y alike) of the middle of the first. beyond: what is seen beyond the edges
of a plane. Kernels are handed the rows top ... bottom of the new image, and write to nothing else.
"""

from __future__ import annotations

import numpy as np

from geometry.jit import kernel as _kernel
from geometry.plane_texels import blend_pixel

BLOCK = 320  # columns of a block of pixels
VECTOR = 16  # pixels that are worked on side by side: loops over fewer take as long
ROWS = 8  # of a block: neighbours read the same texels, which stay in the cache
# A pixel through which less shines is not followed any further. What it misses then is less than this times
# the largest colour; float32 counts 1e-8 through an opaque plane.
DARK = 2e-8
_TINY = 1e-8  # of geometry.planes
# Beyond the edges of a plane: nothing; its nearest texel, but nothing behind the camera; its nearest texel.
NOTHING, BACKDROP, EDGE = 0, 1, 2


def kernel(function):
    """As `geometry.jit.kernel`; products and sums may fuse."""
    return _kernel(function, fastmath={"contract"})


@kernel
def _narrow(first, last, slope, value):
    """Of the columns first ... last, those where slope * column + value > 0, and perhaps one more a side."""
    if slope == 0:
        return first, (last if value > 0 else first)
    zero = min(max(-value / slope, -1.0), 1e9)
    return (max(first, np.floor(zero)), last) if slope > 0 else (first, min(last, np.ceil(zero) + 1))


@kernel
def span(matrix, row, texels, beyond, columns):
    """Columns begin ... end of a row in which a plane may be seen."""
    if beyond == EDGE:
        return 0, columns
    a = matrix[0, 1] * row + matrix[0, 2]
    b = matrix[1, 1] * row + matrix[1, 2]
    c = matrix[2, 1] * row + matrix[2, 2]
    first, last = _narrow(0.0, float(columns), matrix[2, 0], c)
    if beyond == NOTHING:
        for limit, axis, value in ((texels[1], 0, a), (texels[0], 1, b)):
            depth = matrix[2, 0]
            slope, value = matrix[axis, 0] - texels[3] * depth, value - texels[3] * c
            first, last = _narrow(first, last, slope + depth, value + c)  # right of -1
            first, last = _narrow(first, last, depth * limit - slope, c * limit - value)  # left of `limit`
    return int(first), int(max(first, last))


@kernel
def part(first, last):
    """Begin and length of the part of a block that covers the columns first ... last: whole vectors."""
    begin = max(first, 0) // VECTOR * VECTOR
    length = max(min((last + VECTOR - 1) // VECTOR * VECTOR, BLOCK) - begin, 0)
    return begin, (length if last > first else 0)


@kernel
def make_scratch(kind):
    """For the pixels of a block: weights of the texels above, below, left and right, where the first of the
    four is, and of the mapped points the whole numbers and what is left of them.
    """
    weights = np.empty(BLOCK, kind), np.empty(BLOCK, kind), np.empty(BLOCK, kind), np.empty(BLOCK, kind)
    whole = np.empty(BLOCK, np.int32), np.empty(BLOCK, np.int32)
    return *weights, np.empty(BLOCK, np.int32), *whole, np.empty(BLOCK, kind), np.empty(BLOCK, kind)


@kernel
def _map(matrix, row, first, count, texels, beyond, scratch):
    """Fill in the mapped points of `count` pixels from column `first` on: at most one texel off the plane."""
    _, _, _, _, _, whole_x, whole_y, part_x, part_y = scratch
    a, slope_x = matrix[0, 1] * row + matrix[0, 2], matrix[0, 0]
    b, slope_y = matrix[1, 1] * row + matrix[1, 2], matrix[1, 0]
    c, slope_z = matrix[2, 1] * row + matrix[2, 2], matrix[2, 0]
    middle = texels[3]
    low = -1.0 if beyond == NOTHING else 0.0
    behind = -np.inf if beyond == EDGE else 0.0
    high_x, high_y = texels[1] - 1.0 - low, texels[0] - 1.0 - low
    for i in range(count):
        column = np.float64(np.int32(first + i))
        z = c + slope_z * column
        inverse = 1 / (z if z > 1e-20 else _TINY)
        x = (a + slope_x * column) * inverse - middle
        y = (b + slope_y * column) * inverse - middle
        x = x if x > low else low
        x = x if x < high_x else high_x
        y = y if y > low else low
        y = y if y < high_y else high_y
        x = x if z > behind else -1.0
        floor_x, floor_y = np.floor(x), np.floor(y)
        whole_x[i], whole_y[i] = np.int32(floor_x), np.int32(floor_y)
        part_x[i], part_y[i] = x - floor_x, y - floor_y


@kernel
def place(matrix, row, first, count, texels, beyond, scratch):
    """Fill in the scratch for `count` pixels from column `first` on.

    Weights are tents around the mapped point, so that they are zero wherever it is not between texels; the
    four texels are always within the plane.
    """
    _map(matrix, row, first, count, texels, beyond, scratch)
    top, bottom, left, right, at, whole_x, whole_y, part_x, part_y = scratch
    zero, one = np.int32(0), left.dtype.type(1)
    none = left.dtype.type(0)
    far_x, far_y = np.int32(max(texels[1] - 2, 0)), np.int32(max(texels[0] - 2, 0))
    stride = np.int32(texels[2])
    for i in range(count):
        x, y = whole_x[i], whole_y[i]
        x0 = x if x > zero else zero
        x0 = x0 if x0 < far_x else far_x
        y0 = y if y > zero else zero
        y0 = y0 if y0 < far_y else far_y
        across = part_x[i] + left.dtype.type(np.int32(x - x0))
        down = part_y[i] + left.dtype.type(np.int32(y - y0))
        p, q, t, u = one - abs(across), one - abs(across - one), one - abs(down), one - abs(down - one)
        left[i] = p if p > 0 else none
        right[i] = q if q > 0 else none
        top[i] = t if t > 0 else none
        bottom[i] = u if u > 0 else none
        at[i] = np.int32(np.int32(y0 * stride) + np.int32(x0 * np.int32(4)))


@kernel
def _blend(layer, count, stride, scratch, through, total, premultiplied, alphas):
    """Add a plane to the pixels of a row of a block, from its first on: [B] and [B * 4]; alphas: [B]."""
    top, bottom, left, right, at = scratch[:5]
    for i in range(count):
        start = np.int64(at[i])
        weights = top[i], bottom[i], left[i], right[i]
        alphas[i] = blend_pixel(
            layer, start, start + stride, *weights, through[i], premultiplied, total, np.int64(i * 4)
        )


@kernel
def _dim(through, disparity, alphas, count, value, slope):
    """Sum up disparity (value + slope * i), let through what the plane does; returns whether any is left."""
    one, tiny = through.dtype.type(1), through.dtype.type(_TINY)
    value, slope = through.dtype.type(value), through.dtype.type(slope)
    dark, bright = through.dtype.type(DARK), 0
    for i in range(count):
        before, alpha = through[i], alphas[i]
        disparity[i] += before * alpha * (value + slope * through.dtype.type(np.int32(i)))
        after = before * (one - alpha + tiny)
        through[i] = after
        bright += 1 if after > dark else 0
    return bright > 0


@kernel
def composite(layers, maps, rows, texels, premultiplied, backdrop, out, top, bottom):
    """Planes [D] seen from one camera. out [5, H, W]: red, green, blue, alpha, disparity.

    rows: [D, 3] float64, disparity of a new pixel (column, row, 1). Computed in the precision of `out`.
    """
    planes, columns, kind = len(layers), out.shape[2], out.dtype
    spans = np.empty((ROWS, planes, 2), np.int64)
    through, disparity = np.empty((ROWS, BLOCK), kind), np.empty((ROWS, BLOCK), kind)
    total, alphas = np.empty((ROWS, BLOCK * 4), kind), np.empty(BLOCK, kind)
    scratch = make_scratch(kind)
    exact = kind.type(1) + kind.type(_TINY) > 1  # even where a plane is not, 1e-8 more shines through
    for y in range(top, bottom, ROWS):
        high = min(ROWS, bottom - y)
        for r in range(high):
            for k in range(planes):
                beyond = BACKDROP if backdrop and k == 0 else NOTHING
                spans[r, k] = (0, columns) if exact else span(maps[k], y + r, texels, beyond, columns)
        for x in range(0, columns, BLOCK):
            end = min(x + BLOCK, columns)
            through[:], disparity[:], total[:] = 1, 0, 0
            through[:, end - x :] = 0
            _march(layers, maps, rows, texels, premultiplied, backdrop, spans, (y, high, x, end),
                   (through, disparity, total, alphas), scratch)  # fmt: skip
            for r in range(high):
                for i in range(end - x):
                    for channel in range(4):
                        out[channel, y + r, x + i] = total[r, i * 4 + channel]
                    out[4, y + r, x + i] = disparity[r, i]


@kernel
def _march(layers, maps, rows, texels, premultiplied, backdrop, spans, block, state, scratch):
    """Blend the planes into a block of pixels, near to far, as far as anything shines through."""
    y, high, x, end = block
    through, disparity, total, alphas = state
    bright = np.ones(high, np.bool_)
    for k in range(len(layers) - 1, -1, -1):
        for r in range(high):
            i, count = part(spans[r, k, 0] - x, min(spans[r, k, 1], end) - x)
            if count == 0 or not bright[r]:
                continue
            first = x + i
            place(maps[k], y + r, first, count, texels, BACKDROP if backdrop and k == 0 else NOTHING, scratch)
            behind = through[r, i:]
            _blend(layers[k], count, texels[2], scratch, behind, total[r, i * 4 :], premultiplied, alphas)
            value = rows[k, 0] * first + rows[k, 1] * (y + r) + rows[k, 2]
            left = _dim(behind, disparity[r, i:], alphas, count, value, rows[k, 0])
            bright[r] = left or count < end - x
