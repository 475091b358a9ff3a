"""Convolutions of volumes, two of them in cheaper forms with the same weights and the same result.

Each of these has a twin that says what it computes. All are differentiable.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

# Per parity of the output position: which of the 3 taps fall on which of 2 neighbouring coarse positions.
_TAPS = ((((1.0, 0.0, 0.0), (0.0, 1.0, 1.0))), ((1.0, 1.0, 0.0), (0.0, 0.0, 1.0)))
_NARROW = (torch.bfloat16, torch.float16)
_AT_ONCE = 1 << 22  # numbers that a CPU makes before they are put in their places


def conv3d(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int = 1, padding: int = 0) -> Tensor:
    """`torch.nn.functional.conv3d` with equal strides and paddings, by oneDNN on a CPU where torch has it.

    Left to itself, torch computes small batches with 3x3x3 kernels by a far slower routine as soon as there
    are two threads, and their gradients by one that is slower still. Numbers of 16 bits it multiplies more
    than ten times slower than those of 32 on most CPUs: there they are widened, and results rounded again.
    """
    if x.device.type == "cpu" and x.dtype in _NARROW:
        wide = None if bias is None else bias.float()
        return conv3d(x.float(), weight.float(), wide, stride, padding).to(x.dtype)
    if x.device.type == "cpu" and x.dtype == torch.float32 and torch.backends.mkldnn.is_available():
        return _Convolution.apply(x, weight, bias, stride, padding)
    return functional.conv3d(x, weight, bias, stride, padding)


def _one_dnn(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int, dilation: int = 1
) -> Tensor:
    sizes = [padding] * 3, [stride] * 3, [dilation] * 3
    return torch.ops.aten.mkldnn_convolution(x, weight, bias, *sizes, 1)


class _Convolution(torch.autograd.Function):
    """A convolution whose gradients are convolutions too, all by oneDNN."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return _one_dnn(x, weight, bias, stride, padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        wanted, size = ctx.needs_input_grad, weight.shape[-1]
        to_x = to_weight = None
        if wanted[0] and ctx.stride == 1:
            turned = weight.flip(2, 3, 4).transpose(0, 1)
            to_x = _one_dnn(cotangent, turned, None, 1, size - 1 - ctx.padding)
        elif wanted[0]:
            sizes = [ctx.stride] * 3, [ctx.padding] * 3, [1] * 3
            only = [True, False, False]
            to_x = torch.ops.aten.convolution_backward(
                cotangent, x, weight, None, *sizes, False, [0] * 3, 1, only
            )[0]
        if wanted[1]:  # the photo is convolved with the cotangent, channels and batch having changed places
            swapped = x.transpose(0, 1).contiguous(), cotangent.transpose(0, 1).contiguous()
            made = _one_dnn(*swapped, None, 1, ctx.padding, ctx.stride).transpose(0, 1)
            to_weight = made[..., :size, :size, :size]
        to_bias = cotangent.sum((0, 2, 3, 4)) if wanted[2] else None
        return to_x, to_weight, to_bias, None, None


def upsampled_conv_twin(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Nearest upsampling by 2, then a 3x3x3 convolution with zero padding.

    x: [B, C, D, H, W]. weight: [O, C, 3, 3, 3]. bias: [O]. Returns [B, O, 2D, 2H, 2W].
    """
    return functional.conv3d(functional.interpolate(x, scale_factor=2.0), weight, bias, padding=1)


def upsampled_conv(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """As the twin, on the coarse grid: an output position sees 2x2x2 coarse ones, by one of 8 small kernels.

    8 multiplications in place of 27 per output and channel (sub-pixel convolution, Shi et al. 2016). Without
    gradients little more memory is held than the result takes.
    """
    kernels = _phase_kernels(weight)
    if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad):
        slabs = [_interleave(_slab(x, 0, x.shape[2], a, kernels[a], bias)) for a in (0, 1)]
        fine = torch.stack(slabs, 2).flatten(1, 2)  # [B, 2D, 2H, 2W, O]
        return fine.permute(0, 4, 1, 2, 3)
    (b, _, d, h, w), o = x.shape, len(weight)
    fine = x.new_empty(b, d, 2, h, 2, w, 2, o)
    step = max(1, _AT_ONCE // (4 * b * (h + 1) * (w + 1) * o)) if x.device.type == "cpu" else d
    for start in range(0, d, step):
        stop = min(start + step, d)
        for a in (0, 1):
            slab = _slab(x, start, stop, a, kernels[a], bias)
            for row in (0, 1):
                for column in (0, 1):
                    fine[:, start:stop, a, :, row, :, column] = slab[row][column]
    return fine.view(b, 2 * d, 2 * h, 2 * w, o).permute(0, 4, 1, 2, 3)


def _phase_kernels(weight: Tensor) -> Tensor:
    """For either parity of planes the small kernels of all four rows and columns: [2, 4 O, C, 2, 2, 2]."""
    taps = torch.tensor(_TAPS, dtype=weight.dtype, device=weight.device)
    return torch.einsum("axi,byj,czk,oqijk->abcoqxyz", taps, taps, taps, weight).flatten(1, 3)


def _slab(x: Tensor, start: int, stop: int, a: int, kernels: Tensor, bias: Tensor) -> list[list[Tensor]]:
    """Every other plane of the result, from plane `a` of those that the coarse planes start ... stop become:
    by parity of row and column [B, stop - start, H, W, O].
    """
    d, h, w = x.shape[2:]
    first, last = start - 1 + a, stop + a  # coarse planes that are seen
    planes = x[:, :, max(first, 0) : min(last, d)]
    padded = functional.pad(planes, (1, 1, 1, 1, max(-first, 0), max(last - d, 0)))
    made = conv3d(padded, kernels, bias.repeat(4)).permute(0, 2, 3, 4, 1).unflatten(-1, (2, 2, -1))
    return [[made[:, :, b : b + h, c : c + w, b, c] for c in (0, 1)] for b in (0, 1)]


def _interleave(slab: list[list[Tensor]]) -> Tensor:
    """What `_slab` returns, as whole planes [B, D, 2H, 2W, O]."""
    rows = [torch.stack(columns, 4).flatten(3, 4) for columns in slab]
    return torch.stack(rows, 3).flatten(2, 3)


def constant_conv_twin(image: Tensor, planes: int, weight: Tensor) -> Tensor:
    """A convolution with zero padding of a volume whose planes are all the same image.

    image: [B, C, H, W]. weight: [O, C, k, k, k], k odd. Returns [B, O, planes, H, W].
    """
    volume = image[:, :, None].expand(-1, -1, planes, -1, -1)
    return functional.conv3d(volume, weight, padding=weight.shape[-1] // 2)


def constant_conv(image: Tensor, planes: int, weight: Tensor) -> Tensor:
    """As the twin, by at most k two-dimensional convolutions: only planes near either end differ."""
    made, which = _different_planes(image, planes, weight)
    return made[:, which].transpose(1, 2)


def add_constant_conv(total: Tensor, image: Tensor, weight: Tensor) -> Tensor:
    """`total` [B, O, planes, H, W] + `constant_conv`; overwrites `total` where no gradient is wanted."""
    planes = total.shape[2]
    if torch.is_grad_enabled() and (total.requires_grad or weight.requires_grad or image.requires_grad):
        return total + constant_conv(image, planes, weight)
    made, which = _different_planes(image, planes, weight)
    for index in range(made.shape[1]):
        first, last = which.index(index), planes - which[::-1].index(index)
        total[:, :, first:last] += made[:, index, :, None]
    return total


def _different_planes(image: Tensor, planes: int, weight: Tensor) -> tuple[Tensor, list[int]]:
    """The different planes [B, n, O, H, W] of `constant_conv`, and which of them each plane is."""
    spans, which = _spans(planes, weight.shape[-1])
    kernels = torch.cat([weight[:, :, low:high].sum(2) for low, high in spans])
    if image.device.type == "cpu" and image.dtype in _NARROW:
        image, kernels = image.float(), kernels.float()
    made = functional.conv2d(image, kernels, padding=weight.shape[-1] // 2).to(weight.dtype)
    return made.unflatten(1, (len(spans), len(weight))), which


@cache
def _spans(planes: int, size: int) -> tuple[list[tuple[int, int]], list[int]]:
    """The different ranges of taps that lie inside the volume, and which of them each plane has."""
    half = size // 2
    ranges = [(max(0, half - d), min(size, planes - d + half)) for d in range(planes)]
    spans = list(dict.fromkeys(ranges))
    return spans, [spans.index(span) for span in ranges]
