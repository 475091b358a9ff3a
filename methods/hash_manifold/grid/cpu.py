"""The hash grid on a CPU: fused kernels, spread over threads, with the same bits whatever their number."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from geometry.threads import Job, run_all
from methods.hash_manifold.grid.buffers import BUFFERS
from methods.hash_manifold.grid.layout import GridLayout

if TYPE_CHECKING:
    from types import ModuleType

_CHUNK = 8192  # points per job; fixed, so that the split does not depend on the threads


def encode(points: Tensor, params: Tensor, layout: GridLayout, sparse_gradient: bool = False) -> Tensor:
    """`twin.encode` on the CPU. The gradient of the points is a first derivative only.

    sparse_gradient: give `params` a coalesced sparse gradient of the touched rows (float32 tables only).
    """
    return _Encode.apply(points, params, layout, sparse_gradient)


class _Encode(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, points: Tensor, params: Tensor, layout: GridLayout, sparse: bool) -> Tensor:
        work = _Work(points, layout)
        ctx.work, ctx.sparse, ctx.dtype, ctx.shape = work, sparse, params.dtype, params.shape
        ctx.save_for_backward(params if ctx.needs_input_grad[0] else None)
        return work.encode(params)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        (params,) = ctx.saved_tensors
        cotangent = cotangent.contiguous()
        of_points = ctx.work.point_gradient(params, cotangent) if ctx.needs_input_grad[0] else None
        of_params = None
        if ctx.needs_input_grad[1] and ctx.sparse:
            of_params = ctx.work.sparse_gradient(cotangent, ctx.shape)
        elif ctx.needs_input_grad[1]:
            of_params = ctx.work.dense_gradient(cotangent, ctx.shape).to(ctx.dtype)
        return of_points, of_params, None, None


class _Work:
    """Points prepared for the kernels, and what is computed for them."""

    def __init__(self, points: Tensor, layout: GridLayout) -> None:
        from methods.hash_manifold.grid import cpu_kernels

        self.kernels: ModuleType = cpu_kernels
        self.layout = layout
        self.points = points.detach().float().t().contiguous().numpy()  # [D, N]
        self.count = len(points)
        self.levels = _level_arguments(layout)
        self.axes = (0,) * layout.config.n_dims
        self.features = (0,) * layout.config.n_features

    def encode(self, params: Tensor) -> Tensor:
        """Features [N, L * F] in the dtype of the table."""
        table, stride = _flat(params), self.layout.n_outputs
        out = BUFFERS.take(self.count, stride, dtype=params.dtype)
        flat = _flat(out)
        jobs: list[Job] = []
        for column, level in self._columns():
            for begin, end in self._chunks():
                arguments = (self.points, begin, end, level, table, flat, column, stride)
                jobs.append(partial(self.kernels.encode_points, *arguments, self.axes, self.features))
        run_all(jobs)
        return out

    def dense_gradient(self, cotangent: Tensor, shape: torch.Size) -> Tensor:
        """Gradient [entries, F] float32 of the table, for the gradient [N, L * F] of the features."""
        gradient = BUFFERS.zeros(*shape)
        table, source, stride = _flat(gradient), _flat(cotangent), self.layout.n_outputs
        jobs: list[Job] = []
        for column, level in self._columns():
            for low, high in self._row_ranges(level):
                arguments = (self.points, level, low, high, source, column, stride, table)
                jobs.append(partial(self.kernels.add_gradient, *arguments, self.axes, self.features))
        run_all(jobs)
        return gradient

    def sparse_gradient(self, cotangent: Tensor, shape: torch.Size) -> Tensor:
        """The same as coalesced sparse tensor of the touched rows.

        Touched rows are marked in a bitmap, whose running count says where a row's gradient is kept: two
        passes over the points, but no array as large as the table.
        """
        ranges = [
            (column, level, low, high)
            for column, level in self._columns()
            for low, high in self._row_ranges(level)
        ]
        marks = [self._bitmap(level) for _, level in self._columns()]
        touched = np.zeros(len(ranges), np.int64)

        def mark(job: int) -> None:
            column, level, low, high = ranges[job]
            words, ranks = marks[column // len(self.features)]
            touched[job] = self.kernels.mark_rows(self.points, level, low, high, words, ranks, self.axes)

        run_all([partial(mark, job) for job in range(len(ranges))])
        firsts = np.concatenate([[0], np.cumsum(touched)])
        indices = BUFFERS.take(1, int(firsts[-1]), dtype=torch.int64)
        values = BUFFERS.zeros(int(firsts[-1]), shape[1])
        source, stride = _flat(cotangent), self.layout.n_outputs
        jobs: list[Job] = []
        for (column, level, low, high), first in zip(ranges, firsts[:-1], strict=True):
            words, ranks = marks[column // len(self.features)]
            arguments = (self.points, level, low, high, source, column, stride, words, ranks, int(first))
            where = (indices[0].numpy(), _flat(values), self.axes, self.features)
            jobs.append(partial(self.kernels.add_sparse_gradient, *arguments, *where))
        run_all(jobs)
        return torch.sparse_coo_tensor(indices, values, shape, is_coalesced=True, check_invariants=False)

    def point_gradient(self, params: Tensor, cotangent: Tensor) -> Tensor:
        """Gradient [N, D] float32 of the points."""
        out = torch.zeros(len(self.axes), self.count)
        fixed = (_flat(params), _flat(cotangent))
        jobs = [partial(self._add_point_gradient, begin, end, *fixed, out) for begin, end in self._chunks()]
        run_all(jobs)
        return out.t().contiguous()

    def _add_point_gradient(
        self, begin: int, end: int, table: np.ndarray, source: np.ndarray, out: Tensor
    ) -> None:
        for column, level in self._columns():
            arguments = (self.points, begin, end, level, table, source, column, self.layout.n_outputs)
            self.kernels.add_point_gradient(*arguments, out.numpy(), self.axes, self.features)

    def _columns(self) -> Iterator[tuple[int, tuple]]:
        """The first output column and the kernels' argument of each level."""
        for i, level in enumerate(self.levels):
            yield i * len(self.features), level

    def _chunks(self) -> list[tuple[int, int]]:
        return [(begin, min(begin + _CHUNK, self.count)) for begin in range(0, self.count, _CHUNK)]

    def _row_ranges(self, level: tuple) -> list[tuple[int, int]]:
        """Cut the level's rows so that all levels give every thread something to do."""
        size, word = int(level[1]), self.kernels.WORD
        parts = -(-torch.get_num_threads() // len(self.levels))
        rows = -(-size // (parts * word)) * word
        return [(low, min(low + rows, size)) for low in range(0, size, rows)]

    def _bitmap(self, level: tuple) -> tuple[np.ndarray, np.ndarray]:
        words = -(-int(level[1]) // self.kernels.WORD)
        return np.zeros(words, np.uint64), np.zeros(words, np.int32)


@lru_cache(maxsize=16)
def _level_arguments(layout: GridLayout) -> list[tuple]:
    """What the kernels call a level; see cpu_kernels."""
    from methods.hash_manifold.grid import cpu_kernels

    mode = getattr(cpu_kernels, layout.config.interpolation.upper())
    return [
        (
            np.float32(level.scale),
            level.size,
            level.offset,
            level.hashed,
            np.array(level.factors, np.uint32),
            mode,
        )
        for level in layout.levels
    ]


def _flat(tensor: Tensor) -> np.ndarray:
    """A contiguous tensor's numbers [n]: float32, or the bits of float16 as uint16."""
    array = tensor.detach().reshape(-1).numpy()
    return array.view(np.uint16) if tensor.dtype == torch.float16 else array
