"""What an evaluation measured: scores per image, their means, tables, files and contact sheets."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.files import replacing
from dataloader.images import write_image
from engine.generative import DEFINITIONS as SET_DEFINITIONS
from engine.lvsm_metrics import DEFINITIONS as LVSM_DEFINITIONS
from engine.megascenes_metrics import DEFINITIONS as MEGASCENES_DEFINITIONS
from engine.metrics import DEFINITIONS, ImageMetrics
from engine.sheets import contact_sheet, error_map, write_sheet

SHEET_ROWS = 8
_SHEET_SOURCES = 4
_NOT_SCORES = ("scene", "view", "sources", "_index")


@dataclass
class Picture:
    """A render and the true image [3, H, W], to be shown. index: of its row. sources: it was made from.
    regions: a picture of the parts that are scored by themselves.
    """

    index: Any
    image: Tensor
    truth: Tensor
    sources: list[Tensor] = field(default_factory=list)
    regions: Tensor | None = None


@dataclass
class Report:
    """Scores of one method: a row per image, in order, and the first pictures, to be shown.

    pooled: scores of the set as a whole. unwritten: files and their images, to be written once some view
    shows something. many_scenes: whether means are taken per scene first and then over scenes. sources: views
    given per target, where all targets have as many. unreadable: what could not be evaluated, and why.
    untimed: images and encoded source sets of the first scene, which warm the device up and are left out of
    the times. definitions: of scores, besides those that all evaluations share.
    """

    method: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    encode_seconds: float = 0.0
    render_seconds: float = 0.0
    unwritten: list[tuple[Path, Tensor]] = field(default_factory=list)
    pooled: dict[str, Any] = field(default_factory=dict)
    many_scenes: bool = False
    sources: int | None = None
    unreadable: list[str] = field(default_factory=list)
    untimed: tuple[int, int] = (0, 0)
    definitions: dict[str, str] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """What sheets call it."""
        return self.method if self.sources is None else f"{self.method}, {self.sources} sources"

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
        return [name for name in self.rows[0] if name not in _NOT_SCORES]

    @property
    def scenes(self) -> list[str]:
        """The scenes that were scored, each once."""
        return list(dict.fromkeys(row["scene"] for row in self.rows))

    def defined(self, name: str) -> list[float]:
        """A score of the images that have it: one over covered pixels is nan where none is covered."""
        return [row[name] for row in self.rows if not math.isnan(row[name])]

    def mean(self, name: str) -> float:
        """Mean of a score over the images that have it (of many scenes: per scene, then over these); nan when
        none does.
        """
        if not self.many_scenes:
            return _mean(self.defined(name))
        return _mean([value for row in self.scene_rows() if not math.isnan(value := row[name])])

    def scene_rows(self) -> list[dict[str, Any]]:
        """Per scene: number of images, and the mean of every score over those that have it."""
        rows = []
        for scene in self.scenes:
            own = Report(self.method, [row for row in self.rows if row["scene"] == scene])
            means = {name: own.mean(name) for name in self.scores}
            first = {"method": self.method, "scene": scene, "sources": own.rows[0].get("sources")}
            rows.append({**first, "n": len(own.rows), **means})
        return rows

    @property
    def seconds_per_image(self) -> float:
        return self.render_seconds / max(len(self.rows) - self.untimed[0], 1)

    def summary(self, metrics: ImageMetrics) -> dict[str, Any]:
        """Means beside their n (smaller for scores that some images lack), definitions, what is missing and
        why, and times.
        """
        means = {name: self.mean(name) if self.defined(name) else None for name in self.scores}
        shared = {**DEFINITIONS, **SET_DEFINITIONS, **MEGASCENES_DEFINITIONS, **LVSM_DEFINITIONS}
        defined = {**shared, **self.definitions}
        return {
            "method": self.method,
            "n": len(self.rows),
            **(self._scenes_summary() if self.many_scenes else {}),
            "means": means,
            **({"pooled": self.pooled} if self.pooled else {}),
            "n_where_fewer": {
                name: len(self.defined(name))
                for name in self.scores
                if len(self.defined(name)) < len(self.rows)
            },
            "definitions": {name: defined[name] for name in (*means, *self.pooled) if name in defined},
            "missing": metrics.missing,
            "encode_seconds": round(self._encode_seconds(), 4),
            "render_seconds_per_image": round(self.seconds_per_image, 4),
            "frames_per_second": round(1 / max(self.seconds_per_image, 1e-9), 3),
        }

    def _encode_seconds(self) -> float:
        """Of one set of sources."""
        encoded = len(self.scenes) - self.untimed[1] if self.many_scenes else 1
        return self.encode_seconds / max(encoded, 1)

    def _scenes_summary(self) -> dict[str, Any]:
        return {
            "scenes": len(self.scenes),
            "sources": self.sources,
            "averaging": "mean per scene, then over scenes",
            "unreadable": self.unreadable,
        }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def write_reports(reports: list[Report], metrics: ImageMetrics, folder: Path) -> list[Path]:
    """Write what was measured; returns the files.

    metrics.json: one summary per method (and number of sources). per_image.csv: a row per method and image.
    per_scene.csv: of many scenes, their means. sheet.png: truth, renders and error maps of the first views.
    """
    summaries = [report.summary(metrics) for report in reports]
    for summary in summaries:
        same = [o for o in summaries if o["method"] == summary["method"] and o.get("sources")]
        if len(same) > 1:
            summary["by_sources"] = {str(other["sources"]): other["means"] for other in same}
    with replacing(folder / "metrics.json") as path:
        path.write_text(json.dumps(summaries, indent=2) + "\n")
    files = [folder / "metrics.json", folder / "per_image.csv"]
    _write_csv([{"method": report.method, **row} for report in reports for row in report.rows], files[1])
    if reports[0].many_scenes:
        files.append(folder / "per_scene.csv")
        _write_csv([row for report in reports for row in report.scene_rows()], files[-1])
    if all(report.pictures for report in reports):
        sheet = _tasks_sheet(reports) if reports[0].many_scenes else _sheet(reports)
        write_sheet(sheet, folder / "sheet.png")
        files.append(folder / "sheet.png")
    return files


def _write_csv(rows: list[dict[str, Any]], file: Path) -> None:
    with replacing(file) as path, path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _sheet(reports: list[Report]) -> NDArray[np.uint8]:
    """Two rows per held-out view: truth and every method's render; below each render its error map."""
    rows: list[list[Tensor]] = []
    captions: list[list[str]] = []
    for i, picture in enumerate(reports[0].pictures):
        truth = picture.truth
        renders = [report.pictures[i].image for report in reports]
        scores = [report.rows[picture.index] for report in reports]
        rows.append([truth, *renders])
        captions.append([str(scores[0]["view"]), *(f"PSNR {row['psnr']:.2f} dB" for row in scores)])
        rows.append([torch.ones_like(truth), *(error_map(render, truth) for render in renders)])
        covered = (f"covered: {row['psnr_covered']:.2f} dB" for row in scores)
        captions.append(["errors, white = 0.25:", *covered])
    return contact_sheet(rows, ["truth", *(report.method for report in reports)], captions, height=180)


def _tasks_sheet(reports: list[Report]) -> NDArray[np.uint8]:
    """A row per scene: sources, truth, and every report's render beside its error map."""
    rows: list[list[Tensor]] = []
    captions: list[list[str]] = []
    most = max(reports, key=lambda report: max(len(p.sources) for p in report.pictures))
    columns = min(_SHEET_SOURCES, max(len(picture.sources) for picture in most.pictures))
    for i, picture in enumerate(most.pictures):
        sources, truth = _spread(picture.sources, columns), picture.truth
        scores = [report.rows[report.pictures[i].index] for report in reports]
        rows.append([*sources, truth])
        captions.append([*("" for _ in sources), f"{scores[0]['scene']} {scores[0]['view']}"])
        if any(shown.regions is not None for shown in most.pictures):
            rows[-1].append(torch.ones_like(truth) if picture.regions is None else picture.regions)
            captions[-1].append("red: moves, green: on a plate, blue: unseen")
        for report, row in zip(reports, scores, strict=True):
            render = report.pictures[i].image
            rows[-1] += [render, error_map(render, truth)]
            captions[-1] += [f"PSNR {row['psnr']:.2f} dB", "white = 0.25"]
    titles = [*(f"source {i + 1}" for i in range(columns)), "truth"]
    titles += ["regions"] if any(shown.regions is not None for shown in most.pictures) else []
    titles += [title for report in reports for title in (report.label, "error")]
    return contact_sheet(rows, titles, captions, height=180)


def _spread(images: list[Tensor], count: int) -> list[Tensor]:
    """`count` of the images, the first and the last among them; white ones where there are fewer."""
    if len(images) < count:
        return images + [torch.ones_like(images[0])] * (count - len(images))
    step = (len(images) - 1) / max(count - 1, 1)
    return [images[round(i * step)] for i in range(count)]


def format_table(reports: list[Report]) -> str:
    """The reports as an aligned text table: a line per method (and number of sources), means over images."""
    many = reports[0].many_scenes
    lines = [["method", *(["sources", "scenes"] if many else []), "n", *reports[0].scores, "s/view"]]
    for report in reports:
        digits = {name: 4 if "ssim" in name or "lpips" in name else 3 for name in report.scores}
        scores = [f"{report.mean(name):.{digits[name]}f}" for name in report.scores]
        counts = [str(report.sources or "mixed"), str(len(report.scenes))] if many else []
        seconds = f"{report.seconds_per_image:.3f}"
        lines.append([report.method, *counts, str(len(report.rows)), *scores, seconds])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(line[0].ljust(widths[0]) if c == 0 else line[c].rjust(widths[c]) for c in range(len(line)))
        for line in lines
    )
