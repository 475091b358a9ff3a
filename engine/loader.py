"""The training samples of a run as a DataLoader: in the order of `engine.sampling`, from any position on."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.synchronize import Event
from types import FrameType
from typing import Any

from torch.utils.data import DataLoader, Dataset

from common.errors import UserError
from engine.method import ChunkedSamples, Sample, Samples, SteppedSamples
from engine.sampling import Batches, Stream, key

# Replacements come from this far along the stream, where no run ever gets.
_REPLACEMENTS = 1 << 40
_MOST_ATTEMPTS = 100  # unreadable samples in a row after which there is no point in trying on


@dataclass
class Drawn:
    """One item of a batch. failures: messages of the unreadable samples that it replaces."""

    item: Any
    name: str
    failures: list[str] = field(default_factory=list)


@dataclass
class Fetched:
    """One micro-batch. sample: None when too many samples in a row were unreadable."""

    sample: Sample | None
    names: list[str]
    failures: list[str]


class PositionedSamples(Dataset[Drawn]):
    """The item at a position of the data stream; an unreadable one is replaced, and reported."""

    def __init__(self, samples: Samples, seed: int, batches: Batches) -> None:
        self.seed, self.batches = seed, batches
        chunks = samples.chunk_sizes if isinstance(samples, ChunkedSamples) else None
        self.samples = samples
        self.stream = Stream(samples.size, seed, chunks)

    def __getitem__(self, position: int) -> Drawn:
        failures: list[str] = []
        for attempt in range(_MOST_ATTEMPTS):
            index, seed = self.stream.item(position + attempt * _REPLACEMENTS)
            name = self.samples.name(index)
            try:
                return Drawn(self._draw(index, seed, position), name, failures)
            except UserError as error:
                failures.append(f"{name}: {error}")
        return Drawn(None, "", failures)

    def _draw(self, index: int, seed: int, position: int) -> Any:
        if not isinstance(self.samples, SteppedSamples):
            return self.samples.draw(index, seed)
        step = self.batches.step(position)
        return self.samples.draw_at(index, seed, step, key(self.seed, "of step", step))

    def collate(self, drawn: list[Drawn]) -> Fetched:
        """Items -> micro-batch."""
        complete = all(d.item is not None for d in drawn)
        return Fetched(
            sample=self.samples.collate([d.item for d in drawn]) if complete else None,
            names=[d.name for d in drawn],
            failures=[failure for d in drawn for failure in d.failures],
        )


@contextmanager
def open_loader(samples: Samples, seed: int, batches: Batches, workers: int) -> Iterator[Iterator[Fetched]]:
    """The micro-batches at the positions that `batches` lists. workers: processes that draw them ahead."""
    if samples.size == 0:
        raise UserError("there is no training sample: check data.root and data.source")
    dataset = PositionedSamples(samples, seed, batches)
    closing = multiprocessing.Event()
    loader = DataLoader(
        dataset,
        batch_sampler=batches,
        collate_fn=dataset.collate,
        num_workers=workers,
        worker_init_fn=WorkerSignals(closing),
    )
    try:
        yield iter(loader)
    finally:
        closing.set()


@dataclass
class WorkerSignals:
    """What a loader process does when it is signalled.

    Schedulers signal every process of a job, and a trainer whose workers die of it could not finish its step
    and save. So they carry on, until the trainer has closed the loader.
    """

    closing: Event

    def __call__(self, worker: int) -> None:
        """Install the handlers in this process."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.closing.is_set():
            os._exit(0)
