"""What a method's cost is made of: a training step, encoding the sources, rendering a view."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch

from common.errors import UserError
from engine.method import Method
from engine.profiling import Measured, measure, ran_out_of_memory
from engine.random_views import random_views
from geometry.cameras import Cameras
from geometry.views import Views

DTYPES = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class Work:
    """A row of a profile.

    what: the kind of work. count: training samples, source views or target views that it handles at once.
    tokens: of one training sample; 0 where the method has none. failure: why there is no measurement.
    """

    what: str
    count: int
    measured: Measured | None = None
    tokens: int = 0
    failure: str = ""
    settings: dict[str, int] = field(default_factory=dict)

    @property
    def per_second(self) -> float:
        """Samples or views per second."""
        return 0.0 if self.measured is None else self.count / self.measured.seconds

    def utilisation(self, peak: float) -> float:
        """Share of the peak FLOP/s that the work reaches."""
        return 0.0 if self.measured is None else self.measured.flops / self.measured.seconds / peak


@dataclass
class Bench:
    """Where and how work is measured. precision: no, bf16 or fp16, of autocast."""

    device: torch.device
    precision: str = "no"
    repeats: int = 3

    def autocast(self) -> AbstractContextManager[Any]:
        """The precision of the run, for a `with` block."""
        if self.precision == "no":
            return nullcontext()
        return torch.autocast(self.device.type, DTYPES[self.precision])

    def try_out(self, work: Work, function: Callable[[], Any]) -> Work:
        """Measure, or note that the memory is not enough."""
        try:
            work.measured = measure(function, self.device, self.repeats)
        except Exception as error:
            if not ran_out_of_memory(error):
                raise
            work.failure = "out of memory"
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return work


def parameter_counts(method: Method) -> tuple[int, int]:
    """Numbers of parameters: all, and those trained."""
    counts = [(p.numel(), p.requires_grad) for p in method.parameters()]
    return sum(n for n, _ in counts), sum(n for n, trained in counts if trained)


def training_step(method: Method, sample: Any, count: int, bench: Bench) -> Work:
    """Forward and backward pass of one training batch of `count` samples, without the optimiser."""
    method.to(bench.device).train()

    def step() -> None:
        with bench.autocast():
            losses = method(sample, 0)
        losses["loss"].backward()
        method.zero_grad(set_to_none=True)

    tokens = method.tokens_per_sample(sample)
    work = bench.try_out(Work("training step", count, tokens=tokens), step)
    method.zero_grad(set_to_none=True)
    return work


def inference(method: Method, source: Views, cameras: Cameras, bench: Bench) -> list[Work]:
    """Encoding the source views [S], and rendering the cameras [N] from them."""
    source, cameras = source.to(bench.device), cameras.to(bench.device)

    def encode() -> Any:
        with torch.no_grad(), bench.autocast():
            return method.encode(source)

    encoded = bench.try_out(Work("encode", len(source)), encode)
    if encoded.failure:
        return [encoded]
    state = encode()

    def render() -> None:
        with torch.no_grad(), bench.autocast():
            method.render(state, cameras)

    return [encoded, bench.try_out(Work("render", len(cameras)), render)]


def inference_table(
    method: Method, size: tuple[int, int], sources: Iterable[int], bench: Bench, targets: int = 1
) -> list[Work]:
    """Encoding so many random views and rendering `targets` from them, as one piece of work per row."""
    rows = []
    for count in sources:
        views = random_views(count + targets, *size).to(bench.device)

        def make(views: Views = views, count: int = count) -> None:
            with torch.no_grad(), bench.autocast():
                method.render(method.encode(views[:count]), views.cameras[count:])

        rows.append(bench.try_out(Work("inference", targets, settings={"sources": count}), make))
    return rows


def training_table(
    method: Method, batches: Iterable[int], draw: Callable[[int], Any], bench: Bench
) -> list[Work]:
    """Forward and backward pass, one row per batch size. draw: makes a training batch of a size."""
    rows = []
    for batch in batches:
        try:
            sample = draw(batch).to(bench.device)
        except (RuntimeError, MemoryError) as error:
            if not ran_out_of_memory(error):
                raise
            rows.append(Work("training step", batch, failure="out of memory", settings={"batch": batch}))
            continue
        rows.append(training_step(method, sample, batch, bench))
        rows[-1].settings = {"batch": batch}
    return rows


def scene_views(scene: Any, data: Any, size: tuple[int, int], reads_sources: bool) -> tuple[Views, Cameras]:
    """What a scene's evaluation would encode, and one camera it would render; of other data, random views."""
    from dataloader.scene import Scene
    from engine.data import source_views, view_size

    if not isinstance(scene, Scene):
        views = random_views(2, *size)
        return views[:1], views.cameras[1:]
    targets = scene.split(data.target)
    if not targets:
        raise UserError(f"scene {scene.name} has no photo in its split {data.target!r}: set data.target=all")
    return source_views(scene, data, reads_sources), scene.cameras(targets[:1], view_size(scene, data))
