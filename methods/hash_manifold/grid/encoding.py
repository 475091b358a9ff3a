"""Hash-grid encoding: one function, several implementations, and the module that holds the table."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable
from functools import cache, lru_cache
from importlib.util import find_spec
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from common.errors import UserError
from methods.hash_manifold.grid import twin
from methods.hash_manifold.grid.initial import initial_params
from methods.hash_manifold.grid.layout import GridConfig, GridLayout, grid_layout

Implementation = Literal["auto", "twin", "compiled", "numba", "triton", "tinycudann"]
_LOG = logging.getLogger(__name__)


def hash_encode(
    points: Tensor,  # [N, D]
    params: Tensor,  # [entries, F] float32 or float16
    layout: GridLayout,
    implementation: Implementation = "auto",
    sparse_gradient: bool = False,
) -> Tensor:
    """Features [N, L * F] of points in a hash grid, in the dtype of the table; level by level.

    points: any numbers, taken as float32; the grid's domain is [0, 1]^D, and outside it vertices wrap around.
    A float16 table is computed with as tiny-cuda-nn does: weights, sums and features are float16.
    Differentiable once in both (by 'twin' any number of times).

    implementation: 'twin' (plain PyTorch), 'compiled' (the twin through torch.compile; itself where that does
    not work here), 'numba' (fused CPU kernels), 'triton' (CUDA kernels), 'tinycudann' (the library, if
    installed), 'auto': 'numba' on a CPU, 'triton' on CUDA, else 'twin'. All agree to rounding. On a CPU
    'numba' gives the same bits for any number of threads; the CUDA ones sum gradients in any order.
    sparse_gradient: with 'numba', the gradient of a float32 table is a coalesced sparse tensor of the touched
    rows, which accumulates; the others, and float16 tables, give a dense one.

    Raises ValueError for shapes or types that do not fit, UserError for an implementation that cannot run
    here.
    """
    _check(points, params, layout)
    name = choose_implementation(points.device) if implementation == "auto" else implementation
    points = points.float()
    if name == "twin":
        return twin.encode(points, params, layout)
    if name == "compiled":
        return _compiled(layout)(points, params)
    if name == "numba":
        return _numba(points, params, layout, sparse_gradient)
    if name == "triton":
        return _triton(points, params, layout)
    if name == "tinycudann":
        return _tinycudann(points, params, layout)
    raise UserError(f"hash grid: no implementation {name!r}: use {', '.join(get_args(Implementation))}")


def choose_implementation(device: torch.device) -> Implementation:
    """What 'auto' means for tensors on a device."""
    if device.type == "cuda":
        return "triton" if find_spec("triton") else "compiled"
    return "numba" if device.type == "cpu" else "twin"


def _check(points: Tensor, params: Tensor, layout: GridLayout) -> None:
    config = layout.config
    if points.ndim != 2 or points.shape[1] != config.n_dims:
        raise ValueError(f"points are {tuple(points.shape)}, not [N, {config.n_dims}]")
    if params.shape != (layout.entries, config.n_features):
        raise ValueError(f"params are {tuple(params.shape)}, not [{layout.entries}, {config.n_features}]")
    if params.dtype not in (torch.float32, torch.float16):
        raise ValueError(f"params are {params.dtype}: use float32 or float16")
    if points.device != params.device:
        raise ValueError(f"points are on {points.device}, params on {params.device}")


def _numba(points: Tensor, params: Tensor, layout: GridLayout, sparse_gradient: bool) -> Tensor:
    if points.device.type != "cpu":
        raise UserError(f"hash grid: 'numba' needs tensors on the CPU, not on {points.device}")
    from methods.hash_manifold.grid import cpu

    return cpu.encode(points, params, layout, sparse_gradient and params.dtype == torch.float32)


def _triton(points: Tensor, params: Tensor, layout: GridLayout) -> Tensor:
    if not find_spec("triton"):
        raise UserError("hash grid: 'triton' is not installed (it comes with PyTorch): use 'compiled'")
    if points.device.type != "cuda":
        raise UserError(f"hash grid: 'triton' needs tensors on a CUDA device, not on {points.device}")
    from methods.hash_manifold.grid import gpu

    return gpu.encode(points, params, layout)


def _tinycudann(points: Tensor, params: Tensor, layout: GridLayout) -> Tensor:
    encoding = _library_encoding(layout, params.dtype)
    features = torch.func.functional_call(encoding, {"params": params.reshape(-1)}, (points,))
    return features.to(params.dtype)


@lru_cache(maxsize=4)
def _library_encoding(layout: GridLayout, dtype: torch.dtype) -> nn.Module:
    """tiny-cuda-nn's module for a layout, without a table of its own."""
    try:
        library = importlib.import_module("tinycudann")
    except (ImportError, OSError) as error:
        raise UserError(f"hash grid: 'tinycudann' cannot be loaded ({error}): use 'auto'") from None
    config = layout.config
    description = {
        "otype": "Grid",
        "type": config.kind,
        "n_levels": config.n_levels,
        "n_features_per_level": config.n_features,
        "log2_hashmap_size": config.log2_hashmap_size,
        "base_resolution": config.base_resolution,
        "per_level_scale": config.per_level_scale,
        "interpolation": config.interpolation,
    }
    encoding = library.Encoding(config.n_dims, description, dtype=dtype)
    if encoding.params.numel() != layout.n_params:
        raise UserError(
            f"hash grid: this tinycudann lays the table out differently ({encoding.params.numel()} numbers,"
            f" not {layout.n_params}): use 'auto'"
        )
    encoding.params = nn.Parameter(torch.empty(0), requires_grad=False)
    return encoding


@lru_cache(maxsize=16)
def _compiled(layout: GridLayout) -> Callable[[Tensor, Tensor], Tensor]:
    def encode(points: Tensor, params: Tensor) -> Tensor:
        return twin.encode(points, params, layout)

    return torch.compile(encode) if can_compile() else encode


@cache
def can_compile() -> bool:
    """Whether torch.compile works on this machine: tried once on the CPU, and said in the log where not."""
    try:
        torch.compile(lambda x: torch.sin(x) + 1)(torch.zeros(8))
    except Exception as error:  # a missing compiler or header shows in many ways
        lines = str(error).strip().splitlines() or [type(error).__name__]
        _LOG.warning("torch.compile does not work here (%s): hash grids run uncompiled", lines[0])
        return False
    return True


class HashGrid(nn.Module):
    """A trainable hash grid: points [..., D] -> features [..., L * F] float32.

    `params` [entries, F] starts as tiny-cuda-nn's for the seed, uniform in [-1e-4, 1e-4), and may be stored
    in float16 (`grid.half()`). `implementation` and `sparse_gradient` are those of `hash_encode` and may be
    set at any time.
    """

    params: nn.Parameter

    def __init__(
        self,
        config: GridConfig | None = None,
        implementation: Implementation = "auto",
        sparse_gradient: bool = False,
        seed: int = 1337,
    ) -> None:
        super().__init__()
        self.layout = grid_layout(config or GridConfig())
        self.implementation: Implementation = implementation
        self.sparse_gradient = sparse_gradient
        initial = initial_params(self.layout.n_params, seed)
        self.params = nn.Parameter(initial.view(self.layout.entries, -1))

    @property
    def n_outputs(self) -> int:
        """Features of an encoded point."""
        return self.layout.n_outputs

    def forward(self, points: Tensor) -> Tensor:
        flat = points.reshape(-1, points.shape[-1])
        features = hash_encode(flat, self.params, self.layout, self.implementation, self.sparse_gradient)
        return features.float().reshape(*points.shape[:-1], self.n_outputs)

    def to_flat(self) -> Tensor:
        """The table as tiny-cuda-nn keeps it: flat [entries * F], sharing memory, without gradient."""
        return self.params.detach().reshape(-1)

    @torch.no_grad()
    def from_flat(self, flat: Tensor) -> None:
        """Copy a flat tiny-cuda-nn table in. Raises UserError when its length belongs to another config."""
        if flat.numel() != self.layout.n_params:
            raise UserError(
                f"the hash table has {flat.numel()} numbers, but this grid's config needs"
                f" {self.layout.n_params}: set the config it was trained with"
            )
        self.params.copy_(flat.reshape(self.params.shape))

    def extra_repr(self) -> str:
        return f"{self.layout.config}, implementation={self.implementation!r}"
