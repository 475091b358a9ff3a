"""Numba kernels of the hash grid. Imported, and so compiled, only when the first points are encoded on a CPU.

Each kernel works on one level and one range of points or of table rows, so that no two of them write to the
same place, and adds up in the order of the points: results do not depend on the number of threads.

What the kernels share: points [D, N] float32. level: (scale, size, offset in entries, hashed, factors [D],
mode). Tables, features and their gradients are flat; `axes` and `features` are tuples whose lengths are D
and F. An integer that leaves 32 bits wraps when it is stored in an array of uint32.
"""

from __future__ import annotations

import numpy as np

from methods.hash_manifold.grid.jit import add_row, count_bits, dot_rows, kernel, prefetch

LINEAR, NEAREST, SMOOTHSTEP = 0, 1, 2
WORD = 64  # entries per word of the bitmap
_BLOCK = 64  # points worked on at a time: their corners stay in the first-level cache


@kernel
def _scratch(axes):
    """Arrays for a block: sides, slopes [2D, B], terms [2D, B], addresses [2^D, B], weights [2^D, B]."""
    rows, corners = 2 * len(axes), 1 << len(axes)
    return (
        np.empty((rows, _BLOCK), np.float32),
        np.empty((rows, _BLOCK), np.float32),
        np.empty((rows, _BLOCK), np.uint32),
        np.empty((corners, _BLOCK), np.uint32),
        np.empty((corners, _BLOCK), np.float32),
    )


@kernel
def _locate(points, begin, count, level, axes, scratch):
    """Fill in, per axis and side: the weight, its derivative by the coordinate, the term of the address."""
    scale, _, _, _, factors, mode = level
    sides, slopes, terms, _, _ = scratch
    one, three, six = np.float32(1), np.float32(3), np.float32(6)
    for axis in range(len(axes)):
        factor = factors[axis]
        for i in range(count):
            coordinate = np.float32(np.float64(scale) * np.float64(points[axis, begin + i]) + 0.5)
            lower = np.floor(coordinate)
            upper = coordinate - lower
            slope = one
            if mode == SMOOTHSTEP:
                slope = six * upper * (one - upper)
                upper = upper * upper * (three - (upper + upper))
            elif mode == NEAREST:
                slope = upper = np.float32(0)
            cell = np.int64(lower)
            sides[2 * axis, i] = one - upper
            sides[2 * axis + 1, i] = upper
            slopes[2 * axis, i] = -slope
            slopes[2 * axis + 1, i] = slope
            terms[2 * axis, i] = cell * factor
            terms[2 * axis + 1, i] = (cell + 1) * factor


@kernel
def _corners(points, begin, count, level, axes, scratch):
    """Fill in addresses and weights of the corners of points begin ... begin + count, at most _BLOCK.

    Returns the number of corners that count: one with 'Nearest'.
    """
    _locate(points, begin, count, level, axes, scratch)
    _, size, _, hashed, _, mode = level
    sides, _, terms, addresses, weights = scratch
    corners = 1 if mode == NEAREST else 1 << len(axes)
    mask = np.uint32(size - 1)  # sizes of hashed levels are powers of two
    for corner in range(corners):
        for i in range(count):
            index = terms[corner & 1, i]
            weight = sides[corner & 1, i]
            for axis in range(1, len(axes)):
                side = 2 * axis + ((corner >> axis) & 1)
                index = index ^ terms[side, i] if hashed else np.uint32(index + terms[side, i])
                weight *= sides[side, i]
            addresses[corner, i] = index & mask if hashed else index
            weights[corner, i] = weight
        if not hashed:
            for i in range(count):
                if addresses[corner, i] >= size:
                    addresses[corner, i] %= np.uint32(size)
    return corners


@kernel
def encode_points(points, begin, end, level, table, out, column, stride, axes, features):
    """Write the level's features of points begin ... end into out [N * stride], from `column` on."""
    scratch = _scratch(axes)
    addresses, weights = scratch[3], scratch[4]
    width, offset = len(features), level[2]
    for start in range(begin, end, _BLOCK):
        count = min(_BLOCK, end - start)
        corners = _corners(points, start, count, level, axes, scratch)
        for i in range(count):
            for corner in range(corners):
                prefetch(table, (offset + np.int64(addresses[corner, i])) * width)
        for i in range(count):
            position = np.int64((start + i) * stride + column)
            for f in range(width):
                out[position + f] = 0
            for corner in range(corners):
                row = (offset + np.int64(addresses[corner, i])) * width
                add_row(out, position, table, row, weights[corner, i], features)


@kernel
def _add_rows(rows, weights, count, cotangent, position, stride, table, features):
    """Add to rows [corners, B] of a table, where not negative, their weights times each point's cotangent."""
    width = len(features)
    for i in range(count):
        for corner in range(rows.shape[0]):
            prefetch(table, max(rows[corner, i], 0) * width)
    for i in range(count):
        for corner in range(rows.shape[0]):
            row = rows[corner, i]
            if row >= 0:
                add_row(table, row * width, cotangent, position + i * stride, weights[corner, i], features)


@kernel
def add_gradient(points, level, low, high, cotangent, column, stride, table, axes, features):
    """Add to rows low ... high of the level in the float32 gradient `table` what the points give them."""
    scratch = _scratch(axes)
    addresses, weights = scratch[3], scratch[4]
    rows = np.empty(addresses.shape, np.int64)
    offset, total = level[2], points.shape[1]
    for start in range(0, total, _BLOCK):
        count = min(_BLOCK, total - start)
        corners = _corners(points, start, count, level, axes, scratch)
        for corner in range(corners):
            for i in range(count):
                address = np.int64(addresses[corner, i])
                rows[corner, i] = offset + address if low <= address < high else -1
        position = np.int64(start * stride + column)
        _add_rows(rows[:corners], weights, count, cotangent, position, stride, table, features)


@kernel
def mark_rows(points, level, low, high, words, ranks, axes):
    """Set the bits of the level's touched rows low ... high in `words`, and number the rows by word.

    words, ranks: the level's, one per WORD rows. low is a multiple of WORD. A word's rank is the number of
    touched rows of the range before it. Returns how many rows are touched.
    """
    scratch = _scratch(axes)
    addresses, total = scratch[3], points.shape[1]
    for start in range(0, total, _BLOCK):
        count = min(_BLOCK, total - start)
        corners = _corners(points, start, count, level, axes, scratch)
        for corner in range(corners):
            for i in range(count):
                address = np.int64(addresses[corner, i])
                if low <= address < high:
                    words[address // WORD] |= np.uint64(1) << np.uint64(address % WORD)
    touched = 0
    for word in range(low // WORD, (high + WORD - 1) // WORD):
        ranks[word] = touched
        touched += count_bits(words[word])
    return touched


@kernel
def _list_rows(words, low, high, offset, first, indices):
    """Write the touched rows of low ... high, ascending, to `indices` from `first` on."""
    position = first
    for word in range(low // WORD, (high + WORD - 1) // WORD):
        bits, row = words[word], offset + word * WORD
        while bits:
            lowest = bits & (~bits + np.uint64(1))
            indices[position] = row + count_bits(lowest - np.uint64(1))
            bits ^= lowest
            position += 1


@kernel
def add_sparse_gradient(
    points, level, low, high, cotangent, column, stride, words, ranks, first, indices, values, axes, features
):
    """List the touched rows low ... high of the level, ascending, in `indices` from `first` on.

    Their gradients are added to `values`, flat, in the same order. words, ranks: of `mark_rows`.
    """
    scratch = _scratch(axes)
    addresses, weights = scratch[3], scratch[4]
    rows = np.empty(addresses.shape, np.int64)
    total = points.shape[1]
    _list_rows(words, low, high, level[2], first, indices)
    for start in range(0, total, _BLOCK):
        count = min(_BLOCK, total - start)
        corners = _corners(points, start, count, level, axes, scratch)
        for corner in range(corners):
            for i in range(count):
                address = addresses[corner, i]
                if low <= address < high:
                    word = address >> 6
                    before = words[word] & ((np.uint64(1) << np.uint64(address & 63)) - np.uint64(1))
                    rows[corner, i] = first + ranks[word] + count_bits(before)
                else:
                    rows[corner, i] = -1
        position = np.int64(start * stride + column)
        _add_rows(rows[:corners], weights, count, cotangent, position, stride, values, features)


@kernel
def add_point_gradient(points, begin, end, level, table, cotangent, column, stride, out, axes, features):
    """Add the level's share of the gradient of points begin ... end to out [D, N]."""
    scratch = _scratch(axes)
    sides, slopes, _, addresses, _ = scratch
    dims, width, offset, scale = len(axes), len(features), level[2], level[0]
    for start in range(begin, end, _BLOCK):
        count = min(_BLOCK, end - start)
        corners = _corners(points, start, count, level, axes, scratch)
        for i in range(count):
            position = np.int64((start + i) * stride + column)
            for corner in range(corners):
                row = (offset + np.int64(addresses[corner, i])) * width
                pull = scale * dot_rows(table, row, cotangent, position, features)
                for axis in range(dims):
                    share = pull * slopes[2 * axis + ((corner >> axis) & 1), i]
                    for other in range(dims):
                        if other != axis:
                            share *= sides[2 * other + ((corner >> other) & 1), i]
                    out[axis, start + i] += share
