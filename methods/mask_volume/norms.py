"""What follows the convolutions: ReLU, then a norm over channels and positions together."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

_AT_ONCE = 1 << 18  # numbers that are gone through together: they stay in the cache


def rectified_norm_twin(x: Tensor, norm: nn.GroupNorm) -> Tensor:
    """ReLU, then the norm, of one group: x [B, C, ...] -> likewise."""
    return norm(functional.relu(x))


def rectified_norm(x: Tensor, norm: nn.GroupNorm) -> Tensor:
    """As the twin; `x` may be overwritten. Without gradients no further memory is taken for float32 on a CPU.

    Statistics are those of float32, put together in float64.
    """
    wanted = torch.is_grad_enabled() and (x.requires_grad or norm.weight.requires_grad)
    rows = None if wanted or x.device.type != "cpu" or x.dtype != torch.float32 else _as_stored(x)
    if rows is None:
        return norm(functional.relu(x, inplace=True))
    shape = (-1, *[1] * (x.ndim - 2))
    weight, bias = norm.weight.view(shape), norm.bias.view(shape)
    for sample, numbers in zip(x, rows, strict=True):
        mean, deviation = _rectify(numbers, norm.eps)
        scale = weight / deviation
        torch.addcmul(bias - scale * mean, sample, scale, out=sample)
    return x


def _as_stored(x: Tensor) -> Tensor | None:
    """The numbers of each sample as they lie in memory [B, n], or None where there are gaps between them."""
    rows = x if x.is_contiguous() else x.movedim(1, -1)
    return rows.view(len(x), -1) if rows.is_contiguous() else None


def _rectify(numbers: Tensor, eps: float) -> tuple[float, float]:
    """ReLU in place; the mean of the result [n], and the root of its variance + eps."""
    found = []
    for part in numbers.split(_AT_ONCE):
        mean = part.relu_().mean()
        apart = part - mean
        found.append(torch.stack([mean, apart.dot(apart)]))
    means, squares = torch.stack(found).double().unbind(1)
    counts = torch.tensor([len(part) for part in numbers.split(_AT_ONCE)], dtype=torch.float64)
    mean = (counts * means).sum() / len(numbers)
    variance = (squares + counts * (means - mean) ** 2).sum() / len(numbers)
    return float(mean), float(variance + eps) ** 0.5
