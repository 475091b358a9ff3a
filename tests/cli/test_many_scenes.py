"""test.py and video_script.py on data of many scenes: three toy rooms under a method of their own."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from PIL import Image

import methods
import test as test_script
import video_script
from engine.config import Experiment
from engine.method import Method
from geometry.cameras import Cameras
from geometry.views import Rendering
from methods.baselines.photos import NearestView
from tests.engine.rooms import room_sets

Run = Callable[..., tuple[int, str]]


@dataclass
class RoomsConfig:
    broken: tuple[int, ...] = ()
    sources: tuple[int, ...] = (0, 8)
    greedy: bool = False  # asks for more memory than there is


class RoomsMethod(NearestView):
    """The nearest source photo at 18x24, of one of three rooms."""

    Config = RoomsConfig

    def __init__(self, greedy: bool) -> None:
        super().__init__()
        self.greedy = greedy

    @classmethod
    def create(cls, config: RoomsConfig, scene: Any = None) -> Method:
        return cls(config.greedy)

    @classmethod
    def open(cls, args: Any, experiment: Experiment) -> Any:
        return room_sets(3, experiment.model.broken, experiment.model.sources)

    def views(self, scene: Any, indices: Any, data: Any) -> Any:
        return scene.views(indices, (18, 24), data.threads)

    def render(self, state: Any, cameras: Cameras) -> Rendering:
        if self.greedy:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB. Rest.")
        return super().render(state, cameras)


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], repo_root: Path
) -> Iterator[Run]:
    """Call `test` or `video` in this process: exit code, and the error lines or stdout."""
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment/config.yaml").write_text("method: rooms\n")
    monkeypatch.setitem(methods.METHODS, "rooms", f"{__name__}:RoomsMethod")
    monkeypatch.setattr(methods, "_find", _finder(methods._find))
    monkeypatch.chdir(repo_root)
    root = logging.getLogger()
    before = root.handlers[:], root.level

    def call(script: str, *words: str | Path, experiment: str | Path = tmp_path / "experiment") -> Any:
        AcceleratorState._reset_state(reset_partial_state=True)
        monkeypatch.setattr(sys, "argv", [script, "-e", str(experiment), *map(str, words)])
        code = 0
        try:
            {"test": test_script.main, "video": video_script.main}[script]()
        except SystemExit as stop:
            code = int(stop.code or 0)
        printed = capsys.readouterr()
        errors = [line for line in printed.err.splitlines() if line.startswith("error: ")]
        assert len(errors) == (code != 0), printed.err
        return code, errors[0] if errors else printed.out

    yield call
    root.handlers[:], root.level = before


def _finder(usual: Callable[[str], Any]) -> Callable[[str], Any]:
    """Finds this file's class too, under whatever name pytest imported the file."""
    return lambda place: RoomsMethod if place.endswith(":RoomsMethod") else usual(place)


def test_one_table_for_methods_and_numbers_of_sources(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["--save_data", "--compare", "all", "--sources", "2", "3", "model.sources=[0,4,8]"]
    code, printed = run("test", "-s", out, *words)
    assert code == 0, printed
    summaries = json.loads((out / "metrics.json").read_text())
    assert [(s["method"], s["sources"], s["scenes"], s["n"]) for s in summaries] == [
        (name, n, 3, 7) for name in ("rooms", "nearest_view", "mean_view") for n in (2, 3)
    ]
    assert len(printed.splitlines()) == 7 + 4  # a table of 6 lines and its head, and the files
    own = {s["sources"]: s["means"] for s in summaries if s["method"] == "rooms"}
    assert own[3]["psnr"] > own[2]["psnr"]  # a photo from nearby
    assert summaries[0]["by_sources"]["3"] == own[3]
    baseline = {s["sources"]: s["means"] for s in summaries if s["method"] == "nearest_view"}
    assert baseline == own  # the same thing under another name, on the same pixels
    assert Image.open(out / "generations/3_sources/room1/0006.png").size == (24, 18)
    assert Image.open(out / "generations/mean_view/2_sources/room1/0006.png").size == (24, 18)
    assert len(list((out / "sources/room0").iterdir())) == 3
    assert (out / "sheet.png").is_file()


def test_an_index_of_ones_own(run: Run, tmp_path: Path) -> None:
    index = tmp_path / "index.json"
    index.write_text(json.dumps({"room2": {"context": [1, 2], "target": [4]}, "room0": None}))
    code, printed = run("test", "-s", tmp_path / "a", "--tasks", index, "--save_generations", "False")
    assert code == 0, printed
    assert json.loads((tmp_path / "a/metrics.json").read_text())[0]["n"] == 1


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("none.json cannot be read", ["--tasks", "none.json"]),
        ("--sources 3", ["--sources", "3"]),
        ("room1: chunk 01.torch is cut off", ["model.broken=[1]"]),
        ("lower -b", ["model.greedy=True"]),
        ("made for a single scene", ["--compare", "photo_blend"]),
    ],
)
def test_what_cannot_be_evaluated_is_one_line(
    run: Run, tmp_path: Path, message: str, words: list[str]
) -> None:
    code, error = run("test", "-s", tmp_path / "out", *words)
    assert code == 2
    assert message in error
    assert not (tmp_path / "out/metrics.json").exists()


def test_videos_between_source_views(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    paths = ["frames", "pivot", "slerp", "wobble", "exaggerated", "spin"]
    code, printed = run(
        "video", "-s", out, "--scenes", "room2", "0", "--frames", "6", "--format", "gif", "--path", *paths
    )
    assert code == 0, printed
    for scene in ("room0", "room2"):
        for path in paths:
            record = json.loads((out / scene / f"{path}.json").read_text())
            assert len(record["camera_path"]) == 6
            assert (record["fps"], record["render_width"]) == (30.0, 24)
            assert (out / scene / f"{path}.gif").is_file()
    own = tmp_path / "own"
    code, printed = run("video", "-s", own, "--source_views", "2", "4", "--frames", "3", "--format", "mp4")
    assert code == 0, printed
    assert sorted(p.name for p in (own / "room0").iterdir()) == [
        "frames.json", "frames.mp4", "frames.png", "pivot.json", "pivot.mp4", "pivot.png",
    ]  # fmt: skip
    assert (own / "run.json").is_file()


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("--scenes castle", ["--scenes", "castle"]),
        ("views, numbered from 0", ["--source_views", "0", "40"]),
        ("helix", ["--path", "helix"]),
        ("needs 2 of them", ["--source_views", "3"]),
        ("chunk 00.torch is cut off", ["model.broken=[0]"]),
    ],
)
def test_what_cannot_be_filmed_is_one_line(run: Run, tmp_path: Path, message: str, words: list[str]) -> None:
    code, error = run("video", "-s", tmp_path / "out", *words)
    assert code == 2
    assert message in error
    assert not (tmp_path / "out").exists()


def test_filming_beyond_the_memory_names_the_setting(run: Run, tmp_path: Path) -> None:
    code, error = run("video", "-s", tmp_path / "out", "model.greedy=True", "--frames", "3")
    assert code == 2
    assert "lower data.max_size" in error


@pytest.mark.parametrize(("script", "flag"), [("test", "sources"), ("test", "tasks"), ("video", "scenes")])
def test_flags_of_many_scenes_on_a_single_one(run: Run, tmp_path: Path, script: str, flag: str) -> None:
    words = ["-s", tmp_path / "o", f"--{flag}", "2", "data.root=builtin:motorcycle"]
    code, error = run(script, *words, experiment="configs/baselines/nearest_view")
    assert code == 2
    assert f"--{flag} is for data of many scenes" in error
    assert not (tmp_path / "o").exists()
