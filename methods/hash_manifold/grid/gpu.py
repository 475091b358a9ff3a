"""The hash grid on CUDA: Triton kernels, one program per block of points and level."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from methods.hash_manifold.grid.layout import GridLayout

_BLOCK = 128  # points per program


def encode(points: Tensor, params: Tensor, layout: GridLayout) -> Tensor:
    """`twin.encode` by Triton. Gradients are first derivatives; that of the table is summed in any order."""
    return _Encode.apply(points, params, layout)


class _Encode(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, points: Tensor, params: Tensor, layout: GridLayout) -> Tensor:
        from methods.hash_manifold.grid import triton_kernels

        ctx.layout = layout
        ctx.save_for_backward(points, params)
        out = torch.empty(len(points), layout.n_outputs, dtype=params.dtype, device=points.device)
        _launch(triton_kernels.encode_points, points, layout, params, out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        from methods.hash_manifold.grid import triton_kernels

        points, params = ctx.saved_tensors
        layout, cotangent = ctx.layout, cotangent.contiguous()
        of_points = of_params = None
        if ctx.needs_input_grad[0]:
            shares = torch.zeros(len(layout.levels), *points.shape, device=points.device)
            if layout.config.interpolation != "Nearest":
                _launch(triton_kernels.point_gradient, points, layout, params, cotangent, shares)
            of_points = shares.sum(0)
        if ctx.needs_input_grad[1]:
            gradient = torch.zeros(params.shape, device=params.device)
            _launch(triton_kernels.add_gradient, points, layout, cotangent, gradient)
            of_params = gradient.to(params.dtype)
        return of_points, of_params, None


def _launch(kernel: Any, points: Tensor, layout: GridLayout, *tensors: Tensor) -> None:
    """Run a kernel over all points and levels; `tensors` stand between the layout and the sizes."""
    if not len(points):
        return
    config = layout.config
    scales, description = _description(layout, points.device)
    programs = (-(-len(points) // _BLOCK), len(layout.levels))
    with torch.cuda.device_of(points):
        kernel[programs](
            points.detach().contiguous(),
            scales,
            description,
            *(tensor.detach() for tensor in tensors),
            len(points),
            layout.n_outputs,
            D=config.n_dims,
            F=config.n_features,
            SMOOTH=config.interpolation == "Smoothstep",
            NEAREST=config.interpolation == "Nearest",
            BLOCK=_BLOCK,
            enable_fp_fusion=True,  # products and sums may fuse, which is what the original does
        )


@lru_cache(maxsize=16)
def _description(layout: GridLayout, device: torch.device) -> tuple[Tensor, Tensor]:
    """Scales [L] float32 and layout [L, 3 + D] int64 for the kernels."""
    scales = torch.tensor([level.scale for level in layout.levels], dtype=torch.float32, device=device)
    rows = [(level.size, level.offset, int(level.hashed), *level.factors) for level in layout.levels]
    return scales, torch.tensor(rows, dtype=torch.int64, device=device)
