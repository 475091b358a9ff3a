"""Runs of the geometry benchmark over the scenes of a data set, scene by scene."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from common.cli import progress
from common.errors import UserError
from dataloader.depth.pairs import SkippedPair
from dataloader.depth.tasks import DepthTask
from engine.depth_benchmark import DepthResults, Scoring, run_benchmark
from engine.depth_predictors import Predictors
from engine.depth_reports import write_scene_results

log = logging.getLogger(__name__)


class TaskSource(Protocol):
    """A scene of a benchmark."""

    @property
    def name(self) -> str: ...

    def tasks(self) -> Iterator[DepthTask | SkippedPair] | Iterator[DepthTask]: ...


def run_scenes(
    scenes: Sequence[TaskSource],
    predictors: Predictors,
    models: Sequence[str],
    scoring: Scoring,
    out_dir: Path,
) -> DepthResults:
    """Score every scene; its {scene}_results.csv is written as soon as it is done.

    Raises UserError when there are pairs, but not one could be scored.
    """
    total = DepthResults(tuple(models))
    for scene in progress(scenes, "scenes", unit="scene", disable=len(scenes) == 1):
        tasks = progress(scene.tasks(), scene.name, unit="pair", leave=False)
        found = run_benchmark(tasks, predictors, models, scoring)
        write_scene_results(found, scene.name, out_dir)
        for skipped in found.skipped:
            log.warning("%s %s is left out: %s", skipped.scene, skipped.name, skipped.reason)
        total.rows += found.rows
        total.skipped += found.skipped
        total.pictures += found.pictures
    if total.skipped and not total.rows:
        reason = total.skipped[0].reason
        raise UserError(f"no pair of {len(scenes)} scenes could be scored, e.g. {reason}")
    return total
