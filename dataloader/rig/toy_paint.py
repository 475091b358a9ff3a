"""Textures of procedural rigs at single points, compiled: what `toy_stage.PAINT` describes."""

from __future__ import annotations

import math

from geometry.jit import kernel

_MORTAR = 0.08  # width of the lines between bricks and tiles, in periods
_CONTRAST = 1.4  # of the noise, whose octaves seldom agree
_DOT = 0.3  # radius of dots, in periods


@kernel
def hashed(i, j, seed):
    """A number in [0, 1) that looks random, from three integers."""
    mixed = (i * 0x1F35A7BD + j * 0x2C9277B5 + seed * 0x165667B1) & 0xFFFFFFFF
    mixed = ((mixed ^ (mixed >> 15)) * 0x2D51B6E5) & 0xFFFFFFFF
    mixed = ((mixed ^ (mixed >> 12)) * 0x3A8F05C5) & 0xFFFFFFFF
    return (mixed ^ (mixed >> 15)) / 4294967296.0


@kernel
def value_noise(u, v, seed):
    """Random numbers at integer points, smoothly blended between them: in [0, 1]."""
    left, top = math.floor(u), math.floor(v)
    x, y = u - left, v - top
    x, y = x * x * (3 - 2 * x), y * y * (3 - 2 * y)
    i, j = int(left), int(top)
    upper = hashed(i, j, seed) * (1 - x) + hashed(i + 1, j, seed) * x
    lower = hashed(i, j + 1, seed) * (1 - x) + hashed(i + 1, j + 1, seed) * x
    return upper * (1 - y) + lower * y


@kernel
def _pattern(kind, u, v, seed):
    """How much of the pattern's colour [0, 1] a point has; u and v in periods. kind: index into PATTERNS."""
    row = math.floor(v)
    if kind == 2 or kind == 8:  # bricks and planks are shifted from row to row
        u += 0.5 * (row % 2) if kind == 2 else hashed(int(row), 7, seed)
    column = math.floor(u)
    x, y = u - column, v - row
    tone = hashed(int(column), int(row), seed)
    if kind == 1:
        return (column + row) % 2
    if kind == 2:
        return 1.0 if x < 0.5 * _MORTAR or y < _MORTAR else 0.35 * tone
    if kind == 3:
        return 1.0 if x < 0.5 else 0.0
    if kind == 4:
        return 0.5 + 0.5 * math.sin(2 * math.pi * u)
    if kind == 5:
        return 1.0 if (x - 0.5) ** 2 + (y - 0.5) ** 2 < _DOT**2 else 0.0
    if kind == 6:
        return tone
    if kind == 7:
        return 1.0 if x < _MORTAR or y < _MORTAR else 0.0
    if kind == 8:
        return 1.0 if y < _MORTAR else 0.6 * tone
    return 0.0


@kernel
def painted(paint, u, v):
    """Colour (r, g, b) of a PAINT at (u, v) metres on its surface."""
    blend = 0.0
    for octave in range(3):
        frequency = paint.noise[octave, 0]
        blend += paint.noise[octave, 1] * value_noise(u * frequency, v * frequency, paint.seed + octave)
    blend = min(max(0.5 + _CONTRAST * (blend - 0.5), 0.0), 1.0)
    cover = 0.0
    if paint.pattern != 0:
        across = paint.axes[0, 0] * u + paint.axes[0, 1] * v
        along = paint.axes[1, 0] * u + paint.axes[1, 1] * v
        cover = paint.opacity * _pattern(paint.pattern, across, along, paint.seed)
    below, above, colors = (1 - cover) * (1 - blend), (1 - cover) * blend, paint.colors
    return (
        below * colors[0, 0] + above * colors[1, 0] + cover * colors[2, 0],
        below * colors[0, 1] + above * colors[1, 1] + cover * colors[2, 1],
        below * colors[0, 2] + above * colors[1, 2] + cover * colors[2, 2],
    )
