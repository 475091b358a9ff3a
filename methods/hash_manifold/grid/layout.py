"""Where the levels of a hash grid lie in its table, bit for bit as tiny-cuda-nn lays them out.

Source: specs/hash_manifold 9.2 and 9.4 (tiny-cuda-nn 6ee3546).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

import numpy as np

from common.errors import UserError

Interpolation = Literal["Linear", "Nearest", "Smoothstep"]
Kind = Literal["Hash", "Dense", "Tiled"]

# Multipliers of the vertex coordinates in a hashed level. That of axis 0 is 1, so neighbours along x share
# cache lines.
PRIMES = (1, 2654435761, 805459861, 3674653429)
# Largest resolution whose D-th power fits 32 bits; above it the original addresses entry 0 unless it hashes.
LARGEST_DENSE = {2: 65535, 3: 1625, 4: 255}
_UINT32 = 1 << 32
_MAX_ENTRIES = (1 << 31) - 1


@dataclass(frozen=True)
class GridConfig:
    """What tiny-cuda-nn calls the encoding's configuration. The defaults are those of XScale-NVS.

    n_levels: 1-128. n_features: per level; 1, 2, 4 or 8. log2_hashmap_size: most entries of a 'Hash' level.
    base_resolution: vertices per axis of the coarsest level. per_level_scale: growth of the resolution.
    n_dims: of the points; 2, 3 or 4. Raises UserError for values that the format does not have.
    """

    n_levels: int = 16
    n_features: int = 8
    log2_hashmap_size: int = 22
    base_resolution: int = 16
    per_level_scale: float = 1.4768261459394993  # 2^((13 - 4) / 16)
    interpolation: Interpolation = "Smoothstep"
    kind: Kind = "Hash"
    n_dims: int = 3

    def __post_init__(self) -> None:
        _require("n_levels", self.n_levels, 1 <= self.n_levels <= 128, "from 1 to 128")
        _require("n_features", self.n_features, self.n_features in (1, 2, 4, 8), "1, 2, 4 or 8")
        _require("n_dims", self.n_dims, self.n_dims in (2, 3, 4), "2, 3 or 4")
        _require("base_resolution", self.base_resolution, self.base_resolution >= 1, "at least 1")
        log2_size = self.log2_hashmap_size
        _require("log2_hashmap_size", log2_size, 1 <= log2_size <= 30, "from 1 to 30")
        growth = self.per_level_scale
        _require("per_level_scale", growth, 0 < growth < float("inf"), "a positive number")
        for name, choices in (("interpolation", get_args(Interpolation)), ("kind", get_args(Kind))):
            value = getattr(self, name)
            _require(name, value, value in choices, f"one of {', '.join(choices)}")


@dataclass(frozen=True)
class Level:
    """One level. scale: cells per unit length, a float32 number. resolution: vertices per axis.

    size, offset: entries of the table. hashed: vertex addresses are a hash, else a row-major index.
    factors: what the vertex coordinate of each axis is multiplied with, mod 2^32, before the products are
    xor-ed (hashed) or added; the address is the result mod `size`.
    """

    scale: float
    resolution: int
    size: int
    offset: int
    hashed: bool
    factors: tuple[int, ...]


@dataclass(frozen=True)
class GridLayout:
    """A configuration and its levels."""

    config: GridConfig
    levels: tuple[Level, ...]

    @property
    def entries(self) -> int:
        """Rows of the table, all levels together."""
        return self.levels[-1].offset + self.levels[-1].size

    @property
    def n_params(self) -> int:
        """Numbers in the table: the length of tiny-cuda-nn's flat `params`."""
        return self.entries * self.config.n_features

    @property
    def n_outputs(self) -> int:
        """Features of an encoded point."""
        return self.config.n_levels * self.config.n_features


@lru_cache(maxsize=64)
def grid_layout(config: GridConfig) -> GridLayout:
    """Lay the levels of a configuration out. Raises UserError when the table has 2^31 entries or more."""
    levels: list[Level] = []
    offset = 0
    for scale in level_scales(config):
        level = _level(config, scale, offset)
        levels.append(level)
        offset += level.size
        if offset > _MAX_ENTRIES:
            raise UserError(
                f"level {len(levels) - 1} of the hash grid ends at entry {offset}, beyond 2^31:"
                " lower n_levels, per_level_scale or log2_hashmap_size"
            )
    return GridLayout(config, tuple(levels))


def level_scales(config: GridConfig) -> list[float]:
    """Cells per unit length of every level: float32 numbers, each operation rounded to float32.

    log2 and exp2 are taken in float64 of the float32 operands, which reproduces the library's host values.
    """
    log2_growth = np.float32(np.log2(np.float64(np.float32(config.per_level_scale))))
    scales = []
    for i in range(config.n_levels):
        growth = np.float32(np.exp2(np.float64(np.float32(i) * log2_growth)))
        scales.append(float(growth * np.float32(config.base_resolution) - np.float32(1)))
    return scales


def _level(config: GridConfig, scale: float, offset: int) -> Level:
    if not 0 <= scale < _MAX_ENTRIES:
        raise UserError(f"a hash-grid level has scale {scale}: choose another per_level_scale or n_levels")
    dims = config.n_dims
    resolution = int(np.ceil(scale)) + 1
    size = -(-min(resolution**dims, _MAX_ENTRIES) // 8) * 8
    if config.kind == "Hash":
        size = min(size, 1 << config.log2_hashmap_size)
    elif config.kind == "Tiled":
        size = min(size, config.base_resolution**dims)
    indexed = resolution <= LARGEST_DENSE[dims]
    stride = resolution**dims if indexed else _UINT32 - 1
    hashed = config.kind == "Hash" and size < stride
    strides = tuple(resolution**axis if indexed else 0 for axis in range(dims))
    return Level(scale, resolution, size, offset, hashed, PRIMES[:dims] if hashed else strides)


def _require(name: str, value: object, holds: bool, allowed: str) -> None:
    if not holds:
        raise UserError(f"hash grid: {name} is {value!r}, but must be {allowed}")
