"""Data order and keyed random numbers."""

from __future__ import annotations

import math
from itertools import chain, pairwise

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.sampling import Batches, Stream, chunk_order, generator, item_at, key, order

sizes = st.integers(1, 60)
seeds = st.integers(0, 2**62)


@given(seeds, st.integers(0, 10**6), sizes)
@settings(max_examples=30, deadline=None)
def test_an_epoch_visits_every_item_once(seed: int, epoch: int, size: int) -> None:
    assert sorted(order(seed, epoch, size).tolist()) == list(range(size))


@given(seeds, st.lists(st.integers(0, 9), max_size=6))
@settings(max_examples=30, deadline=None)
def test_chunks_are_finished_one_after_the_other(seed: int, chunks: list[int]) -> None:
    visited = chunk_order(seed, 3, chunks).tolist()
    assert sorted(visited) == list(range(sum(chunks)))
    owner = [chunk for chunk, size in enumerate(chunks) for _ in range(size)]
    runs = [owner[item] for item in visited]
    assert sum(a != b for a, b in pairwise(runs)) == max(0, sum(c > 0 for c in chunks) - 1)


def test_orders_differ_between_epochs_and_seeds() -> None:
    orders = {tuple(order(seed, epoch, 20).tolist()) for seed in range(5) for epoch in range(5)}
    assert len(orders) == 25
    assert len({tuple(chunk_order(0, epoch, [5, 5, 5]).tolist()) for epoch in range(10)}) == 10


def test_keys_are_the_same_in_every_process() -> None:
    """Unlike Python's hash, which is salted: the numbers below come from another process."""
    assert key(3, "noise", 17) == 637674496872329331
    assert key(0) == 4761921975702974394


def test_keys_depend_on_every_part_and_on_its_type() -> None:
    parts = [(0,), (1,), (0, 0), (0, 1), (0, "1"), (0, "1", 0), (0, 10), (0, "a", "b"), (0, "ab"), (0, -1)]
    assert len({key(*p) for p in parts}) == len(parts)
    assert key(0, np.int64(5)) == key(0, 5)
    assert all(0 <= key(*p) < 2**63 for p in parts)


def test_generators_are_independent_and_repeatable() -> None:
    first, again = (torch.rand(4, generator=generator(1, "noise")) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, torch.rand(4, generator=generator(1, "crop")))


@given(seeds, sizes, st.integers(0, 500))
@settings(max_examples=30, deadline=None)
def test_item_at_follows_the_epochs(seed: int, size: int, position: int) -> None:
    index, sample_seed = item_at(size, seed, position)
    assert index == order(seed, position // size, size)[position % size]
    assert (index, sample_seed) == Stream(size, seed).item(position)
    assert item_at(None, seed, position) == (position, sample_seed)


def test_an_item_gets_new_random_numbers_in_every_epoch() -> None:
    stream = Stream(4, 0)
    drawn = [stream.item(position) for position in range(40)]
    assert len({seed for _, seed in drawn}) == 40
    assert sorted(index for index, _ in drawn) == sorted(list(range(4)) * 10)


def test_a_stream_of_chunks_uses_the_chunk_order() -> None:
    stream = Stream(7, 5, chunk_sizes=[3, 4])
    assert [stream.item(7 + i)[0] for i in range(7)] == chunk_order(5, 1, [3, 4]).tolist()


def _step(world: int, batch: int, accumulation: int, step: int, first: int = 0) -> list[int]:
    """Positions that all processes together consume in a step."""
    found: list[int] = []
    for rank in range(world):
        batches = list(Batches(first, step + 1, batch, accumulation, rank, world))
        found += chain.from_iterable(batches[step * accumulation :])
    return sorted(found)


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.integers(0, 5))
@settings(max_examples=30, deadline=None)
def test_a_step_consumes_the_same_positions_however_it_is_shared_out(
    world: int, batch: int, accumulation: int, step: int
) -> None:
    total = world * batch * accumulation
    expected = list(range(step * total, (step + 1) * total))
    assert _step(world, batch, accumulation, step) == expected
    assert _step(1, total, 1, step) == expected


def test_batches_start_at_any_position() -> None:
    whole = list(Batches(0, 6, 3, 2, 1, 2))
    rest = list(Batches(2 * 12, 4, 3, 2, 1, 2))
    assert whole[4:] == rest
    assert len(Batches(0, 6, 3, 2, 1, 2)) == 12


def test_a_permutation_is_fair() -> None:
    """The first item of an epoch is any item, equally often (5 sigma)."""
    epochs = 2000
    first = torch.tensor([int(order(7, epoch, 10)[0]) for epoch in range(epochs)])
    counts = torch.bincount(first, minlength=10).float()
    assert (counts - epochs / 10).abs().max() < 5 * math.sqrt(epochs * 0.09)
