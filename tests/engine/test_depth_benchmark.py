"""engine.depth_benchmark: pairs are scored, skipped or, as the original does, scored all the same."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from dataloader.depth.pairs import SkippedPair, legacy_protocol
from engine.depth_benchmark import Scoring, run_benchmark
from engine.depth_predictors import Alignment, Predictors
from tests.engine.depth_models import Middle, room_tasks

MODELS = ("inpainted", "zero_aligned", "nearest")


def test_rows_and_pictures() -> None:
    tasks = room_tasks()
    results = run_benchmark(tasks, Predictors(Middle()), MODELS, Scoring(pictures=1))
    assert [(row["pair"], row["model"]) for row in results.rows] == [
        (task.name, model) for task in tasks for model in MODELS
    ]
    assert results.scenes == ["room5"]
    assert len(results.errors("nearest")) == len(results.errors("nearest", "room5")) == 2
    row, task = results.rows[0], tasks[0]
    truth = task.target.depth
    assert truth is not None
    error = (Middle().predict_depth(task) - truth).abs()[task.hidden > 0].mean()
    assert row["mae"] == pytest.approx(float(error), rel=1e-5)
    assert row["hidden"] == int(task.hidden.sum())
    assert row["known"] == pytest.approx(float((task.sparse > 0).float().mean()))
    assert len(results.pictures) == 1
    assert set(results.pictures[0].predictions) == set(MODELS)


def test_pairs_with_nothing_to_score_are_named() -> None:
    task = room_tasks()[0]
    covered = replace(task, hidden=torch.zeros_like(task.hidden), name="covered")
    apart = replace(task, sparse=torch.zeros_like(task.sparse), name="apart")
    missing = SkippedPair("room5", "gone", "a file is missing", counted=True)
    results = run_benchmark([covered, apart, missing, task], Predictors(Middle()), MODELS, Scoring())
    assert [(pair.name, pair.reason.split(":")[0]) for pair in results.skipped] == [
        ("covered", "nothing of known depth is hidden"),
        ("apart", "the views do not overlap"),
        ("gone", "a file is missing"),
    ]
    assert {row["pair"] for row in results.rows} == {task.name}


def test_the_original_scores_them_all_the_same() -> None:
    task = room_tasks(protocol=legacy_protocol(0.08))[0]
    covered = replace(task, hidden=torch.zeros_like(task.hidden))
    missing = SkippedPair("room5", "gone", "no photo", counted=True)
    absent = SkippedPair("room5", "absent", "no depth")
    predictors = Predictors(Middle(), alignment=Alignment("descent", 0.3))
    results = run_benchmark([covered, missing, absent, task], predictors, MODELS, Scoring("zero_depth"))
    for model in MODELS:
        first, second, third = results.errors(model)
        assert math.isnan(first)
        assert second == 0
        assert third > 0


def test_unknown_truth_counts_as_the_original_counts_it() -> None:
    task = room_tasks()[0]
    truth = task.target.depth
    assert truth is not None
    depth = truth + 1
    unknown = replace(task, target=replace(task.target, depth=torch.zeros_like(truth)))
    assert Scoring("no_error").scores(depth, task)["mae"] == pytest.approx(1, rel=1e-5)
    assert Scoring("no_error").scores(depth, unknown)["mae"] == 0
    hidden = task.hidden > 0
    assert Scoring("zero_depth").scores(depth, unknown)["mae"] == pytest.approx(
        float(depth[hidden].mean()), rel=1e-5
    )
