"""Evaluation over many scenes: what is averaged, what is written, who does what, which sources are taken."""

from __future__ import annotations

import copy
import csv
import itertools
import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from common.errors import UserError
from dataloader.scene_sets import ViewTask
from dataloader.view_tasks import nested_sources, read_tasks
from engine.config import DataConfig
from engine.evaluator import Evaluator
from engine.lvsm_metrics import psnr_lvsm
from engine.memory import RENDERING, out_of_memory
from engine.method import Method
from engine.metrics import ImageMetrics
from engine.reports import format_table, write_reports
from engine.tasks import Tasks, find_tasks
from geometry.views import Rendering
from methods.baselines.photos import MeanView, NearestView
from tests.engine.rooms import Rooms, room, room_sets
from tests.engine.toy_method import ToyMethod, toy_experiment, train_toy


def evaluator(sets, **options) -> Evaluator:
    return Evaluator(sets, DataConfig(), ImageMetrics(), torch.device("cpu"), batch_size=2, **options)


class Cropped(NearestView):
    """Frames its photos otherwise."""

    def views(self, scene, indices, data):
        return scene.views(indices, (16, 16))


def test_means_are_taken_per_scene_and_then_over_scenes() -> None:
    report = evaluator(room_sets(2)).evaluate("mean_view", MeanView())
    assert [(row["scene"], row["view"]) for row in report.rows] == [
        ("room0", "0003"), ("room0", "0005"), ("room1", "0003"), ("room1", "0005"), ("room1", "0006"),
    ]  # fmt: skip
    values = [row["psnr"] for row in report.rows]
    assert report.mean("psnr") == pytest.approx((np.mean(values[:2]) + np.mean(values[2:])) / 2)
    mean = room(0).views([0, 8]).images.mean(0, keepdim=True)
    expected = psnr_lvsm(mean, room(0).views([3]).images)
    assert report.rows[0]["psnr_lvsm"] == pytest.approx(float(expected), abs=1e-4)
    summary = report.summary(ImageMetrics())
    assert (summary["n"], summary["scenes"], summary["sources"]) == (5, 2, 2)
    assert "scikit-image" in summary["definitions"]["ssim_lvsm"]


def test_files_table_and_sheet(tmp_path: Path) -> None:
    judge = evaluator(
        room_sets(2), folder=tmp_path, save_data=True, unnamed="nearest_view", framing=Cropped()
    )
    reports = [judge.evaluate(name, kind()) for name, kind in (("nearest_view", Cropped), ("mean", MeanView))]
    files = write_reports(reports, ImageMetrics(), tmp_path)
    assert Image.open(tmp_path / "generations/room1/0006.png").size == (16, 16)  # all framed by one method
    assert Image.open(tmp_path / "generations/mean/room1/0006.png").size == (16, 16)
    assert sorted(p.name for p in (tmp_path / "sources/room0").iterdir()) == ["0000.png", "0008.png"]
    assert sorted(p.name for p in (tmp_path / "targets/room0").iterdir()) == ["0003.png", "0005.png"]
    with (tmp_path / "per_image.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 10
    assert {row["sources"] for row in rows} == {"2"}
    with (tmp_path / "per_scene.csv").open() as file:
        scenes = [row for row in csv.DictReader(file) if row["method"] == "mean"]
    assert [(row["scene"], row["n"]) for row in scenes] == [("room0", "2"), ("room1", "3")]
    assert np.mean([float(row["psnr"]) for row in scenes]) == pytest.approx(reports[1].mean("psnr"))
    assert files[-1].name == "sheet.png"
    width, height = Image.open(files[-1]).size
    assert width > 7 * 180  # two sources, truth, two renders and two error maps
    assert 2 * 180 < height < 3 * 180  # a row per scene
    assert format_table(reports).splitlines()[1].split()[:4] == ["nearest_view", "2", "2", "5"]


def test_nested_sources_in_one_go(tmp_path: Path) -> None:
    sets = room_sets(2, sources=(4, 0, 8, 2))
    tasks = find_tasks(sets, "test", counts=[4, 2, 3])
    judge = evaluator(sets, tasks=tasks, folder=tmp_path)
    reports = judge.evaluate_all("mean_view", MeanView())
    assert [report.sources for report in reports] == [2, 3, 4]
    for report in reports:
        given = nested_sources(room(0), (4, 0, 8, 2), report.sources)
        mean = room(0).views(given).images.mean(0, keepdim=True)
        assert report.rows[0]["psnr_lvsm"] == pytest.approx(
            float(psnr_lvsm(mean, room(0).views([3]).images)), abs=1e-4
        )
        assert (tmp_path / f"generations/mean_view/{report.sources}_sources/room1/0003.png").is_file()
    write_reports(reports, ImageMetrics(), tmp_path)
    table = json.loads((tmp_path / "metrics.json").read_text())[0]["by_sources"]
    assert [table[n]["psnr"] for n in "234"] == pytest.approx([r.mean("psnr") for r in reports])
    alone = evaluator(sets, tasks=find_tasks(sets, "test", counts=[3])).evaluate("mean_view", MeanView())
    assert alone.mean("psnr") == reports[1].mean("psnr")


def test_nested_sources_start_at_the_ends_and_spread() -> None:
    scene, sources = room(0), (4, 0, 7, 8, 1)
    chosen = [set(nested_sources(scene, sources, n)) for n in range(1, 6)]
    assert chosen[0] == {0}
    assert chosen[1] == {0, 8}
    assert chosen[2] == {0, 4, 8}  # on an arc the middle is farthest from the ends
    assert all(fewer < more for fewer, more in itertools.pairwise(chosen))
    with pytest.raises(UserError, match="room0 has 5 source views"):
        nested_sources(scene, sources, 6)


@pytest.mark.parametrize("world", [1, 2, 3, 5, 8])
def test_processes_share_the_tasks_exactly(world: int) -> None:
    tasks = Tasks([ViewTask(i * 7 % 5, (0, 1), (2,)) for i in range(5)])
    shares = [tasks.share(rank, world) for rank in range(world)]
    assert sorted(itertools.chain(*shares)) == [0, 1, 2, 3, 4]
    scenes = [tasks.tasks[i].scene for share in shares for i in share]
    assert scenes == sorted(scenes)  # a chunk's scenes stay together
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@dataclass
class Fake:
    """One of two processes; what the other would send comes from its own evaluator."""

    process_index: int
    num_processes: int = 2
    sent: list = field(default_factory=list)


def test_two_processes_report_what_one_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run rank 1, keep what it gathers, and let rank 0 gather both."""
    alone = evaluator(room_sets(3)).evaluate("nearest_view", NearestView())
    other, first = Fake(1), Fake(0)
    gather = "accelerate.utils.gather_object"
    monkeypatch.setattr(gather, lambda value: other.sent.append(copy.deepcopy(value)) or value)
    evaluator(room_sets(3), accelerator=other).evaluate("nearest_view", NearestView())
    queue = iter(other.sent)
    monkeypatch.setattr(gather, lambda value: [*value, *next(queue)])
    together = evaluator(room_sets(3), accelerator=first).evaluate("nearest_view", NearestView())
    assert together.rows == alone.rows
    assert [p.index for p in together.pictures] == [p.index for p in alone.pictures]


def test_unreadable_scenes_are_counted_and_named(caplog: pytest.LogCaptureFixture) -> None:
    judge = evaluator(room_sets(4, broken=(0, 2)))
    judge.data.max_bad_fraction = 0.5
    report = judge.evaluate("mean_view", MeanView())
    assert report.scenes == ["room1", "room3"]
    assert [line.split(":")[0] for line in report.summary(ImageMetrics())["unreadable"]] == ["room0", "room2"]
    assert "room2 is left out: chunk 02.torch is cut off" in caplog.text
    judge.data.max_bad_fraction = 0.1
    with pytest.raises(UserError, match=r"1 of 4 scenes cannot be read.*room0: chunk 00\.torch") as caught:
        judge.evaluate("mean_view", MeanView())
    assert "\n" not in str(caught.value)


def test_an_index_beyond_a_scene_is_an_unreadable_scene() -> None:
    sets = room_sets(1)
    sets.tasks["test"] = [ViewTask(0, (0, 40), (3,))]
    with pytest.raises(UserError, match="names frame 40 of scene room0, which has 9"):
        evaluator(sets).evaluate("mean_view", MeanView())


def write_index(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content))
    return path


def test_index_files(tmp_path: Path) -> None:
    scenes = Rooms(3)
    entry = {"context": [0, 8], "target": [3]}
    path = write_index(tmp_path / "a.json", {"room2": entry, "room0": None, "room1": entry})
    assert read_tasks(path, scenes) == [ViewTask(2, (0, 8), (3,)), ViewTask(1, (0, 8), (3,))]
    for content, message in (
        ({"room9": entry}, "room9"),
        ({"room0": {"context": [], "target": [3]}}, "room0"),
        ({"room0": {"context": [1, -1], "target": [3]}}, "room0"),
        ({"room0": {"context": [1]}}, "room0"),
        ({"room0": None}, "no scene"),
        ([1], "must hold a JSON object"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            read_tasks(write_index(tmp_path / "bad.json", content), scenes)
        assert "bad.json" in str(caught.value)
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(UserError, match="not valid JSON"):
        read_tasks(tmp_path / "bad.json", scenes)
    with pytest.raises(UserError, match=r"none\.json cannot be read"):
        read_tasks(tmp_path / "none.json", scenes)


def test_several_index_files_share_their_targets(tmp_path: Path) -> None:
    sets = room_sets(2)
    contexts = {2: [0, 8], 3: [0, 8, 5]}
    paths = [
        write_index(tmp_path / f"{n}.json", {f"room{i}": {"context": c, "target": [3]} for i in range(2)})
        for n, c in contexts.items()
    ]
    reports = evaluator(sets, tasks=find_tasks(sets, "test", indices=paths)).evaluate_all("m", MeanView())
    assert [report.sources for report in reports] == [2, 3]
    mean = room(1).views([0, 8, 5]).images.mean(0, keepdim=True)
    expected = psnr_lvsm(mean, room(1).views([3]).images)
    assert reports[1].rows[1]["psnr_lvsm"] == pytest.approx(float(expected), abs=1e-4)
    other = write_index(tmp_path / "o.json", {"room0": {"context": [0], "target": [4]}})
    with pytest.raises(UserError, match=r"o\.json names other scenes or targets"):
        find_tasks(sets, "test", indices=[paths[0], other])
    with pytest.raises(UserError, match="exclude each other"):
        find_tasks(sets, "test", [2], paths)


def test_tasks_that_cannot_be_chosen() -> None:
    sets = room_sets(2)
    with pytest.raises(UserError, match="--sources 3: the index gives scene room0 2 source views"):
        find_tasks(sets, "test", [2, 3])
    sets.tasks.clear()
    with pytest.raises(UserError, match="no tasks on its split 'test'"):
        find_tasks(sets, "test")
    with pytest.raises(UserError, match="no split 'val'"):
        find_tasks(sets, "val")


def test_a_few_tasks_are_evenly_spread() -> None:
    tasks = Tasks([ViewTask(i, (0,), (1,)) for i in range(10)])
    assert [task.scene for task in tasks.spread(3).tasks] == [0, 3, 6]
    assert tasks.spread(0) is tasks
    assert tasks.spread(10) is tasks


class Greedy(Method):
    """Asks for more than there is."""

    def render(self, state, cameras) -> Rendering:
        raise torch.OutOfMemoryError(
            "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 139 GiB of which "
            "1 GiB is free. Process 1 has 138 GiB memory in use."
        )


def test_validation_takes_a_few_tasks_in_the_framing_of_the_method() -> None:
    from train import make_validation

    experiment = toy_experiment({"data.validation_scenes": 2})
    validate = make_validation(room_sets(3), experiment, torch.device("cpu"))
    sets = room_sets(3)
    own = [sets.tasks["test"][i] for i in (0, 1)]
    expected = evaluator(sets, tasks=Tasks(own)).evaluate("step 1", Cropped())
    assert validate(Cropped(), 1)["psnr"] == pytest.approx(expected.mean("psnr"))


def test_training_beyond_the_memory_names_the_batch_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forward(self, sample, step):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 is full.")

    monkeypatch.setattr(ToyMethod, "forward", forward)
    with pytest.raises(UserError, match=r"lower -b \(training\.batch_size\)"):
        train_toy(tmp_path)


def test_lack_of_memory_names_the_flag() -> None:
    with pytest.raises(UserError, match=r"Tried to allocate 20\.00 GiB\): lower -b") as caught:
        evaluator(room_sets(1)).evaluate("greedy", Greedy())
    assert "\n" not in str(caught.value)
    with (
        pytest.raises(UserError, match="too little memory: lower -b"),
        out_of_memory(RENDERING),
    ):
        torch.empty(1 << 60, dtype=torch.uint8)
    with pytest.raises(RuntimeError, match="size mismatch"), out_of_memory(RENDERING):
        raise RuntimeError("size mismatch")
