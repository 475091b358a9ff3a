"""Blending of projected Gaussians, compiled for the CPU, with its gradient.

`geometry.gaussian_render` holds the readable twin. The gradient goes through every pixel's Gaussians from the
back, and recovers what shone through each from what is left at the end (Kerbl et al. 2023, section 6). Sums
are kept in the precision of the values.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from geometry.gaussian_projection import MAX_ALPHA, MIN_ALPHA, OPAQUE, TILE
from geometry.jit import kernel


@kernel
def _window(xy, conics, opacities, g, tile, height, width):
    """Rows top ... bottom and columns left ... right of a tile's pixels that a Gaussian may be visible in.

    It is where its ellipse of opacity 1 / 255 reaches, and a little more against rounding.
    """
    across = (width + TILE - 1) // TILE
    y0, x0 = tile // across * TILE, tile % across * TILE
    if opacities[g] < MIN_ALPHA:
        return 0, 0, 0, 0
    a, b, c = conics[g]
    power = math.log(opacities[g] / MIN_ALPHA)
    scale = 2 * power / (a * c - b * b)
    reach_x, reach_y = math.sqrt(scale * c) + 0.51, math.sqrt(scale * a) + 0.51
    top = max(y0, int(max(xy[g, 1] - reach_y, 0.0)))
    bottom = min(y0 + TILE, height, int(min(max(xy[g, 1] + reach_y, -1.0), float(height))) + 1)
    left = max(x0, int(max(xy[g, 0] - reach_x, 0.0)))
    right = min(x0 + TILE, width, int(min(max(xy[g, 0] + reach_x, -1.0), float(width))) + 1)
    return top, bottom, left, right


@kernel
def _alpha(column, row, xy, conics, opacities, g):
    """Opacity of Gaussian g at a pixel, before the upper limit (0: too weak), and offsets from its centre."""
    dx = xy[g, 0] - (column + 0.5)
    dy = xy[g, 1] - (row + 0.5)
    power = 0.5 * (conics[g, 0] * dx * dx + conics[g, 2] * dy * dy) + conics[g, 1] * dx * dy
    if power < 0:
        return 0.0, dx, dy
    alpha = opacities[g] * math.exp(-power)
    return (alpha if alpha >= MIN_ALPHA else 0.0), dx, dy


@kernel
def _forward(xy, conics, opacities, values, indices, starts, height, width):
    """Blended values [H, W, C], what shines through [H, W], and one past each pixel's last list entry."""
    channels = values.shape[1]
    total = np.zeros((height, width, channels), values.dtype)
    through = np.ones((height, width), values.dtype)
    last = np.zeros((height, width), np.int64)
    done = np.zeros((height, width), np.bool_)
    for tile in range(len(starts) - 1):
        for at in range(starts[tile], starts[tile + 1]):
            g = indices[at]
            top, bottom, left, right = _window(xy, conics, opacities, g, tile, height, width)
            for row in range(top, bottom):
                for column in range(left, right):
                    if done[row, column]:
                        continue
                    alpha = min(_alpha(column, row, xy, conics, opacities, g)[0], MAX_ALPHA)
                    before = through[row, column]
                    if alpha == 0.0:
                        continue
                    if before * (1 - alpha) <= OPAQUE:
                        done[row, column] = True
                        continue
                    for channel in range(channels):
                        total[row, column, channel] += alpha * before * values[g, channel]
                    through[row, column] = before * (1 - alpha)
                    last[row, column] = at + 1
    return total, through, last


@kernel
def _backward(xy, conics, opacities, values, indices, starts, through, last, grad_total, grad_through):
    """Gradients by xy, conics, opacities and values, from those by `_forward`'s first two results."""
    height, width, channels = grad_total.shape
    grad_xy, grad_conics = np.zeros_like(xy), np.zeros_like(conics)
    grad_opacities, grad_values = np.zeros_like(opacities), np.zeros_like(values)
    remaining = through.copy()
    behind = np.zeros((height, width, channels))
    for tile in range(len(starts) - 1):
        for at in range(starts[tile + 1] - 1, starts[tile] - 1, -1):
            g = indices[at]
            top, bottom, left, right = _window(xy, conics, opacities, g, tile, height, width)
            for row in range(top, bottom):
                for column in range(left, right):
                    if at >= last[row, column]:
                        continue
                    full, dx, dy = _alpha(column, row, xy, conics, opacities, g)
                    if full == 0.0:
                        continue
                    alpha = min(full, MAX_ALPHA)
                    before = remaining[row, column] / (1 - alpha)
                    remaining[row, column] = before
                    by_alpha = -through[row, column] * grad_through[row, column] / (1 - alpha)
                    for channel in range(channels):
                        grad = grad_total[row, column, channel]
                        grad_values[g, channel] += alpha * before * grad
                        hidden = behind[row, column, channel] / (1 - alpha)
                        by_alpha += (before * values[g, channel] - hidden) * grad
                        behind[row, column, channel] += alpha * before * values[g, channel]
                    if full > MAX_ALPHA:
                        continue
                    grad_opacities[g] += by_alpha * alpha / opacities[g]
                    by_power = -by_alpha * alpha
                    grad_conics[g, 0] += by_power * 0.5 * dx * dx
                    grad_conics[g, 1] += by_power * dx * dy
                    grad_conics[g, 2] += by_power * 0.5 * dy * dy
                    grad_xy[g, 0] += by_power * (conics[g, 0] * dx + conics[g, 1] * dy)
                    grad_xy[g, 1] += by_power * (conics[g, 2] * dy + conics[g, 1] * dx)
    return grad_xy, grad_conics, grad_opacities, grad_values


class Blend(torch.autograd.Function):
    """(xy, conics, opacities, values, indices, starts, shape) -> values [H, W, C] and, [H, W], what shines
    through.

    The first four as in `gaussian_projection.Projected` and values [G, C], the next two from `tile_lists`.
    """

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor]:
        *tensors, shape = inputs
        arrays = [tensor.detach().contiguous().numpy() for tensor in tensors]
        total, through, last = (torch.from_numpy(made) for made in _forward(*arrays, *shape))
        ctx.save_for_backward(*tensors, through, last)
        return total, through

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:
        arrays = [tensor.detach().contiguous().numpy() for tensor in (*ctx.saved_tensors, *grads)]
        return *(torch.from_numpy(made) for made in _backward(*arrays)), None, None, None
