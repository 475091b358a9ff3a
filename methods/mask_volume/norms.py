"""What follows the convolutions: ReLU, then a norm over channels and positions together."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from geometry.threads import run_all

_WORTH_A_THREAD = 1 << 22  # numbers: fewer take less time than those of OpenMP go on waiting for work


def rectified_norm_twin(x: Tensor, norm: nn.GroupNorm) -> Tensor:
    """ReLU, then the norm, of one group: x [B, C, ...] -> likewise."""
    return norm(functional.relu(x))


def rectified_norm(x: Tensor, norm: nn.GroupNorm) -> Tensor:
    """As the twin; `x` may be overwritten. Without gradients no further memory is taken for float32 on a CPU.

    There statistics are summed in float64.
    """
    wanted = torch.is_grad_enabled() and (x.requires_grad or norm.weight.requires_grad)
    rows = None if wanted or x.device.type != "cpu" or x.dtype != torch.float32 else _as_stored(x)
    if rows is None:
        return norm(functional.relu(x, inplace=True))
    shape = (-1, *[1] * (x.ndim - 2))
    weight, bias = norm.weight.view(shape), norm.bias.view(shape)
    for sample, numbers in zip(x, rows, strict=True):
        mean, deviation = _rectify(numbers.numpy(), norm.eps)
        scale = weight / deviation
        torch.addcmul(bias - scale * mean, sample, scale, out=sample)
    return x


def _as_stored(x: Tensor) -> Tensor | None:
    """The numbers of each sample as they lie in memory [B, n], or None where there are gaps between them."""
    rows = x if x.is_contiguous() else x.movedim(1, -1)
    return rows.view(len(x), -1) if rows.is_contiguous() else None


def _rectify(numbers: NDArray[np.float32], eps: float) -> tuple[float, float]:
    """ReLU in place; the mean of the result [n], and the root of its variance + eps."""
    from methods.mask_volume.norms_jit import rectify

    parts = np.array_split(numbers, min(max(len(numbers) // _WORTH_A_THREAD, 1), 4 * torch.get_num_threads()))
    sums = np.empty((len(parts), 2))
    run_all([partial(rectify, part, own) for part, own in zip(parts, sums, strict=True)])
    mean, square = sums.sum(0) / len(numbers)
    return float(mean), float(max(square - mean**2, 0) + eps) ** 0.5
