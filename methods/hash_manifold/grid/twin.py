"""What a hash grid computes, in plain PyTorch: the definition that fast implementations are tested against.

Source: specs/hash_manifold 9.3 to 9.5 (tiny-cuda-nn 6ee3546).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import embedding

from methods.hash_manifold.grid.layout import GridLayout, Interpolation, Level

_UINT32_MASK = 0xFFFFFFFF


def encode(points: Tensor, params: Tensor, layout: GridLayout) -> Tensor:
    """Features [N, L * F] of points [N, D] float32 in the table `params` [entries, F].

    A float16 table is computed with as the original does: weights, sums and the result are float16.
    Differentiable in both; the gradient of a float16 table is summed in float32.
    """
    half = params.dtype == torch.float16
    tables = params.float().split([level.size for level in layout.levels])
    features = []
    for level, table in zip(layout.levels, tables, strict=True):
        cell, fraction = locate(points, level)
        weights = corner_weights(fraction, layout.config.interpolation)  # [N, K]
        values = embedding(corner_addresses(cell, level)[:, : weights.shape[1]], table)  # [N, K, F]
        features.append(_half_sum(weights, values) if half else (weights[..., None] * values).sum(1))
    return torch.cat(features, dim=1).to(params.dtype)


def locate(points: Tensor, level: Level) -> tuple[Tensor, Tensor]:
    """The cell [N, D] int64 that holds each point, and where in it the point lies, [N, D] in [0, 1).

    The coordinate scale * x + 0.5 is rounded once, to float32. Nothing is clamped: the half cell shifts the
    vertices of different levels apart, and cells outside the grid wrap around.
    """
    coordinate = (points.double() * level.scale + 0.5).float()
    lower = coordinate.detach().floor()
    return lower.long(), coordinate - lower


def corner_addresses(cell: Tensor, level: Level) -> Tensor:
    """Entries [N, 2^D] within the level of the corners of cells [N, D], for any int32 cell.

    Corner k adds 1 on axis d when bit d of k is set.
    """
    index = None
    for axis, factor in enumerate(level.factors):
        vertex = torch.stack([cell[:, axis], cell[:, axis] + 1], dim=1)  # [N, 2]
        term = (vertex * factor) & _UINT32_MASK
        if index is None:
            index = term
        elif level.hashed:
            index = (term[:, :, None] ^ index[:, None]).flatten(1)
        else:
            index = ((term[:, :, None] + index[:, None]) & _UINT32_MASK).flatten(1)
    assert index is not None
    return index % level.size


def corner_weights(fraction: Tensor, interpolation: Interpolation) -> Tensor:
    """Weights [N, 2^D] of the corners, as `corner_addresses` orders them; 'Nearest': [N, 1], of the first."""
    if interpolation == "Nearest":
        return torch.ones_like(fraction[:, :1])
    if interpolation == "Smoothstep":
        fraction = fraction * fraction * (3 - 2 * fraction)
    weights = torch.ones_like(fraction[:, :1])
    for upper in fraction.unbind(1):
        sides = torch.stack([1 - upper, upper], dim=1)
        weights = (weights[:, None] * sides[:, :, None]).flatten(1)
    return weights


def _half_sum(weights: Tensor, values: Tensor) -> Tensor:
    """Sum over k of weights [N, K] times values [N, K, F], every step rounded to float16."""
    total = torch.zeros_like(values[:, 0])
    for weight, value in zip(_to_half(weights).unbind(1), values.unbind(1), strict=True):
        total = _to_half(total + weight[:, None] * value)
    return total


def _to_half(values: Tensor) -> Tensor:
    """Round to float16, kept in float32 and transparent to gradients."""
    return values + (values.half().float() - values).detach()
