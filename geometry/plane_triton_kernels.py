"""Triton kernels of planes, for CUDA. Imported only when planes are first rendered there.

A program works on a tile of TALL x WIDE pixels of one view. What the kernels share: layers [B, D, H, W, 4],
far to near. maps: [B, N, D, MAP] float32, where a pixel (x, y), counted from the middle of the new image,
lies on a plane: numbers 0, 1, 2 times (x, y, 1) over 8, 9, 10 times the same, plus number 6, is the column
(0 for the middle of the first texel), and 3, 4, 5 and 7 likewise the row. Number 11 is 0 for a plane that
goes on beyond its edges, else -1. rows: [B, N, D, 3] float32, disparity of such a pixel. Sums are float32.
"""

from __future__ import annotations

import triton
import triton.language as tl

MAP = tl.constexpr(12)


@triton.jit
def _pixels(height, width, TALL: tl.constexpr, WIDE: tl.constexpr):
    """Of a program's pixels: number in the view, coordinates from the middle, whether they are there."""
    lane = tl.arange(0, TALL * WIDE)
    row = tl.program_id(1) * TALL + lane // WIDE
    column = tl.program_id(0) * WIDE + lane % WIDE
    x = column.to(tl.float32) + 0.5 - width * 0.5
    y = row.to(tl.float32) + 0.5 - height * 0.5
    return row * width + column, x, y, (row < height) & (column < width)


@triton.jit
def _line(numbers, x, y):
    return tl.load(numbers) * x + tl.load(numbers + 1) * y + tl.load(numbers + 2)


@triton.jit
def _place(map, x, y, there, H, W):
    """Column and row of the texel above left, how far right and below it the mapped point lies, whether that
    is in front of the camera.
    """
    z = _line(map + 8, x, y)
    ahead = z > 0
    z = tl.where(ahead, z, 1.0)
    column = _line(map, x, y) / z + tl.load(map + 6)
    row = _line(map + 3, x, y) / z + tl.load(map + 7)
    low = tl.load(map + 11)
    column = tl.minimum(tl.maximum(column, low), W - 1.0 - low)
    row = tl.minimum(tl.maximum(row, low), H - 1.0 - low)
    left, above = tl.floor(column), tl.floor(row)
    return left.to(tl.int32), above.to(tl.int32), column - left, row - above, there & ahead


@triton.jit
def _corner(left, above, right, below, seen, H, W, corner: tl.constexpr):
    """Number of one of the four texels, its weight, and whether it is on the plane."""
    column, row = left + (corner & 1), above + (corner >> 1)
    weight = (right if corner & 1 else 1.0 - right) * (below if corner >> 1 else 1.0 - below)
    inside = seen & (column >= 0) & (column < W) & (row >= 0) & (row < H)
    return row * W + column, weight, inside


@triton.jit
def _sample(plane, left, above, right, below, seen, H, W, PIXELS: tl.constexpr):
    """Four channels of every pixel: [PIXELS, 4] float32."""
    channel = tl.arange(0, 4)
    total = tl.zeros((PIXELS, 4), tl.float32)
    for corner in tl.static_range(4):
        at, weight, inside = _corner(left, above, right, below, seen, H, W, corner)
        texels = tl.load(plane + at[:, None] * 4 + channel[None, :], mask=inside[:, None], other=0.0)
        total += weight[:, None] * texels.to(tl.float32)
    return total


@triton.jit
def _alpha(samples):
    return tl.sum(tl.where(tl.arange(0, 4)[None, :] == 3, samples, 0.0), axis=1)


@triton.jit
def composite(
    layers, maps, rows, out, light, H, W, D, N, height, width, view,
    PREMULTIPLIED: tl.constexpr, KEEP: tl.constexpr, TALL: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """out [B, N, 5, height, width]: red, green, blue, alpha, disparity; of the views from `view` on.

    KEEP: write to light [D, height, width] what shines through to each plane.
    """
    number = (view + tl.program_id(2)).to(tl.int64)
    at, x, y, there = _pixels(height, width, TALL, WIDE)
    channel = tl.arange(0, 4)
    through = tl.full((TALL * WIDE,), 1.0, tl.float32)
    total = tl.zeros((TALL * WIDE, 4), tl.float32)
    disparity = tl.zeros((TALL * WIDE,), tl.float32)
    nearest = number * D + D - 1
    maps, rows = maps + nearest * MAP, rows + nearest * 3
    layers += (number // N * D + D - 1) * H * W * 4
    light += (number * 0 + D - 1) * height * width
    for _ in range(D):
        if KEEP:
            tl.store(light + at, through, mask=there)
        left, above, right, below, seen = _place(maps, x, y, there, H, W)
        samples = _sample(layers, left, above, right, below, seen, H, W, TALL * WIDE)
        alpha = _alpha(samples)
        weight = alpha * through
        color = through if PREMULTIPLIED else weight
        total += tl.where(channel[None, :] == 3, weight[:, None], color[:, None] * samples)
        disparity += weight * _line(rows, x, y)
        through *= 1.0 - alpha + 1e-8
        maps, rows, layers, light = maps - MAP, rows - 3, layers - H * W * 4, light - height * width
    result = out + number * 5 * height * width + at
    places = result[:, None] + channel[None, :] * height * width
    tl.store(places, total, mask=there[:, None])
    tl.store(result + 4 * height * width, disparity, mask=there)


@triton.jit
def add_gradient(
    layers, maps, rows, pull, light, gradient, H, W, D, N, height, width, view,
    PREMULTIPLIED: tl.constexpr, TALL: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Add one view's share to the float32 `gradient` of the layers.

    pull: gradient by `out`. light: what `composite` kept of that view. From the farthest plane on, so that
    nothing is divided by what a plane lets through.
    """
    number = (view + tl.program_id(2)).to(tl.int64)
    at, x, y, there = _pixels(height, width, TALL, WIDE)
    channel = tl.arange(0, 4)
    is_color = channel[None, :] < 3
    source = pull + number * 5 * height * width + at
    wanted = source[:, None] + channel[None, :] * height * width
    by_color = tl.load(wanted, mask=there[:, None] & is_color, other=0.0)  # [P, 4], none by alpha
    by_alpha = tl.load(source + 3 * height * width, mask=there, other=0.0)
    by_disparity = tl.load(source + 4 * height * width, mask=there, other=0.0)
    behind = tl.zeros((TALL * WIDE,), tl.float32)  # how the loss feels what is farther, were nothing nearer
    maps, rows = maps + number * D * MAP, rows + number * D * 3
    first = number // N * D * H * W * 4
    layers, gradient = layers + first, gradient + first
    for _ in range(D):
        through = tl.load(light + at, mask=there, other=0.0)
        left, above, right, below, seen = _place(maps, x, y, there, H, W)
        samples = _sample(layers, left, above, right, below, seen, H, W, TALL * WIDE)
        alpha = _alpha(samples)
        color = tl.sum(by_color * samples, axis=1)
        own = by_alpha + by_disparity * _line(rows, x, y)
        if PREMULTIPLIED:
            share, of_alpha, felt = through, own, color + alpha * own
        else:
            share, of_alpha, felt = through * alpha, own + color, alpha * (own + color)
        of_alpha = through * (of_alpha - behind)
        of_samples = tl.where(is_color, share[:, None] * by_color, of_alpha[:, None])
        behind = felt + (1.0 - alpha + 1e-8) * behind
        for corner in tl.static_range(4):
            texel, weight, inside = _corner(left, above, right, below, seen, H, W, corner)
            target = gradient + texel[:, None] * 4 + channel[None, :]
            tl.atomic_add(target, weight[:, None] * of_samples, mask=inside[:, None], sem="relaxed")
        maps, rows, light = maps + MAP, rows + 3, light + height * width
        layers, gradient = layers + H * W * 4, gradient + H * W * 4
