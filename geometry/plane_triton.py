"""Planes on CUDA: Triton kernels, one program per tile of pixels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_TILE = {"TALL": 4, "WIDE": 32}  # pixels of a program


def composite(
    layers: Tensor,
    homographies: Tensor,
    rows: Tensor,
    height: int,
    width: int,
    premultiplied: bool,
    backdrop: bool,
) -> Tensor:
    """`geometry.planes.composite` as one float32 tensor [B, N, 5, height, width]: colour, alpha, disparity.

    Differentiable once, by the layers; the gradient is summed in any order. float64 layers are read as they
    are and summed in float32.
    """
    return _Composite.apply(layers, homographies, rows, (height, width), premultiplied, backdrop)


class _Composite(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        layers: Tensor,
        homographies: Tensor,
        rows: Tensor,
        shape: tuple[int, int],
        premultiplied: bool,
        backdrop: bool,
    ) -> Tensor:
        layers = layers.contiguous()
        ctx.premultiplied = premultiplied
        maps, lines = centred(homographies, rows, shape, (layers.shape[2], layers.shape[3]), backdrop)
        ctx.save_for_backward(layers, maps, lines)
        out = torch.empty(*maps.shape[:2], 5, *shape, device=layers.device)
        _march(layers, maps, lines, out, None, (0, maps.shape[0] * maps.shape[1]), ctx.premultiplied)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, pull: Tensor) -> tuple[Tensor, None, None, None, None, None]:
        from geometry import plane_triton_kernels

        layers, maps, lines = ctx.saved_tensors
        pull = pull.contiguous()
        gradient = torch.zeros(layers.shape, device=layers.device)
        out = torch.empty_like(pull)
        light = torch.empty(layers.shape[1], *pull.shape[-2:], device=layers.device)
        for view in range(maps.shape[0] * maps.shape[1]):
            _march(layers, maps, lines, out, light, (view, 1), ctx.premultiplied)
            with torch.cuda.device_of(layers):
                plane_triton_kernels.add_gradient[_grid(pull, 1)](
                    layers,
                    maps,
                    lines,
                    pull,
                    light,
                    gradient,
                    *_sizes(layers, pull),
                    view,
                    PREMULTIPLIED=ctx.premultiplied,
                    **_TILE,
                )
        return gradient.to(layers.dtype), None, None, None, None, None


def _march(
    layers: Tensor,
    maps: Tensor,
    lines: Tensor,
    out: Tensor,
    light: Tensor | None,
    views: tuple[int, int],
    premultiplied: bool,
) -> None:
    """Render views[1] views from views[0] on. light [D, h, w] takes what shines through to each plane."""
    from geometry import plane_triton_kernels

    with torch.cuda.device_of(layers):
        plane_triton_kernels.composite[_grid(out, views[1])](
            layers.detach(),
            maps,
            lines,
            out,
            out if light is None else light,
            *_sizes(layers, out),
            views[0],
            PREMULTIPLIED=premultiplied,
            KEEP=light is not None,
            **_TILE,
        )


def _grid(out: Tensor, views: int) -> tuple[int, int, int]:
    height, width = out.shape[-2:]
    return -(-width // _TILE["WIDE"]), -(-height // _TILE["TALL"]), views


def _sizes(layers: Tensor, out: Tensor) -> tuple[int, ...]:
    """H, W, D, N, height, width for the kernels."""
    return layers.shape[2], layers.shape[3], layers.shape[1], out.shape[1], *out.shape[-2:]


def centred(
    homographies: Tensor, rows: Tensor, shape: tuple[int, int], size: tuple[int, int], backdrop: bool
) -> tuple[Tensor, Tensor]:
    """The kernels' maps [B, N, D, 12] and rows [B, N, D, 3], float32, of layers of `size`.

    Positions are counted from the middle of the new image (of `shape`) and from the point its middle is
    mapped to, or the nearest within the layers: so float32 holds them to 1 / 10000 of a texel and better.
    """
    height, width = shape
    middle = torch.eye(3, dtype=torch.float64, device=homographies.device)
    middle[0, 2], middle[1, 2] = width / 2, height / 2
    maps = homographies.detach().double() @ middle
    x, y, z = maps.unbind(-2)  # [B, N, D, 3] each
    ahead = torch.where(z[..., 2:] > 0, z[..., 2:], 1)
    column = (x[..., 2:] / ahead).clamp(0, size[1])
    row = (y[..., 2:] / ahead).clamp(0, size[0])
    low = torch.full_like(column, -1)
    if backdrop:
        low[:, :, 0] = 0
    numbers = torch.cat([x - column * z, y - row * z, column - 0.5, row - 0.5, z, low], -1)
    return numbers.float().contiguous(), (rows.detach().double() @ middle).float().contiguous()
