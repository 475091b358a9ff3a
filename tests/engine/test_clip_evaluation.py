"""Clips under the evaluator: regions and flicker in one table, states reused, shares that add up."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from dataloader.scene_sets import SceneSets
from engine.config import DataConfig
from engine.evaluator import Evaluator
from engine.metrics import ImageMetrics
from engine.reports import Report, format_table, write_reports
from engine.rig_metrics import DEFINITIONS
from engine.rig_regions import BY_DEPTH, BY_PLATES
from engine.tasks import Tasks
from geometry.cameras import Cameras
from geometry.views import Rendering, Views
from methods.baselines.photos import MeanView, NearestView, SinglePlane
from tests.engine.clips import clip_sets

SCORES = ["psnr_dynamic", "psnr_static", "psnr_disoccluded", "psnr_recoverable", "flicker", "flicker_true"]


class Remembering(NearestView):
    """The nearest view; notes what it was given to reuse."""

    reuses_moments = True

    def __init__(self) -> None:
        super().__init__()
        self.given: list[Any] = []

    def encode(self, source: Views, reuse: Any = None) -> Any:
        self.given.append(reuse)
        state = super().encode(source)
        state.number = len(self.given)
        return state


class Plate(NearestView):
    """The plate of a source: a picture that stands still and lacks what moves."""

    def render(self, state: Any, cameras: Cameras) -> Rendering:
        assert state.source.background is not None
        return Rendering(state.source.background[-1:])


def _evaluator(sets: SceneSets, **options: Any) -> Evaluator:
    return Evaluator(sets, DataConfig(), ImageMetrics(), torch.device("cpu"), **options)


def test_a_row_per_target_with_its_regions(tmp_path: Path) -> None:
    evaluator = _evaluator(clip_sets(2, 3))
    reports = [evaluator.evaluate("still", Plate()), evaluator.evaluate("mean", MeanView())]
    still = reports[0]
    assert [row["scene"] for row in still.rows] == [f"clip{c}_{m:05d}" for c in (0, 1) for m in range(3)]
    assert still.scores[-6:] == SCORES
    assert "psnr_lvsm" not in still.scores
    assert [math.isnan(row["flicker"]) for row in still.rows] == [True, False, False] * 2
    assert still.mean("flicker") == 0 == still.mean("flicker_true")
    assert reports[1].mean("flicker") > 1  # ghosts
    assert still.mean("psnr_static") > still.mean("psnr_dynamic") + 3
    summary = still.summary(evaluator.metrics)
    assert summary["n_where_fewer"]["flicker"] == 4
    assert BY_DEPTH in summary["definitions"]["psnr_disoccluded"]
    assert BY_DEPTH in summary["definitions"]["psnr_recoverable_pooled"]
    assert set(summary["pooled"]) == {name for name in DEFINITIONS if "pooled" in name}
    assert summary["missing"] == {}
    files = {file.name for file in write_reports(reports, evaluator.metrics, tmp_path)}
    assert files == {"metrics.json", "per_image.csv", "per_scene.csv", "sheet.png"}
    assert "psnr_recoverable" in format_table(reports).splitlines()[0]
    assert len((tmp_path / "per_scene.csv").read_text().splitlines()) == 1 + 2 * 6
    assert all(picture.regions is not None for picture in still.pictures)


def test_pooled_errors_are_those_of_all_pixels(tmp_path: Path) -> None:
    report = _evaluator(clip_sets(1, 2)).evaluate("mean", MeanView())
    psnr = [row["psnr_static"] for row in report.rows]
    pooled = report.pooled["psnr_static_pooled"]
    assert min(psnr) <= pooled <= max(psnr)
    assert report.pooled["pooled_pixels"]["psnr_static_pooled"] < 2 * 24 * 32


@pytest.mark.parametrize(
    ("without", "left", "reason"),
    [
        (("foreground",), [], "no mattes"),
        (("depth", "background"), ["psnr_dynamic", "psnr_static", "flicker", "flicker_true"], "plates"),
        (("depth",), SCORES, ""),
    ],
)
def test_what_is_missing_is_no_number(without: tuple[str, ...], left: list[str], reason: str) -> None:
    evaluator = _evaluator(clip_sets(1, 2, without))
    report = evaluator.evaluate("mean", MeanView())
    assert [name for name in report.scores if name in SCORES] == left
    missing = evaluator.metrics.missing
    assert set(missing) == set(SCORES) - set(left)
    assert all(reason in why for why in missing.values())
    assert not any(name.removesuffix("_pooled") in missing for name in report.pooled)
    if not reason:
        assert BY_PLATES in report.definitions["psnr_disoccluded"]
        assert set(evaluator.plate_depths[0]) == {"cam00", "cam01", "cam02"}


def test_a_state_is_reused_within_its_clip_alone() -> None:
    method = Remembering()
    _evaluator(clip_sets(2, 3)).evaluate("remembering", method)
    assert [state and state.number for state in method.given] == [None, 1, 2, None, 4, 5]


def test_every_number_of_sources_has_a_state_of_its_own() -> None:
    sets, method = clip_sets(1, 3), Remembering()
    tasks = Tasks(sets.tasks["test"], lists=[[(0, 1)] * 3, [(0,), (0,), (1,)]])
    _evaluator(sets, tasks=tasks).evaluate_all("remembering", method)
    assert [state and state.number for state in method.given] == [None, None, 1, 2, 3, None]


def _rows(reports: list[Report]) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k != "_index"} for report in reports for row in report.rows]


def test_shares_of_two_processes_add_up_to_the_whole() -> None:
    """The second process starts in the middle of a clip: it looks at the moment before, too."""
    sets = clip_sets(1, 5)
    whole = _evaluator(sets).evaluate("mean", MeanView())
    evaluator = _evaluator(sets)
    parts = [evaluator._evaluate_sets(sets, "mean", MeanView(), rank, 2) for rank in (0, 1)]
    (first, clips), (second, others) = parts
    assert [len(first[0].rows), len(second[0].rows)] == [2, 3]
    assert clips is not None
    assert others is not None
    clips.merge(others.gathered())
    assert str(_rows([*first, *second])) == str(_rows([whole]))
    pooled = clips.scores[0].pooled()
    assert pooled.pop("pooled_pixels") == whole.pooled.pop("pooled_pixels")
    assert pooled == pytest.approx(whole.pooled, rel=1e-9)


def test_a_single_plane_of_every_source() -> None:
    sets = clip_sets(1, 2, ("depth",))
    method = SinglePlane.create(SinglePlane.Config(), sets)
    source = sets.split("test").scene(0).views([0, 1])
    assert SinglePlane.serves(sets)
    assert method.encode(source).depth.tolist() == pytest.approx([2 / (1 / 1.5 + 1 / 5)] * 2)
    source.depth = torch.full((2, 1, 24, 32), 3.0)
    source.depth[0, 0, :3] = 9
    assert method.encode(source).depth.tolist() == [3, 3]
    near = SinglePlane.create(SinglePlane.Config(depth=1.7), sets)
    assert near.encode(source).depth.tolist() == pytest.approx([1.7] * 2)
    evaluator = _evaluator(clip_sets(1, 2))
    plane = evaluator.evaluate("plane", SinglePlane.create(SinglePlane.Config(), sets))
    nearest = evaluator.evaluate("nearest", NearestView())
    assert plane.mean("psnr_covered") > nearest.mean("psnr_covered") + 5  # the wall is a plane
