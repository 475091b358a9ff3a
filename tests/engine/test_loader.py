"""The samples of a run, in order, whatever workers and signals do."""

from __future__ import annotations

import multiprocessing
import os
import signal
from dataclasses import replace
from itertools import chain, islice

import pytest

from common.errors import UserError
from engine.loader import PositionedSamples, open_loader
from engine.sampling import Batches, Stream, chunk_order
from tests.engine.toy_method import ToyConfig, ToySamples

BATCHES = Batches(first=0, steps=6, batch=4, accumulation=1, rank=0, world=1)


class ChunkedToySamples(ToySamples):
    chunk_sizes = (20, 7, 10)


def _indices(samples: ToySamples, batches: Batches = BATCHES, workers: int = 0) -> list[list[int]]:
    with open_loader(samples, 5, batches, workers) as fetched:
        return [micro.sample.index.tolist() for micro in fetched]  # type: ignore[attr-defined,union-attr]


def test_workers_change_nothing_and_any_position_can_be_the_first() -> None:
    samples = ToySamples(ToyConfig())
    expected = [[Stream(37, 5).item(4 * step + i)[0] for i in range(4)] for step in range(6)]
    assert _indices(samples) == expected
    assert _indices(samples, workers=2) == expected
    assert _indices(samples, replace(BATCHES, first=8, steps=4)) == expected[2:]


def test_keyed_draws_have_the_position_as_index() -> None:
    assert _indices(ToySamples(ToyConfig(size=0)))[2] == [8, 9, 10, 11]


def test_chunked_samples_come_chunk_by_chunk() -> None:
    indices = list(chain.from_iterable(_indices(ChunkedToySamples(ToyConfig()))))
    assert indices == chunk_order(5, 0, ChunkedToySamples.chunk_sizes)[:24].tolist()


def test_an_unreadable_sample_is_replaced_by_the_same_one_every_time() -> None:
    bad = Stream(37, 5).item(2)[0]
    dataset = PositionedSamples(ToySamples(ToyConfig(bad=(bad,))), 5, BATCHES)
    drawn, again = dataset[2], dataset[2]
    assert drawn.failures == [
        f"photo_{bad}.jpg: photo_{bad}.jpg is not a readable image (truncated): replace the file"
    ]
    assert drawn.name != f"photo_{bad}.jpg"
    assert drawn.name == again.name
    assert drawn.item.y == again.item.y
    assert dataset[3].failures == []


def test_nothing_to_train_on_is_one_line() -> None:
    samples = ToySamples(ToyConfig())
    samples.size = 0
    with pytest.raises(UserError, match=r"no training sample: check data\.root"):
        _indices(samples)


def test_workers_outlive_the_signals_of_a_scheduler_until_the_loader_is_closed() -> None:
    before = set(multiprocessing.active_children())
    batches = replace(BATCHES, steps=400)
    with open_loader(ToySamples(ToyConfig()), 5, batches, workers=1) as fetched:
        first = list(islice(fetched, 2))
        (worker,) = set(multiprocessing.active_children()) - before
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
            os.kill(worker.pid or 0, number)
        rest = list(islice(fetched, 60))
    assert len(first + rest) == 62
    assert worker.is_alive()
    os.kill(worker.pid or 0, signal.SIGTERM)
    worker.join(timeout=20)
    assert worker.exitcode == 0
