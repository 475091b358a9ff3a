"""Planes and plane sweeps by the compiled CPU kernels: what those are handed, on how many threads."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad

from geometry import plane_gradient_jit, plane_jit, sweep_jit
from geometry.threads import Job, run_all

_SCRATCH = 1 << 24  # bytes of gradients by samples that are held together


def composite(
    layers: Tensor,
    homographies: Tensor,
    rows: Tensor,
    height: int,
    width: int,
    premultiplied: bool,
    backdrop: bool,
) -> Tensor:
    """`geometry.planes.composite` as one tensor [B, N, 5, height, width]: colour, alpha, disparity.

    Differentiable once, by the layers. float64 for layers of that, else float32.
    """
    return _Composite.apply(layers, homographies, rows, (height, width), premultiplied, backdrop)


class _Composite(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, layers: Tensor, homographies: Tensor, rows: Tensor, shape: tuple[int, int], *flags: bool
    ) -> Tensor:
        ctx.work = work = _Work(layers, homographies, rows, flags)
        ctx.save_for_backward(layers)
        return work.composite(layers, shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, pull: Tensor) -> tuple[Tensor, None, None, None, None, None]:
        (layers,) = ctx.saved_tensors
        return ctx.work.gradient(layers, pull.contiguous()), None, None, None, None, None


class _Work:
    """Homographies prepared for the kernels, and what is computed with them."""

    def __init__(self, layers: Tensor, homographies: Tensor, rows: Tensor, flags: tuple[bool, ...]) -> None:
        self.maps = (homographies.detach().double() @ _shift(0.5)).contiguous().numpy()  # [B, N, D, 3, 3]
        self.rows = (rows.detach().double() @ _shift(0.5)).numpy()  # [B, N, D, 3]
        self.texels, self.flags = (*texel_size(layers), 0.5), flags
        self.dtype = torch.float64 if layers.dtype == torch.float64 else torch.float32

    def composite(self, layers: Tensor, shape: tuple[int, int]) -> Tensor:
        """[B, N, 5, height, width] of layers [B, D, H, W, 4]."""
        b, n = self.maps.shape[:2]
        texels = as_texels(layers)
        out = torch.empty(b, n, 5, *shape, dtype=self.dtype)
        pixels, jobs = out.numpy(), []
        for i in range(b):
            for j in range(n):
                fixed = texels[i], self.maps[i, j], self.rows[i, j], self.texels, *self.flags, pixels[i, j]
                jobs += [partial(plane_jit.composite, *fixed, *part) for part in row_ranges(0, shape[0])]
        run_all(jobs)
        return out

    def gradient(self, layers: Tensor, pull: Tensor) -> Tensor:
        """Gradient by the layers, for that [B, N, 5, height, width] by the output."""
        b, n, _, height, width = pull.shape
        planes, (h, w, stride, _) = layers.shape[1], self.texels
        texels, pulls = as_texels(layers), pull.numpy()
        gradient = torch.zeros(b, planes, texels.shape[2], dtype=self.dtype)
        least = planes * width * 4 * self.dtype.itemsize
        held = np.empty((planes, min(max(_SCRATCH // least, 1), height), width * 4), pulls.dtype)
        for i in range(b):
            for j in range(n):
                for top in range(0, height, held.shape[1]):
                    lines = top, min(top + held.shape[1], height)
                    self._add_gradient(texels[i], (i, j), pulls[i, j], held, lines, gradient[i].numpy())
        gradient = gradient.view(b, planes, -1, stride // 4, 4)[:, :, :h, :w]
        return gradient.to(layers.dtype)

    def _add_gradient(
        self,
        texels: np.ndarray,
        view: tuple[int, int],
        pull: np.ndarray,
        held: np.ndarray,
        lines: tuple[int, int],
        gradient: np.ndarray,
    ) -> None:
        """Add what some rows of a view contribute; `held` is overwritten."""
        maps, rows, backdrop = self.maps[view], self.rows[view], self.flags[1]
        fixed = texels, maps, rows, self.texels, *self.flags, pull, held, lines[0]
        run_all([partial(plane_gradient_jit.sample_gradients, *fixed, *part) for part in row_ranges(*lines)])
        jobs: list[Job] = []
        for k in range(len(texels)):
            beyond = plane_jit.BACKDROP if backdrop and k == 0 else plane_jit.NOTHING
            layer = gradient[k], maps[k], self.texels, beyond, held[k]
            jobs.append(partial(plane_gradient_jit.add_to_layer, *layer, pull.shape[2], *lines))
        run_all(jobs)


def sweep(
    images: Tensor, maps: Tensor, shape: tuple[int, int], middle: float, empty: float, edge: bool
) -> Tensor:
    """Photos [B, C, h, w] seen through planes: [B, C, D, *shape].

    maps: [B, D, 3, 3], from the coordinates of the new pixels to those of the photos (float32), the middle of
    whose first pixel lies at (middle, middle). Where a photo does not reach it is `empty`, or with `edge` its
    nearest pixel.
    """
    b, channels = images.shape[:2]
    matrices = (maps.detach().double() @ _shift(0.5)).numpy()
    beyond = plane_jit.EDGE if edge else plane_jit.NOTHING
    out = images.new_empty(b, channels, maps.shape[1], *shape)
    volume, jobs = out.numpy(), []
    for first in range(0, channels, 4):
        group = images[:, first : first + 4].movedim(1, -1) - empty
        photos = pad(group, (0, 4 - group.shape[-1]))[:, None]
        texels, size = as_texels(photos), (*texel_size(photos), middle)
        for i in range(b):
            fixed = texels[i, 0], matrices[i], size, beyond, empty, volume[i, first : first + 4]
            jobs += [partial(sweep_jit.sweep, *fixed, *part) for part in row_ranges(0, shape[0])]
    run_all(jobs)
    return out


def _shift(shift: float) -> Tensor:
    """[3, 3] float64: the point that lies `shift` farther in both directions."""
    matrix = torch.eye(3, dtype=torch.float64)
    matrix[:2, 2] = shift
    return matrix


def as_texels(layers: Tensor) -> np.ndarray:
    """Layers [B, D, h, w, 4] as the kernels read them: [B, D, numbers], at least 2 x 2 texels.

    Shares memory where it can. The 16 bits of bfloat16 are int16, those of float16 uint16.
    """
    layers = layers.detach()
    h, w = layers.shape[2:4]
    if h < 2 or w < 2:
        layers = pad(layers, (0, 0, 0, max(2 - w, 0), 0, max(2 - h, 0)))
    flat = layers.contiguous().flatten(2)
    if flat.dtype in (torch.float16, torch.bfloat16):
        bits = flat.view(torch.int16).numpy()
        return bits.view(np.uint16) if flat.dtype == torch.float16 else bits
    return flat.numpy()


def texel_size(layers: Tensor) -> tuple[int, int, int]:
    """h, w and the numbers in a row of texels, of layers [B, D, h, w, 4], as the kernels count them."""
    h, w = layers.shape[2:4]
    return h, w, 4 * max(w, 2)


def row_ranges(top: int, bottom: int) -> list[tuple[int, int]]:
    """Cut rows into enough parts to keep all threads at work, each of whole blocks."""
    parts = 4 * torch.get_num_threads() if torch.get_num_threads() > 1 else 1
    step = -(-(bottom - top) // (parts * plane_jit.ROWS)) * plane_jit.ROWS
    return [(first, min(first + step, bottom)) for first in range(top, bottom, step)]
