"""The geometry benchmark: how well models complete the depth that a new view leaves open
(specs/scene_lifting 6).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from dataloader.depth.pairs import SkippedPair
from dataloader.depth.tasks import DepthTask
from engine.depth_metrics import hidden_scores
from engine.depth_predictors import Predictors

# how the original scores hidden pixels whose truth is unknown: as without error, or as of depth 0
Unknown = Literal["no_error", "zero_depth"]


@dataclass(frozen=True)
class Picture:
    """One pair for people to look at. Everything [C, H, W]; predictions by model; hidden {0, 1}."""

    label: str
    photo: Tensor
    sparse: Tensor
    truth: Tensor
    hidden: Tensor
    predictions: dict[str, Tensor]
    errors: dict[str, float]


@dataclass
class DepthResults:
    """Scores of all pairs. rows: a dict per pair and model, with scene, pair, model, hidden (pixels), known
    (share of the target's pixels) and the scores, of which 'mae' (metres) is the benchmark's.
    """

    models: tuple[str, ...]
    rows: list[dict[str, Any]] = field(default_factory=list)
    skipped: list[SkippedPair] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)

    @property
    def scenes(self) -> list[str]:
        """The scenes, each once, in order."""
        return list(dict.fromkeys([*(row["scene"] for row in self.rows), *(s.scene for s in self.skipped)]))

    def errors(self, model: str, scene: str | None = None) -> list[float]:
        """The model's mean absolute error in every pair, in order."""
        return [row["mae"] for row in self.rows if row["model"] == model and scene in (None, row["scene"])]


@dataclass(frozen=True)
class Scoring:
    """How predictions are scored. legacy: the original's way, which counts hidden pixels whose truth is
    unknown as `legacy` says, scores what has no hidden pixel as nan and missing photos as 0; None: the
    correct way, which leaves all these out. pictures: how many pairs are kept for people to look at.
    """

    legacy: Unknown | None = None
    pictures: int = 4

    def scores(self, depth: Tensor, task: DepthTask) -> dict[str, float]:
        """Scores of one prediction [1, 1, H, W]."""
        truth = task.target.depth
        assert truth is not None
        if self.legacy is None:
            return hidden_scores(depth, truth, task.hidden)
        error = (depth - truth).abs()
        if self.legacy == "no_error":
            error = torch.where(truth > 0, error, 0)
        return {"mae": float(error[task.hidden > 0].mean())}

    def why_not(self, task: DepthTask) -> str:
        """Why a pair cannot be scored; empty where it can."""
        if self.legacy is not None:
            return ""
        if not (task.hidden > 0).any():
            return "nothing of known depth is hidden"
        return "" if (task.sparse > 0).any() else "the views do not overlap: nothing is known"


@torch.no_grad()
def run_benchmark(
    pairs: Iterable[DepthTask | SkippedPair],
    predictors: Predictors,
    models: Sequence[str],
    scoring: Scoring,
) -> DepthResults:
    """Let the models answer every pair, and score them.

    pairs: tasks, and pairs that give none. Raises UserError for a model that cannot answer.
    """
    results = DepthResults(tuple(models))
    for pair in pairs:
        if isinstance(pair, SkippedPair):
            results.skipped.append(pair)
            if scoring.legacy is not None and pair.counted:
                results.rows += [_row(pair.scene, pair.name, model, {"mae": 0.0}) for model in models]
            continue
        reason = scoring.why_not(pair)
        if reason:
            results.skipped.append(SkippedPair(pair.scene, pair.name, reason))
            continue
        _record(results, pair, predictors(pair, models), scoring)
    return results


def _record(results: DepthResults, task: DepthTask, found: dict[str, Tensor], scoring: Scoring) -> None:
    known = float((task.sparse > 0).double().mean())
    rows = [
        _row(task.scene, task.name, name, scoring.scores(depth, task), int(task.hidden.sum()), known)
        for name, depth in found.items()
    ]
    results.rows += rows
    if len(results.pictures) >= scoring.pictures:
        return
    assert task.target.depth is not None
    errors = {row["model"]: row["mae"] for row in rows}
    maps = {name: depth[0] for name, depth in found.items()}
    results.pictures.append(
        Picture(
            f"{task.scene} {task.name}",
            task.target.images[0],
            task.sparse[0],
            task.target.depth[0],
            task.hidden[0],
            maps,
            errors,
        )
    )


def _row(
    scene: str, pair: str, model: str, scores: dict[str, float], hidden: int = 0, known: float = math.nan
) -> dict[str, Any]:
    return {"scene": scene, "pair": pair, "model": model, "hidden": hidden, "known": known, **scores}
