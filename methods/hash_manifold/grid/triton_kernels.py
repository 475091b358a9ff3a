"""Triton kernels of the hash grid, for CUDA. Imported only when the first points are encoded there.

A program works on BLOCK points of one level. What the kernels share: points [N, D] float32; scales [L]
float32; layout [L, 3 + D] int64 (size, offset in entries, hashed, factor of each axis); D, F: constants;
SMOOTH: Smoothstep, else Linear; NEAREST: the first corner alone.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _axis(points, layout, at, inside, scale, axis: tl.constexpr, D: tl.constexpr, SMOOTH: tl.constexpr):
    """Of one axis: address term of the lower and the upper vertex, weight of the upper, and its slope."""
    x = tl.load(points + at * D + axis, mask=inside, other=0.0)
    coordinate = tl.math.fma(x, scale, 0.5)
    lower = tl.floor(coordinate)
    upper = coordinate - lower
    slope = tl.full(upper.shape, 1.0, tl.float32)
    if SMOOTH:
        slope = 6.0 * upper * (1.0 - upper)
        upper = upper * upper * (3.0 - 2.0 * upper)
    factor = tl.load(layout + 3 + axis).to(tl.uint32)
    vertex = lower.to(tl.int32).to(tl.uint32, bitcast=True)
    return vertex * factor, (vertex + 1) * factor, upper, slope


@triton.jit
def _level(scales, layout, level, D: tl.constexpr):
    """Scale, size, offset, whether it is hashed, and where its description lies."""
    layout += level * (3 + D)
    return (
        tl.load(scales + level),
        tl.load(layout).to(tl.uint32),
        tl.load(layout + 1),
        tl.load(layout + 2) != 0,
        layout,
    )


@triton.jit
def _join(index, term, hashed):
    return tl.where(hashed, index ^ term, index + term)


@triton.jit
def _corner(x, y, z, t, size, hashed, corner: tl.constexpr, D: tl.constexpr, NEAREST: tl.constexpr):
    """Address and weight of a corner; x ... t are what `_axis` returned, of the first D axes."""
    index = x[corner & 1]
    weight = x[2] if corner & 1 else 1.0 - x[2]
    index = _join(index, y[(corner >> 1) & 1], hashed)
    weight *= y[2] if (corner >> 1) & 1 else 1.0 - y[2]
    if D > 2:
        index = _join(index, z[(corner >> 2) & 1], hashed)
        weight *= z[2] if (corner >> 2) & 1 else 1.0 - z[2]
    if D > 3:
        index = _join(index, t[(corner >> 3) & 1], hashed)
        weight *= t[2] if (corner >> 3) & 1 else 1.0 - t[2]
    if NEAREST:
        weight = tl.full(weight.shape, 1.0, tl.float32)
    return (index % size).to(tl.int64), weight


@triton.jit
def _axes(points, layout, at, inside, scale, D: tl.constexpr, SMOOTH: tl.constexpr):
    x = _axis(points, layout, at, inside, scale, 0, D, SMOOTH)
    y = _axis(points, layout, at, inside, scale, 1, D, SMOOTH)
    z = _axis(points, layout, at, inside, scale, min(2, D - 1), D, SMOOTH)
    t = _axis(points, layout, at, inside, scale, min(3, D - 1), D, SMOOTH)
    return x, y, z, t


@triton.jit
def encode_points(
    points, scales, layout, table, out, count, stride,
    D: tl.constexpr, F: tl.constexpr, SMOOTH: tl.constexpr, NEAREST: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """out [N, stride]: the level's features. A float16 table is summed in float16."""
    level = tl.program_id(1)
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    scale, size, offset, hashed, layout = _level(scales, layout, level, D)
    x, y, z, t = _axes(points, layout, at, inside, scale, D, SMOOTH)
    lane = tl.arange(0, F)
    kind: tl.constexpr = table.dtype.element_ty
    total = tl.zeros((BLOCK, F), kind)
    for corner in tl.static_range(1 if NEAREST else 1 << D):
        address, weight = _corner(x, y, z, t, size, hashed, corner, D, NEAREST)
        rows = (offset + address)[:, None] * F + lane[None, :]
        values = tl.load(table + rows, mask=inside[:, None], other=0.0)
        share = weight.to(kind).to(tl.float32)[:, None] * values.to(tl.float32)
        total = (total.to(tl.float32) + share).to(kind)
    columns = at[:, None] * stride + level * F + lane[None, :]
    tl.store(out + columns, total, mask=inside[:, None])


@triton.jit
def add_gradient(
    points, scales, layout, cotangent, gradient, count, stride,
    D: tl.constexpr, F: tl.constexpr, SMOOTH: tl.constexpr, NEAREST: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Add to the float32 `gradient` of the table, for the gradient [N, stride] of the features."""
    level = tl.program_id(1)
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    scale, size, offset, hashed, layout = _level(scales, layout, level, D)
    x, y, z, t = _axes(points, layout, at, inside, scale, D, SMOOTH)
    lane = tl.arange(0, F)
    kind: tl.constexpr = cotangent.dtype.element_ty
    columns = at[:, None] * stride + level * F + lane[None, :]
    pull = tl.load(cotangent + columns, mask=inside[:, None], other=0.0).to(tl.float32)
    for corner in tl.static_range(1 if NEAREST else 1 << D):
        address, weight = _corner(x, y, z, t, size, hashed, corner, D, NEAREST)
        rows = (offset + address)[:, None] * F + lane[None, :]
        share = weight.to(kind).to(tl.float32)[:, None] * pull
        tl.atomic_add(gradient + rows, share, mask=inside[:, None], sem="relaxed")


@triton.jit
def _slope(
    mine, other, third, fourth, corner: tl.constexpr,
    i: tl.constexpr, j: tl.constexpr, k: tl.constexpr, m: tl.constexpr, D: tl.constexpr,
):  # fmt: skip
    """Derivative of a corner's weight by axis i, `mine`: its slope times the weights of axes j, k, m."""
    change = mine[3] if (corner >> i) & 1 else -mine[3]
    change *= other[2] if (corner >> j) & 1 else 1.0 - other[2]
    if D > 2:
        change *= third[2] if (corner >> k) & 1 else 1.0 - third[2]
    if D > 3:
        change *= fourth[2] if (corner >> m) & 1 else 1.0 - fourth[2]
    return change


@triton.jit
def point_gradient(
    points, scales, layout, table, cotangent, out, count, stride,
    D: tl.constexpr, F: tl.constexpr, SMOOTH: tl.constexpr, NEAREST: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """out [L, N, D]: each level's share of the gradient of the points; not for NEAREST, whose share is 0."""
    level = tl.program_id(1)
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    scale, size, offset, hashed, layout = _level(scales, layout, level, D)
    x, y, z, t = _axes(points, layout, at, inside, scale, D, SMOOTH)
    lane = tl.arange(0, F)
    columns = at[:, None] * stride + level * F + lane[None, :]
    pull = tl.load(cotangent + columns, mask=inside[:, None], other=0.0).to(tl.float32)
    of_x = tl.zeros((BLOCK,), tl.float32)
    of_y = tl.zeros((BLOCK,), tl.float32)
    of_z = tl.zeros((BLOCK,), tl.float32)
    of_t = tl.zeros((BLOCK,), tl.float32)
    for corner in tl.static_range(1 << D):
        address, _ = _corner(x, y, z, t, size, hashed, corner, D, NEAREST)
        rows = (offset + address)[:, None] * F + lane[None, :]
        values = tl.load(table + rows, mask=inside[:, None], other=0.0).to(tl.float32)
        force = tl.sum(values * pull, axis=1) * scale
        of_x += force * _slope(x, y, z, t, corner, 0, 1, 2, 3, D)
        of_y += force * _slope(y, x, z, t, corner, 1, 0, 2, 3, D)
        if D > 2:
            of_z += force * _slope(z, x, y, t, corner, 2, 0, 1, 3, D)
        if D > 3:
            of_t += force * _slope(t, x, y, z, corner, 3, 0, 1, 2, D)
    out += (level.to(tl.int64) * count + at) * D
    tl.store(out, of_x, mask=inside)
    tl.store(out + 1, of_y, mask=inside)
    if D > 2:
        tl.store(out + 2, of_z, mask=inside)
    if D > 3:
        tl.store(out + 3, of_t, mask=inside)
