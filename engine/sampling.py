"""Which training sample comes when, and with which random numbers: pure functions of a seed and a position.

A run is one stream of positions 0, 1, 2, ... . Step s of a run with global batch B (samples per process x
processes x accumulation) consumes positions [s * B, (s + 1) * B). Nothing else decides what is drawn, so a
resumed run continues the sequence, and one process with twice the batch sees what two processes see.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


def key(seed: int, *parts: int | str) -> int:
    """A 63-bit number that depends on every argument and on nothing else (BLAKE2b, the same everywhere)."""
    words = [repr(part if isinstance(part, str) else int(part)) for part in (seed, *parts)]
    digest = hashlib.blake2b("\0".join(words).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator(seed: int, *parts: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator of its own for the purpose that `parts` names: noise, crop, time step, ..."""
    return torch.Generator(device=device).manual_seed(key(seed, *parts))


def order(seed: int, epoch: int, size: int) -> Tensor:
    """The order in which an epoch visits `size` items: a permutation, [size] int64."""
    return torch.randperm(size, generator=generator(seed, "order", epoch))


def chunk_order(seed: int, epoch: int, chunk_sizes: Sequence[int]) -> Tensor:
    """The order of an epoch over items stored in chunks: [sum(chunk_sizes)] int64 global item indices.

    Chunks come in a random order and each is finished, in an order of its own, before the next begins, so
    that a cache of one chunk serves a reader.
    """
    starts = [0, *torch.tensor(list(chunk_sizes)).cumsum(0).tolist()]
    pieces = [
        starts[chunk] + torch.randperm(chunk_sizes[chunk], generator=generator(seed, "chunk", epoch, chunk))
        for chunk in order(seed, epoch, len(chunk_sizes)).tolist()
    ]
    return torch.cat(pieces) if pieces else torch.zeros(0, dtype=torch.int64)


def item_at(size: int | None, seed: int, position: int) -> tuple[int, int]:
    """(item index, seed of its random choices) at a position of the stream.

    size: items per epoch. None means keyed draws with replacement: the index is the position itself.
    """
    return Stream(size, seed).item(position)


@dataclass
class Stream:
    """`item_at` for many positions: keeps the permutations of the epochs last asked for.

    chunk_sizes: items per chunk where the data set is stored in chunks (they sum to `size`).
    """

    size: int | None
    seed: int
    chunk_sizes: Sequence[int] | None = None

    def __post_init__(self) -> None:
        self._orders: dict[int, Tensor] = {}

    def item(self, position: int) -> tuple[int, int]:
        """(item index, sample seed) at a position."""
        sample_seed = key(self.seed, "sample", position)
        if self.size is None:
            return position, sample_seed
        epoch, offset = divmod(position, self.size)
        return int(self._epoch(epoch)[offset]), sample_seed

    def _epoch(self, epoch: int) -> Tensor:
        if epoch not in self._orders:
            if len(self._orders) == 2:  # a batch may straddle two epochs
                self._orders.pop(next(iter(self._orders)))
            assert self.size is not None
            self._orders[epoch] = (
                order(self.seed, epoch, self.size)
                if self.chunk_sizes is None
                else chunk_order(self.seed, epoch, self.chunk_sizes)
            )
        return self._orders[epoch]


@dataclass(frozen=True)
class Batches:
    """The positions that one process reads, one list per micro-batch: a batch sampler.

    first: position at which the run (or its continuation) starts, with step `first_step`. steps: how many
    steps are left. batch: samples per process and micro-batch. Each micro-batch of the run is a contiguous
    stretch of positions, shared out over the processes in the order of their rank.
    """

    first: int
    steps: int
    batch: int
    accumulation: int
    rank: int
    world: int
    first_step: int = 0

    def step(self, position: int) -> int:
        """The optimiser step that consumes a position."""
        return self.first_step + (position - self.first) // (self.batch * self.accumulation * self.world)

    def __len__(self) -> int:
        return self.steps * self.accumulation

    def __iter__(self) -> Iterator[list[int]]:
        for micro in range(len(self)):
            start = self.first + (micro * self.world + self.rank) * self.batch
            yield list(range(start, start + self.batch))
