"""Evaluation: any method on held-out views -> scores per image and the renders themselves."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from common.cli import progress
from common.errors import UserError
from dataloader.pairs import PairData
from dataloader.scene import Batch, Scene
from dataloader.scene_sets import FilmedScenes, SceneSets
from engine.clip_evaluation import ClipEvaluation
from engine.config import DataConfig
from engine.data import source_views, target_batches
from engine.device import clock
from engine.lvsm_metrics import lvsm_scores
from engine.memory import RENDERING, out_of_memory
from engine.method import Evaluation, Method
from engine.metrics import ImageMetrics
from engine.pairs import pair_batches
from engine.reports import SHEET_ROWS, Picture, Report
from engine.rig_metrics import ClipScores, region_picture
from engine.rig_regions import Regions
from engine.set_scores import Accumulator
from engine.tasks import Loaded, Tasks, ViewsOf, find_tasks, load_tasks

if TYPE_CHECKING:
    from accelerate import Accelerator

log = logging.getLogger(__name__)


@dataclass
class _Work:
    """A task as one variant has it. chosen: its sources, positions in `loaded.source`. scene: its index."""

    loaded: Loaded
    chosen: list[int]
    variant: int
    scene: int


@dataclass
class Evaluator:
    """How methods are evaluated, so that all of them are treated alike.

    scene: a scene, whose sources are encoded once; pairs, each with a source of its own; or sets of scenes,
    where every task has some. folder: where renders are written below generations/METHOD/ (and truth below
    targets/), as they come; None writes nothing. save_every: write every so many-th image (of sets: the
    images of every so many-th task). accelerator: of several processes, each of which takes its share of the
    targets; the first one's report then has all rows. tasks: on sets of scenes; None takes those of the split
    `data.target`. framing: the method by whose `views` photos of sets are framed, so that all methods are
    scored on the same pixels; None: by each method's own. plate_depths: of clips, as estimated so far.
    """

    scene: Scene | PairData | SceneSets
    data: DataConfig
    metrics: ImageMetrics
    device: torch.device
    batch_size: int = 1
    folder: Path | None = None
    save_generations: bool = True
    save_data: bool = False
    save_every: int = 1
    accelerator: Accelerator | None = None
    unnamed: str = ""  # the method whose renders of pairs and tasks lie in generations/ itself
    tasks: Tasks | None = None
    framing: Method | None = None
    plate_depths: dict[int, dict[str, Tensor]] = field(default_factory=dict)

    def evaluate(self, name: str, method: Method, accumulators: Sequence[Accumulator] = ()) -> Report:
        """Render and score every target. accumulators: scores of pairs as a set."""
        return self.evaluate_all(name, method, accumulators)[0]

    def evaluate_all(
        self, name: str, method: Method, accumulators: Sequence[Accumulator] = ()
    ) -> list[Report]:
        """Likewise, with a report per variant of the tasks on sets of scenes."""
        method = method.to(self.device).eval()
        clips = None
        rank, world = 0, 1
        if self.accelerator is not None:
            rank, world = self.accelerator.process_index, self.accelerator.num_processes
        with out_of_memory(RENDERING):
            if isinstance(self.scene, SceneSets):
                reports, clips = self._evaluate_sets(self.scene, name, method, rank, world)
            else:
                reports = [Report(name)]
                if isinstance(self.scene, Scene):
                    self._evaluate_scene(self.scene, reports[0], method, rank, world)
                else:
                    self._evaluate_pairs(self.scene, reports[0], method, accumulators, rank, world)
        for report in reports:
            self._gather(report, accumulators)
            if not report.sees_something:
                raise UserError(
                    f"{name} covers no pixel of any target view: do the scene's mesh and cameras fit?"
                )
            report.pooled = {k: v for a in accumulators for k, v in a.compute().items() if k != "n"}
        if clips is not None:
            self._gather_clips(clips)
            clips.finish(reports, self.metrics.missing)
        return reports

    def _evaluate_scene(self, scene: Scene, report: Report, method: Method, rank: int, world: int) -> None:
        """Encode the source views once, then every held-out view."""
        targets = scene.split(self.data.target)
        if not targets:
            raise UserError(
                f"scene {scene.name} has no view in split {self.data.target!r}: set data.target=all"
            )
        source = source_views(scene, self.data, method.reads_sources).to(self.device)
        started = clock(self.device)
        state = method.encode(source)
        report.encode_seconds = clock(self.device) - started
        own = list(range(rank, len(targets), world))
        with progress(own, report.method, total=len(own), unit="view") as bar, torch.no_grad():
            batches = target_batches(scene, self.data, self.batch_size, source, own)
            for start, batch in zip(range(0, len(own), self.batch_size), batches, strict=True):
                batch.target = batch.target.to(self.device)
                evaluation = method.evaluate(batch, state, self.metrics)
                self._add(report, own[start : start + self.batch_size], batch, evaluation)
                bar.update(len(batch.target))

    def _evaluate_pairs(
        self,
        data: PairData,
        report: Report,
        method: Method,
        accumulators: Sequence[Accumulator],
        rank: int,
        world: int,
    ) -> None:
        """Every target from the source it is paired with."""
        pairs = data.split(self.data.target)
        own = list(range(rank, len(pairs), world))
        with progress(own, report.method, total=len(own), unit="view") as bar, torch.no_grad():
            for indices, batch in pair_batches(pairs, own, self.batch_size):
                batch.source, batch.target = batch.source.to(self.device), batch.target.to(self.device)
                evaluation = method.evaluate_pairs(batch, self.metrics)
                if evaluation.rendering is not None and batch.pairs is not None:
                    for accumulator in accumulators:
                        _update(accumulator, evaluation.rendering.image, batch, indices)
                self._add(report, indices, batch, evaluation)
                bar.update(len(indices))

    def _evaluate_sets(
        self, sets: SceneSets, name: str, method: Method, rank: int, world: int
    ) -> tuple[list[Report], ClipEvaluation | None]:
        """Every target of every task, from the sources that each variant takes."""
        tasks = self.tasks or find_tasks(sets, self.data.target)
        reports = [Report(name, many_scenes=True, sources=tasks.count(v)) for v in range(tasks.variants)]
        own = tasks.share(rank, world)
        views = (self.framing or method).views
        clips = self._clips(sets, tasks, views)
        before = [] if clips is None else clips.lead_in(tasks, own)
        with progress(own, name, total=len(own), unit="scene") as bar, torch.no_grad():
            for loaded in load_tasks(sets, self.data.target, tasks, [*before, *own], self.data, views):
                if clips is not None:
                    clips.enter(loaded, tasks.tasks[loaded.position].scene)
                for variant, chosen in enumerate(loaded.chosen):
                    work = _Work(loaded, chosen, variant, tasks.tasks[loaded.position].scene)
                    report = None if loaded.position in before else reports[variant]
                    self._evaluate_task(report, method, work, clips)
                    if report is not None and loaded.position == own[0] and len(own) > 1:
                        report.encode_seconds = report.render_seconds = 0.0  # it warmed the device up
                        report.untimed = (len(report.rows), 1)
                if loaded.failure and loaded.position not in before:
                    self._count_unreadable(reports, loaded, len(tasks.tasks))
                bar.update(loaded.position not in before)
        return reports, clips

    def _clips(self, sets: SceneSets, tasks: Tasks, views: ViewsOf) -> ClipEvaluation | None:
        """What clips need beside single scenes; None where the scenes are no clips."""
        scenes = sets.split(self.data.target)
        if not isinstance(scenes, FilmedScenes):
            return None
        scores = [ClipScores() for _ in range(tasks.variants)]
        return ClipEvaluation(scenes, self.data, views, self.device, scores, self.plate_depths)

    def _evaluate_task(
        self, report: Report | None, method: Method, work: _Work, clips: ClipEvaluation | None
    ) -> None:
        """One task, from the sources of one variant. report: None for a moment that only precedes others."""
        loaded = work.loaded
        assert loaded.source is not None
        assert loaded.target is not None
        source, target = loaded.source[work.chosen].to(self.device), loaded.target
        started = clock(self.device)
        with torch.enable_grad():  # some methods optimise here
            state = method.encode(source) if clips is None else clips.encode(method, work.variant, source)
        if report is not None:
            report.encode_seconds += clock(self.device) - started
        for start in range(0, len(target), self.batch_size):
            part = target[start : start + self.batch_size].to(self.device)
            batch = Batch(source, part, [loaded.key] * len(part))
            evaluation = method.evaluate(batch, state, self.metrics)
            regions = self._score_further(work, batch, evaluation, clips, report is not None)
            if report is not None:
                indices = [(loaded.position, start + i) for i in range(len(part))]
                self._add(report, indices, batch, evaluation, regions)

    def _score_further(
        self,
        work: _Work,
        batch: Batch,
        evaluation: Evaluation,
        clips: ClipEvaluation | None,
        counts: bool,
    ) -> Regions | None:
        """Add what tasks are scored by besides: of clips their regions, else as LVSM does."""
        if evaluation.rendering is None:
            return None
        images, regions = evaluation.rendering.image, None
        if clips is None:
            lpips = self.metrics.networks.get("lpips_vgg")
            further = lvsm_scores(images, batch.target.images, lpips)
        else:
            further, regions = clips.score(
                work.variant, work.scene, batch.source, batch.target, images, counts
            )
        for row, scores in zip(evaluation.rows, further, strict=True):
            row |= scores
        return regions

    def _count_unreadable(self, reports: list[Report], loaded: Loaded, total: int) -> None:
        """Name a scene that cannot be read; raise UserError when there are too many of them."""
        log.warning("scene %s is left out: %s", loaded.key, loaded.failure)
        for report in reports:
            report.unreadable.append(f"{loaded.key}: {loaded.failure}")
        failures = len(reports[0].unreadable)
        if failures > self.data.max_bad_fraction * total:
            raise UserError(
                f"{failures} of {total} scenes cannot be read, more than data.max_bad_fraction "
                f"({self.data.max_bad_fraction:g}) allows; the last: {loaded.key}: {loaded.failure}"
            )

    def _add(
        self,
        report: Report,
        indices: Sequence[Any],
        batch: Batch,
        evaluation: Evaluation,
        regions: Regions | None = None,
    ) -> None:
        """Take a batch's scores and pictures into the report."""
        report.render_seconds += evaluation.seconds
        for i, (index, row) in enumerate(zip(indices, evaluation.rows, strict=True)):
            sources = {"sources": len(batch.source)} if report.many_scenes else {}
            name = {"scene": batch.scene[i], "view": batch.target.names[i], **sources}
            report.rows.append({**name, **row, "_index": index})
            if evaluation.rendering is None:
                continue
            image, truth = evaluation.rendering.image[i], batch.target.images[i]
            if batch.pairs is not None:
                cut = batch.pairs[i].target_canvas.cut
                image, truth = cut(image), cut(truth)
            first = not report.many_scenes or index[1] == 0  # of many scenes show one view each
            if len(report.pictures) < SHEET_ROWS and first:
                shown = list(batch.source.images.cpu()) if report.many_scenes else []
                marked = None if regions is None else region_picture(truth.cpu(), regions, i)
                report.pictures.append(Picture(index, image.cpu(), truth.cpu(), shown, marked))
            number = index[0] if report.many_scenes else index
            if self.folder is not None and number % self.save_every == 0:
                self._keep(report, index, batch, i, evaluation.rendering.image[i])
        report.write_images()

    def _task_files(
        self, report: Report, batch: Batch, i: int, image: Tensor
    ) -> dict[str, tuple[bool, Tensor]]:
        """Files of a target of a task: whether they are wanted, and what is in them."""
        scene, name = batch.scene[i], batch.target.names[i]
        below = "" if report.method == self.unnamed else f"{report.method}/"
        if self.tasks is not None and self.tasks.variants > 1:
            below += f"{len(batch.source)}_sources/"
        files = {f"generations/{below}{scene}/{name}.png": (self.save_generations, image)}
        files[f"targets/{scene}/{name}.png"] = (self.save_data, batch.target.images[i])
        for source, shown in zip(batch.source.names, batch.source.images, strict=True):
            files[f"sources/{scene}/{source}.png"] = (self.save_data and i == 0, shown)
        return files

    def _keep(self, report: Report, index: Any, batch: Batch, i: int, image: Tensor) -> None:
        """Remember files that are to be written. Pairs are numbered, as MegaScenes numbers them."""
        assert self.folder is not None
        if report.many_scenes:
            files = self._task_files(report, batch, i, image)
        elif batch.pairs is None:
            name = batch.target.names[i]
            files = {f"generations/{report.method}/{name}.png": (self.save_generations, image)}
            files[f"targets/{name}.png"] = (self.save_data, batch.target.images[i])
        else:
            pair = batch.pairs[i]
            below = "" if report.method == self.unnamed else f"{report.method}/"
            files = {f"generations/{below}{index}.png": (self.save_generations, image)}
            files[f"refimgs/{index}.png"] = (self.save_data, batch.source.images[i])
            files[f"tarimgs/{index}.png"] = (self.save_data, batch.target.images[i])
            if pair.coverage is not None:
                mask = (pair.coverage >= 0.5).float().expand(3, -1, -1)
                files[f"masks/{index}.png"] = (self.save_data, mask)
        report.unwritten += [(self.folder / name, shown) for name, (wanted, shown) in files.items() if wanted]

    def _gather_clips(self, clips: ClipEvaluation) -> None:
        """Bring what the processes pooled together."""
        if self.accelerator is not None and self.accelerator.num_processes > 1:
            from accelerate.utils import gather_object

            for rank, others in enumerate(gather_object([clips.gathered()])):
                if rank != self.accelerator.process_index:
                    clips.merge(others)

    def _gather(self, report: Report, accumulators: Sequence[Accumulator]) -> None:
        """Bring the processes' rows, pictures and sums together, in the order of the targets."""
        if self.accelerator is not None and self.accelerator.num_processes > 1:
            from accelerate.utils import gather_object

            report.rows = gather_object(report.rows)
            report.pictures = gather_object(report.pictures)
            report.render_seconds = sum(gather_object([report.render_seconds]))
            if report.many_scenes:
                report.encode_seconds = sum(gather_object([report.encode_seconds]))
                images, scenes = zip(*gather_object([report.untimed]), strict=True)
                report.untimed = (sum(images), sum(scenes))
                report.unreadable = gather_object(report.unreadable)
            for accumulator in accumulators:
                for rank, state in enumerate(gather_object([accumulator.state()])):
                    if rank != self.accelerator.process_index:
                        accumulator.merge(state)
        report.rows.sort(key=lambda row: row["_index"])
        place = {row.pop("_index"): i for i, row in enumerate(report.rows)}
        for picture in report.pictures:
            picture.index = place[picture.index]
        report.pictures = sorted(report.pictures, key=lambda picture: picture.index)[:SHEET_ROWS]


def _update(accumulator: Accumulator, images: Tensor, batch: Batch, indices: list[int]) -> None:
    """Show pairs to an accumulator, in [-1, 1]; where there are no warps (all of them are there or none),
    targets stand in their place, which nothing looks at.
    """
    assert batch.pairs is not None
    warps = [pair.target if pair.warp is None else pair.warp for pair in batch.pairs]
    warp = torch.stack(warps).to(images)
    accumulator.update(images * 2 - 1, batch.target.images * 2 - 1, warp * 2 - 1, torch.tensor(indices))
