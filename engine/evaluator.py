"""Evaluation: any method on a scene's held-out views -> metrics.json, per_image.csv, renders and a contact
sheet.
"""

from __future__ import annotations

import csv
import json
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.cli import progress
from common.errors import UserError
from common.files import replacing
from dataloader.images import write_image
from dataloader.pairs import PairData
from dataloader.scene import Batch, Scene
from engine.config import DataConfig
from engine.data import source_views, target_batches
from engine.device import clock
from engine.generative import DEFINITIONS as SET_DEFINITIONS
from engine.megascenes_metrics import DEFINITIONS as ORIGINAL_DEFINITIONS
from engine.method import Evaluation, Method
from engine.metrics import DEFINITIONS, ImageMetrics
from engine.pairs import pair_batches
from engine.set_scores import Accumulator
from engine.sheets import contact_sheet, error_map, write_sheet

if TYPE_CHECKING:
    from accelerate import Accelerator

log = logging.getLogger(__name__)

_SHEET_ROWS = 8


@dataclass
class Report:
    """Scores of one method: a row per image, in order, and the first pictures, to be shown.

    pictures: rendered and true image by row. pooled: scores of the set as a whole. unwritten: files and their
    images, to be written once some view shows something.
    """

    method: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    pictures: list[tuple[int, Tensor, Tensor]] = field(default_factory=list)
    encode_seconds: float = 0.0
    render_seconds: float = 0.0
    unwritten: list[tuple[Path, Tensor]] = field(default_factory=list)
    pooled: dict[str, Any] = field(default_factory=dict)

    @property
    def sees_something(self) -> bool:
        """Whether any pixel of any view so far is covered."""
        return any(row.get("coverage") != 0 for row in self.rows)

    def write_images(self) -> None:
        """Write what waits to be written, once some view shows something."""
        while self.sees_something and self.unwritten:
            path, image = self.unwritten.pop(0)
            write_image(image, path)

    @property
    def scores(self) -> list[str]:
        """Names of the scores, in order."""
        return [name for name in self.rows[0] if name not in ("scene", "view")]

    def defined(self, name: str) -> list[float]:
        """A score of the images that have it: one over covered pixels is nan where none is covered."""
        return [row[name] for row in self.rows if not math.isnan(row[name])]

    def mean(self, name: str) -> float:
        """Mean of a score over the images that have it; nan when none does."""
        values = self.defined(name)
        return sum(values) / len(values) if values else math.nan

    def summary(self, metrics: ImageMetrics) -> dict[str, Any]:
        """Means beside their n (smaller for scores that some images lack), definitions, what is missing and
        why, and times.
        """
        means = {name: self.mean(name) if self.defined(name) else None for name in self.scores}
        defined = {**DEFINITIONS, **SET_DEFINITIONS, **ORIGINAL_DEFINITIONS}
        return {
            "method": self.method,
            "n": len(self.rows),
            "means": means,
            **({"pooled": self.pooled} if self.pooled else {}),
            "n_where_fewer": {
                name: len(self.defined(name))
                for name in self.scores
                if len(self.defined(name)) < len(self.rows)
            },
            "definitions": {name: defined[name] for name in (*means, *self.pooled) if name in defined},
            "missing": metrics.missing,
            "encode_seconds": round(self.encode_seconds, 4),
            "render_seconds_per_image": round(self.render_seconds / len(self.rows), 4),
            "frames_per_second": round(len(self.rows) / max(self.render_seconds, 1e-9), 3),
        }


@dataclass
class Evaluator:
    """How methods are evaluated, so that all of them are treated alike.

    scene: a scene, whose sources are encoded once, or pairs, each with a source of its own. folder: where
    renders are written below generations/METHOD/ (and truth below targets/), as they come; None writes
    nothing. save_every: write every so many-th image. accelerator: of several processes, each of which takes
    its share of the targets; the first one's report then has all rows.
    """

    scene: Scene | PairData
    data: DataConfig
    metrics: ImageMetrics
    device: torch.device
    batch_size: int = 1
    folder: Path | None = None
    save_generations: bool = True
    save_data: bool = False
    save_every: int = 1
    accelerator: Accelerator | None = None
    unnamed: str = ""  # the method whose renders of pairs lie in generations/ itself

    def evaluate(self, name: str, method: Method, accumulators: Sequence[Accumulator] = ()) -> Report:
        """Render and score every target. accumulators: scores of pairs as a set."""
        method = method.to(self.device).eval()
        report = Report(name)
        rank, world = 0, 1
        if self.accelerator is not None:
            rank, world = self.accelerator.process_index, self.accelerator.num_processes
        if isinstance(self.scene, Scene):
            self._evaluate_scene(self.scene, report, method, rank, world)
        else:
            self._evaluate_pairs(self.scene, report, method, accumulators, rank, world)
        self._gather(report, accumulators)
        if not report.sees_something:
            raise UserError(
                f"{name} covers no pixel of any target view: do the scene's mesh and cameras fit?"
            )
        report.pooled = {k: v for a in accumulators for k, v in a.compute().items() if k != "n"}
        return report

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

    def _add(self, report: Report, indices: list[int], batch: Batch, evaluation: Evaluation) -> None:
        """Take a batch's scores and pictures into the report."""
        report.render_seconds += evaluation.seconds
        for i, (index, row) in enumerate(zip(indices, evaluation.rows, strict=True)):
            view = batch.target.names[i]
            report.rows.append({"scene": batch.scene[i], "view": view, **row, "_index": index})
            if evaluation.rendering is None:
                continue
            image, truth = evaluation.rendering.image[i], batch.target.images[i]
            if batch.pairs is not None:
                cut = batch.pairs[i].target_canvas.cut
                image, truth = cut(image), cut(truth)
            if len(report.pictures) < _SHEET_ROWS:
                report.pictures.append((index, image.cpu(), truth.cpu()))
            if self.folder is not None and index % self.save_every == 0:
                self._keep(report, index, batch, i, evaluation.rendering.image[i])
        report.write_images()

    def _keep(self, report: Report, index: int, batch: Batch, i: int, image: Tensor) -> None:
        """Remember files that are to be written. Pairs are numbered, as MegaScenes numbers them."""
        assert self.folder is not None
        if batch.pairs is None:
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

    def _gather(self, report: Report, accumulators: Sequence[Accumulator]) -> None:
        """Bring the processes' rows, pictures and sums together, in the order of the targets."""
        if self.accelerator is not None and self.accelerator.num_processes > 1:
            from accelerate.utils import gather_object

            report.rows = gather_object(report.rows)
            report.pictures = gather_object(report.pictures)
            report.render_seconds = sum(gather_object([report.render_seconds]))
            for accumulator in accumulators:
                for rank, state in enumerate(gather_object([accumulator.state()])):
                    if rank != self.accelerator.process_index:
                        accumulator.merge(state)
        report.rows.sort(key=lambda row: row["_index"])
        place = {row.pop("_index"): i for i, row in enumerate(report.rows)}
        report.pictures = sorted((place[k], a, b) for k, a, b in report.pictures)[:_SHEET_ROWS]


def _update(accumulator: Accumulator, images: Tensor, batch: Batch, indices: list[int]) -> None:
    """Show pairs to an accumulator, in [-1, 1]; where there are no warps (all of them are there or none),
    targets stand in their place, which nothing looks at.
    """
    assert batch.pairs is not None
    warps = [pair.target if pair.warp is None else pair.warp for pair in batch.pairs]
    warp = torch.stack(warps).to(images)
    accumulator.update(images * 2 - 1, batch.target.images * 2 - 1, warp * 2 - 1, torch.tensor(indices))


def write_reports(reports: list[Report], metrics: ImageMetrics, folder: Path) -> list[Path]:
    """Write what was measured; returns the files.

    metrics.json: one summary per method. per_image.csv: a row per method and image. sheet.png: truth, renders
    and error maps of the first views.
    """
    summaries = [report.summary(metrics) for report in reports]
    with replacing(folder / "metrics.json") as path:
        path.write_text(json.dumps(summaries, indent=2) + "\n")
    rows = [{"method": report.method, **row} for report in reports for row in report.rows]
    with replacing(folder / "per_image.csv") as path, path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    files = [folder / "metrics.json", folder / "per_image.csv"]
    if all(report.pictures for report in reports):
        write_sheet(_sheet(reports), folder / "sheet.png")
        files.append(folder / "sheet.png")
    return files


def _sheet(reports: list[Report]) -> NDArray[np.uint8]:
    """Two rows per held-out view: truth and every method's render; below each render its error map."""
    rows: list[list[Tensor]] = []
    captions: list[list[str]] = []
    for i, (row, _, truth) in enumerate(reports[0].pictures):
        renders = [report.pictures[i][1] for report in reports]
        scores = [report.rows[row] for report in reports]
        rows.append([truth, *renders])
        captions.append([str(scores[0]["view"]), *(f"PSNR {row['psnr']:.2f} dB" for row in scores)])
        rows.append([torch.ones_like(truth), *(error_map(render, truth) for render in renders)])
        covered = (f"covered: {row['psnr_covered']:.2f} dB" for row in scores)
        captions.append(["errors, white = 0.25:", *covered])
    return contact_sheet(rows, ["truth", *(report.method for report in reports)], captions, height=180)


def format_table(reports: list[Report]) -> str:
    """The reports as an aligned text table: one line per method, means over n images."""
    lines = [["method", "n", *reports[0].scores, "s/view"]]
    for report in reports:
        digits = {name: 4 if "ssim" in name or "lpips" in name else 3 for name in report.scores}
        scores = [f"{report.mean(name):.{digits[name]}f}" for name in report.scores]
        seconds = f"{report.render_seconds / len(report.rows):.3f}"
        lines.append([report.method, str(len(report.rows)), *scores, seconds])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(line[0].ljust(widths[0]) if c == 0 else line[c].rjust(widths[c]) for c in range(len(line)))
        for line in lines
    )
