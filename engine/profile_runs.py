"""What profiling measures of a method: its steps, or tables over batch sizes and numbers of sources."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from common.cli import progress
from engine.config import Experiment
from engine.method import Method
from engine.sampling import Stream
from engine.workloads import (
    Bench,
    Work,
    inference,
    inference_table,
    scene_views,
    training_step,
    training_table,
)


def measure_once(
    method: Method, experiment: Experiment, scene: Any, bench: Bench, args: argparse.Namespace
) -> list[Work]:
    """A training step where the method trains, encoding the sources, rendering one view."""
    rows = []
    if method.trains:
        batch = args.batch_size or experiment.training.batch_size
        sample = drawing(method, experiment, scene, None)(batch)
        rows.append(training_step(method, sample.to(bench.device), batch, bench))
    method.eval().prepare_inference()
    size = tuple(args.size) if args.size else method.view_size() or (256, 256)
    views, cameras = scene_views(scene, experiment.data, size, method.reads_sources)
    return rows + inference(method, views, cameras, bench)


def tabulate(
    method: Method, experiment: Experiment, scene: Any, bench: Bench, args: argparse.Namespace
) -> list[Work]:
    """Training steps over batch sizes, inference over numbers of sources."""
    rows = []
    if method.trains:
        draw = drawing(method, experiment, scene, tuple(args.views))
        rows += training_table(method, progress(args.batches, "training steps", leave=False), draw, bench)
    method.eval().prepare_inference()
    size = tuple(args.size) if args.size else method.view_size() or (256, 256)
    counts = progress(range(1, args.sources + 1), "inference", leave=False)
    return rows + inference_table(method, size, counts, bench)


def drawing(
    method: Method, experiment: Experiment, scene: Any, views: tuple[int, int] | None
) -> Callable[[int], Any]:
    """How a training batch of a size is made: of random content with so many views, else from the data."""

    def draw(batch: int) -> Any:
        random = method.random_sample(batch, *views) if views else None
        if random is not None:
            return random
        samples = method.samples(scene, experiment.data)
        stream = Stream(samples.size, experiment.training.seed)
        return samples.collate([samples.draw(*stream.item(i)) for i in range(batch)])

    return draw
