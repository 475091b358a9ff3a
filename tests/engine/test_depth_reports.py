"""engine.depth_reports and depth_runs: tables, means, intervals."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest

from common.errors import UserError
from dataloader.depth.pairs import DepthProtocol, SkippedPair
from dataloader.depth.room_tasks import RoomTasks
from engine.depth_benchmark import DepthResults, Scoring
from engine.depth_predictors import Predictors
from engine.depth_reports import (
    concat_results,
    format_summary,
    mean_interval,
    summarise,
    summary,
    write_depth_reports,
    write_scene_results,
)
from engine.depth_runs import run_scenes
from tests.engine.depth_models import Middle

NAN = math.nan


def results(errors: dict[str, dict[str, list[float]]]) -> DepthResults:
    """Results with such errors: model -> scene -> values."""
    found = DepthResults(tuple(errors))
    for model, scenes in errors.items():
        for scene, values in scenes.items():
            for i, value in enumerate(values):
                found.rows.append({"scene": scene, "pair": str(i), "model": model, "mae": value})
    return found


def test_intervals_cover_the_mean_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(60):
        low, high = mean_interval(rng.normal(3, 1, 40).tolist(), trial)
        covered += low <= 3 <= high
    assert 51 <= covered <= 60
    assert mean_interval([1.0, 2.0, 4.0], 1) == mean_interval([1.0, 2.0, 4.0], 1)
    assert mean_interval([2.0]) == (2.0, 2.0)
    assert all(math.isnan(end) for end in mean_interval([]))


def test_summaries() -> None:
    found = summarise([1.0, NAN, 4.0])
    assert (found["n"], found["mean"], found["median"], found["undefined"]) == (2, 2.5, 2.5, 1)
    assert math.isnan(summarise([1.0, NAN], skip_nan=False)["mean"])
    assert math.isnan(summarise([])["mean"])
    scores = results({"zero": {"a": [1.0, 2.0, 3.0], "b": [8.0]}})
    scores.skipped.append(SkippedPair("b", "x", "why"))
    whole = summary(scores)
    model = whole["models"]["zero"]
    assert model["mae"]["mean"] == 3.5
    assert model["scenes"] == {"a": 2.0, "b": 8.0}
    assert model["scene_mean"] == 5.0
    assert whole["skipped"] == [{"scene": "b", "pair": "x", "reason": "why"}]


def test_results_have_the_originals_format(tmp_path: Path) -> None:
    scores = results({"inpainted": {"a": [1.5, NAN], "b": [3.0]}, "zero": {"a": [2.0, 4.0], "b": [6.0]}})
    for scene in scores.scenes:
        write_scene_results(scores, scene, tmp_path)
    assert (tmp_path / "a_results.csv").read_text() == ",inpainted,zero\n0,1.5,2.0\n1,,4.0\n"
    found = concat_results(tmp_path)
    assert list(found) == ["Unnamed: 0", "inpainted", "zero"]
    assert [values["mean"] for values in found.values()] == pytest.approx([1 / 3, 2.25, 4.0])
    assert found["inpainted"]["n"] == 2
    text = format_summary(found)
    assert text.splitlines()[0].startswith("model")
    assert "4.0000" in text


def test_damaged_results_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no \*_results.csv"):
        concat_results(tmp_path)
    (tmp_path / "a_results.csv").write_text(",zero\n0,many\n")
    with pytest.raises(UserError, match=r"a_results\.csv holds 'many'"):
        concat_results(tmp_path)


def run(tmp_path: Path, *scenes: object) -> DepthResults:
    sources: list = list(scenes)
    return run_scenes(sources, Predictors(Middle()), ("inpainted", "nearest"), Scoring(), tmp_path)


def test_a_run_leaves_reports(tmp_path: Path) -> None:
    found = run(tmp_path, *(RoomTasks(seed, 24, 32, DepthProtocol()) for seed in (1, 2)))
    files = write_depth_reports(found, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        *("room1_results.csv", "room2_results.csv"),
        *("metrics.json", "per_pair.csv", "sheet.png"),
    }
    metrics = json.loads(files[0].read_text())
    assert set(metrics["models"]["nearest"]["scenes"]) == {"room1", "room2"}
    assert metrics["models"]["nearest"]["mae"]["n"] == 4
    assert metrics["models"]["inpainted"]["answered"] == 1
    with files[1].open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 8
    again = run(tmp_path / "again", *(RoomTasks(seed, 24, 32, DepthProtocol()) for seed in (1, 2)))
    assert again.rows == found.rows


def test_a_run_without_any_score_is_an_error(tmp_path: Path) -> None:
    class Empty:
        name = "empty"

        def tasks(self):
            yield SkippedPair("empty", "0-10", "a file is missing")

    class Pairless(Empty):
        def tasks(self):
            yield from ()

    write_depth_reports(run(tmp_path, Pairless()), tmp_path)  # a scene may have no pairs
    assert (tmp_path / "empty_results.csv").read_text() == ",inpainted,nearest\n"
    with pytest.raises(UserError, match=r"no pair of 1 scenes could be scored, e\.g\. a file is missing"):
        run(tmp_path, Empty())


def test_numbers_that_are_none_are_null(tmp_path: Path) -> None:
    write_depth_reports(results({"zero": {"a": [NAN]}}), tmp_path)
    assert json.loads((tmp_path / "metrics.json").read_text())["models"]["zero"]["mae"]["mean"] is None
