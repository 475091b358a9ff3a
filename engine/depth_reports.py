"""What the geometry benchmark leaves behind: tables in the original's format and ours, means with intervals,
a sheet of pictures (specs/scene_lifting 6).
"""

from __future__ import annotations

import csv
import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common.errors import UserError
from common.files import replacing
from engine.depth_benchmark import DepthResults, Picture
from engine.sheets import contact_sheet, depth_map, error_map, write_sheet

_DRAWS, _BLOCK = 2000, 100  # resamplings of the bootstrap, and those made at once
_WHITE = 1.0  # metres of error that the sheet shows white
_SHEET_ROWS = 6
_INDEX = "Unnamed: 0"  # what pandas calls the column that the original leaves without a name
DEFINITIONS = {
    "mae": "mean absolute error of z-depth over the hidden pixels of a pair, in metres",
    "mean": "over pairs",
    "scene_mean": "per scene, then over scenes",
    "ci95": f"95 % confidence interval of the mean, from {_DRAWS} bootstrap resamplings of the pairs",
    "answered": "share of hidden pixels that were given a depth; the others are scored as depth 0",
    "legacy": "the original's protocol: soft unnormalised points, unknown truth counts, aligned by descent",
}


def mean_interval(values: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """A 95 % confidence interval of the mean: percentiles of bootstrap means, deterministic; nan without
    values.
    """
    if not values:
        return math.nan, math.nan
    rng = np.random.default_rng(seed)
    means = [rng.choice(values, (_BLOCK, len(values))).mean(1) for _ in range(_DRAWS // _BLOCK)]
    low, high = np.quantile(np.concatenate(means), [0.025, 0.975])
    return float(low), float(high)


def summarise(values: Sequence[float], seed: int = 0, skip_nan: bool = True) -> dict[str, Any]:
    """Count, mean, median and interval of the values that are numbers.

    skip_nan: False lets one nan spoil the mean, as the original's does.
    """
    numbers = [value for value in values if not math.isnan(value)]
    found = {
        "n": len(numbers),
        "mean": statistics.fmean(numbers if skip_nan else values) if values and numbers else math.nan,
        "median": statistics.median(numbers) if numbers else math.nan,
        "ci95": list(mean_interval(numbers, seed)),
    }
    undefined = len(values) - len(numbers)
    return {**found, "undefined": undefined} if undefined else found


def summary(results: DepthResults, seed: int = 0, skip_nan: bool = True) -> dict[str, Any]:
    """All models' means, per scene too, and the pairs that were left out."""
    models = {}
    for model in results.models:
        scenes = {}
        for scene in results.scenes:
            errors = [value for value in results.errors(model, scene) if not math.isnan(value)]
            if errors:
                scenes[scene] = statistics.fmean(errors)
        other = _other_means(results, model)
        whole = summarise(results.errors(model), seed, skip_nan)
        scene_mean = statistics.fmean(scenes.values()) if scenes else math.nan
        models[model] = {"mae": whole, **other, "scene_mean": scene_mean, "scenes": scenes}
    skipped = [{"scene": s.scene, "pair": s.name, "reason": s.reason} for s in results.skipped]
    return {"models": models, "skipped": skipped, "definitions": DEFINITIONS}


def _other_means(results: DepthResults, model: str) -> dict[str, float]:
    rows = [row for row in results.rows if row["model"] == model]
    names = [name for name in ("rmse", "abs_rel", "delta1", "answered") if rows and name in rows[0]]
    return {name: statistics.fmean(row[name] for row in rows) for name in names}


def write_depth_reports(
    results: DepthResults, folder: Path, seed: int = 0, skip_nan: bool = True
) -> list[Path]:
    """Write metrics.json, per_pair.csv and sheet.png; returns the files."""
    files = [folder / "metrics.json", folder / "per_pair.csv"]
    with replacing(files[0]) as path:
        path.write_text(json.dumps(plain(summary(results, seed, skip_nan)), indent=2) + "\n")
    with replacing(files[1]) as path, path.open("w", newline="", encoding="utf-8") as stream:
        columns = list(dict.fromkeys(name for row in results.rows for name in row))
        writer = csv.DictWriter(stream, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(results.rows)
    if results.pictures:
        files.append(folder / "sheet.png")
        write_sheet(_sheet(results.pictures[:_SHEET_ROWS]), files[-1])
    return files


def plain(value: Any) -> Any:
    """The value with null for every number that is none, which JSON does not know."""
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _sheet(pictures: list[Picture]) -> np.ndarray:
    """A row per pair: photo, what is known, truth, and every model's answer beside its error."""
    rows, captions = [], []
    for picture in pictures:
        maps = [picture.sparse, picture.truth, *picture.predictions.values()]
        colored = depth_map(torch.cat(maps, dim=-1)).chunk(len(maps), dim=-1)  # on one scale
        row, caption = [picture.photo, *colored[:2]], [picture.label, "", ""]
        for (name, depth), image in zip(picture.predictions.items(), colored[2:], strict=True):
            row += [image, error_map(depth * picture.hidden, picture.truth * picture.hidden, _WHITE)]
            caption += [f"{picture.errors[name]:.3f} m", f"hidden pixels, white = {_WHITE:g} m"]
        rows.append(row)
        captions.append(caption)
    titles = [title for name in pictures[0].predictions for title in (name, "error")]
    return contact_sheet(rows, ["photo", "known depth", "true depth", *titles], captions, height=160)


def write_scene_results(results: DepthResults, scene: str, folder: Path) -> Path:
    """Write {scene}_results.csv as the original does: an index and a column of errors per model."""
    path = folder / f"{scene}_results.csv"
    columns = [results.errors(model, scene) for model in results.models]
    with replacing(path) as partial, partial.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["", *results.models])
        for i, errors in enumerate(zip(*columns, strict=True)):
            writer.writerow([i, *("" if math.isnan(error) else error for error in errors)])
    return path


def read_results(folder: Path) -> dict[str, list[float]]:
    """All columns of all *_results.csv in a folder; a column that a file lacks adds nothing.

    The nameless first column is called as pandas calls it. Raises UserError when there is no such file, or a
    damaged one.
    """
    files = sorted(folder.glob("*_results.csv"))
    if not files:
        raise UserError(f"{folder} holds no *_results.csv: give the --out_dir of a benchmark")
    columns: dict[str, list[float]] = {}
    for path in files:
        with path.open(newline="", encoding="utf-8") as stream:
            for row in csv.DictReader(stream):
                for name, text in row.items():
                    columns.setdefault(name or _INDEX, []).append(_number(text, path))
    return columns


def _number(text: str | None, path: Path) -> float:
    try:
        return float(text) if text else math.nan
    except (TypeError, ValueError):
        raise UserError(f"{path} holds {text!r} where a number should be: make it again") from None


def concat_results(folder: Path, seed: int = 0) -> dict[str, dict[str, Any]]:
    """Every column's summary over all *_results.csv of a folder. Raises UserError as `read_results`."""
    return {name: summarise(values, seed) for name, values in read_results(folder).items()}


def format_summary(found: dict[str, dict[str, Any]]) -> str:
    """Summaries by model as an aligned table; answered: share of hidden pixels given a depth, where known."""
    lines = [["model", "pairs", "mean", "median", "95 % interval of the mean", "answered"]]
    for name, values in found.items():
        low, high = values["ci95"]
        numbers = [f"{values[kind]:.4f}" for kind in ("mean", "median")]
        answered = f"{values['answered']:.1%}" if "answered" in values else ""
        lines.append([name, str(values["n"]), *numbers, f"{low:.4f} to {high:.4f}", answered])
    if not any("answered" in values for values in found.values()):
        lines = [line[:-1] for line in lines]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
