"""scripts/benchmark.py: every kind of method is measured."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path

import pytest

from dataloader import toy
from engine import profiling
from scripts import benchmark


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiling, "_MATRIX", {"cpu": 256, "cuda": 1024})
    monkeypatch.setattr(profiling, "matmul_peak", partial(profiling.matmul_peak, seconds=0.05))
    room = partial(toy.make_scene, n_views=9, height=24, width=32)
    monkeypatch.setattr(toy, "make_scene", room)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


def run(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmark.py", *map(str, words)])
    benchmark.main()


def test_trained_and_untrained_methods(
    repo_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--repeats", 1, "--json", tmp_path / "all.json")
    diffusion = repo_root / "configs" / "warp_diffusion" / "toy"
    colors = repo_root / "configs" / "baselines" / "vertex_colors"
    run(monkeypatch, "profile", "nearest_view", "depth_warp", colors, *words)
    out = capsys.readouterr().out
    assert "nearest_view: 0 parameters, 0 trained" in out
    assert "matrix products reach" in out
    found = {p["method"]: p for p in json.loads((tmp_path / "all.json").read_text())}
    assert list(found) == ["nearest_view", "depth_warp", "vertex_colors"]
    assert [row["work"] for row in found["depth_warp"]["rows"]] == ["encode", "render"]
    assert [row["work"] for row in found["vertex_colors"]["rows"]] == ["training step", "encode", "render"]
    assert found["vertex_colors"]["trained"] > 1000
    run(monkeypatch, "profile", "-e", diffusion, "-b", 2, "model.resolution=32", "--repeats", 1)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("warp_diffusion: ")
    step = dict(zip(lines[2].split(), lines[3].replace("training step", "step").split(), strict=True))
    assert step["count"] == "2"
    assert float(step["gflop"]) > 0.1
    assert float(step["resident_mib"]) >= 0
    assert 0 < float(step["mfu"]) < 5


def test_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--table", "--sources", 3, "--batches", 1, 2, "--size", 16, 24, "--repeats", 1)
    run(monkeypatch, "profile", "vertex_colors", *words)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[3:5]] == [["training", "step"], ["training", "step"]]
    assert [line.split()[0] for line in lines[5:]] == ["inference"] * 3
    sources = lines[2].split().index("sources")
    assert [line.split()[sources] for line in lines[5:]] == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("profile",), "name what to profile"),
        (("profile", "nowhere"), "config.yaml does not exist"),
        (("profile", "nearest_view", "data.rot=x"), "did you mean 'data.root'"),
    ],
)
def test_bad_input_is_one_line(
    words: tuple[str, ...],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, *words)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
