"""Evaluation: any method on a scene's held-out views -> metrics.json, per_image.csv, renders and a contact
sheet.
"""

from __future__ import annotations

import csv
import json
import logging
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.cli import progress
from common.errors import UserError
from common.files import replacing
from dataloader.images import write_image
from dataloader.scene import Scene
from engine.config import DataConfig
from engine.data import source_views, target_batches
from engine.device import clock
from engine.method import Method
from engine.metrics import DEFINITIONS, ImageMetrics
from engine.sheets import contact_sheet, error_map, write_sheet
from geometry.views import Rendering, Views

log = logging.getLogger(__name__)

_SHEET_ROWS = 8


@dataclass
class Report:
    """Scores of one method on a scene: a row per image, in order, and the first pictures, to be shown."""

    method: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    pictures: list[tuple[Tensor, Tensor]] = field(default_factory=list)  # rendered, true
    encode_seconds: float = 0.0
    render_seconds: float = 0.0
    unwritten: list[tuple[Path, Tensor]] = field(default_factory=list)  # files and their images

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
        return {
            "method": self.method,
            "n": len(self.rows),
            "means": {name: self.mean(name) if self.defined(name) else None for name in self.scores},
            "n_where_fewer": {
                name: len(self.defined(name))
                for name in self.scores
                if len(self.defined(name)) < len(self.rows)
            },
            "definitions": {name: DEFINITIONS[name] for name in self.scores if name in DEFINITIONS},
            "missing": metrics.missing,
            "encode_seconds": round(self.encode_seconds, 4),
            "render_seconds_per_image": round(self.render_seconds / len(self.rows), 4),
            "frames_per_second": round(len(self.rows) / max(self.render_seconds, 1e-9), 3),
        }


@dataclass
class Evaluator:
    """How methods are evaluated on a scene, so that all of them are treated alike.

    folder: where renders are written below generations/METHOD/ (and truth below targets/), as they come; None
    writes nothing.
    """

    scene: Scene
    data: DataConfig
    metrics: ImageMetrics
    device: torch.device
    batch_size: int = 1
    folder: Path | None = None
    save_generations: bool = True
    save_data: bool = False

    def evaluate(self, name: str, method: Method) -> Report:
        """Encode the source views once, then render and score every held-out view."""
        if not self.scene.split(self.data.target):
            raise UserError(
                f"scene {self.scene.name} has no view in split {self.data.target!r}: set data.target=all"
            )
        method = method.to(self.device).eval()
        source = source_views(self.scene, self.data, method.reads_sources).to(self.device)
        report = Report(name)
        started = clock(self.device)
        state = method.encode(source)
        report.encode_seconds = clock(self.device) - started
        count = len(self.scene.split(self.data.target))
        with progress(range(count), name, total=count, unit="view") as bar, torch.no_grad():
            for batch in target_batches(self.scene, self.data, self.batch_size, source):
                target = batch.target = batch.target.to(self.device)
                evaluation = method.evaluate(batch, state, self.metrics)
                report.render_seconds += evaluation.seconds
                for scene, view, row in zip(batch.scene, target.names, evaluation.rows, strict=True):
                    report.rows.append({"scene": scene, "view": view, **row})
                if evaluation.rendering is not None:
                    self._keep(report, target, evaluation.rendering)
                report.write_images()
                bar.update(len(target))
        if not report.sees_something:
            raise UserError(
                f"{name} covers no pixel of any target view: do the scene's mesh and cameras fit?"
            )
        return report

    def _keep(self, report: Report, target: Views, rendering: Rendering) -> None:
        """Remember the renders that are to be written, and the first for the sheet."""
        for i, name in enumerate(target.names):
            if self.folder is not None and self.save_generations:
                path = self.folder / "generations" / report.method / f"{name}.png"
                report.unwritten.append((path, rendering.image[i]))
            if self.folder is not None and self.save_data:
                report.unwritten.append((self.folder / "targets" / f"{name}.png", target.images[i]))
            if len(report.pictures) < _SHEET_ROWS:
                report.pictures.append((rendering.image[i].cpu(), target.images[i].cpu()))


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
    for i, (_, truth) in enumerate(reports[0].pictures):
        renders = [report.pictures[i][0] for report in reports]
        scores = [report.rows[i] for report in reports]
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
