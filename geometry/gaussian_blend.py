"""Blending of projected Gaussians, compiled for the CPU, with its gradient.

`geometry.gaussian_render` holds the readable twin. The gradient goes through every pixel's Gaussians from the
back, and recovers what shone through each from what is left at the end (Kerbl et al. 2023, section 6).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from geometry.gaussian_render import MAX_ALPHA, MIN_ALPHA, OPAQUE, TILE
from geometry.jit import kernel


@kernel
def _alpha(x, y, xy, conics, opacities, g):
    """Opacity of Gaussian g at a pixel centre, before the upper limit (0: too weak), and offsets."""
    dx = xy[g, 0] - x
    dy = xy[g, 1] - y
    power = 0.5 * (conics[g, 0] * dx * dx + conics[g, 2] * dy * dy) + conics[g, 1] * dx * dy
    # The logarithm would be exact; this bound spares most exponentials and is checked again after them.
    if power < 0 or power > 6 or opacities[g] < MIN_ALPHA:
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
    across = (width + TILE - 1) // TILE
    for row in range(height):
        for column in range(width):
            tile = row // TILE * across + column // TILE
            left = 1.0
            last[row, column] = starts[tile]
            for at in range(starts[tile], starts[tile + 1]):
                g = indices[at]
                alpha, _, _ = _alpha(column + 0.5, row + 0.5, xy, conics, opacities, g)
                if alpha == 0.0:
                    continue
                alpha = min(alpha, MAX_ALPHA)
                if left * (1 - alpha) <= OPAQUE:
                    break
                for channel in range(channels):
                    total[row, column, channel] += alpha * left * values[g, channel]
                left *= 1 - alpha
                last[row, column] = at + 1
            through[row, column] = left
    return total, through, last


@kernel
def _backward(xy, conics, opacities, values, indices, starts, through, last, grad_total, grad_through):
    """Gradients by xy, conics, opacities and values, from those by `_forward`'s first two results."""
    height, width, channels = grad_total.shape
    grad_xy, grad_conics = np.zeros_like(xy), np.zeros_like(conics)
    grad_opacities, grad_values = np.zeros_like(opacities), np.zeros_like(values)
    across = (width + TILE - 1) // TILE
    behind = np.zeros(channels)
    for row in range(height):
        for column in range(width):
            tile = row // TILE * across + column // TILE
            left = float(through[row, column])
            end = left * grad_through[row, column]
            behind[:] = 0
            for at in range(last[row, column] - 1, starts[tile] - 1, -1):
                g = indices[at]
                alpha, dx, dy = _alpha(column + 0.5, row + 0.5, xy, conics, opacities, g)
                if alpha == 0.0:
                    continue
                limited = alpha > MAX_ALPHA
                alpha = min(alpha, MAX_ALPHA)
                left /= 1 - alpha
                by_alpha = -end / (1 - alpha)
                for channel in range(channels):
                    grad = grad_total[row, column, channel]
                    grad_values[g, channel] += alpha * left * grad
                    by_alpha += (left * values[g, channel] - behind[channel] / (1 - alpha)) * grad
                    behind[channel] += alpha * left * values[g, channel]
                if limited:
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

    The first four as in `gaussian_render.Projected` and values [G, C], the next two from `tile_lists`.
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
