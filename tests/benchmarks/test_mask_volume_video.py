"""The benchmark of videos: both ways agree, and the report holds what it says."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import mask_volume_video as benchmark
from methods.mask_volume.replay import SPEEDUPS, Replay

WORDS = ["mask_volume_video.py", "--quick", "--rounds", "1"]
SMALL = benchmark.Job(24, 16, 8, 2, 1, 2)


def test_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "new" / "numbers.json"
    monkeypatch.setattr(sys, "argv", [*WORDS, "--json", str(file)])
    benchmark.main()
    printed = capsys.readouterr().out
    assert str(file) in printed
    assert printed.count("extrapolated") == 1
    report = json.loads(file.read_text())
    for line in report["videos"]:
        assert line["difference"] <= benchmark.AGREEMENT
        assert line["faster"] == pytest.approx(line["original"]["seconds"] / line["ours"]["seconds"])
        assert line["memory"] == pytest.approx(line["ours"]["megabytes"] / line["original"]["megabytes"])
    assert [line["name"] for line in report["speedups"]] == list(SPEEDUPS)
    plain, once, moments = report["speedups"][:3]
    assert once["once"] > plain["once"]
    for line, times in ((plain, 4), (once, 4), (moments, 2)):  # poses, or moments
        seconds = (line["once"] + times * line["planes"] + 4 * line["view"]) / 1e3
        assert line["seconds"] == pytest.approx(seconds)
        assert line["faster"] == pytest.approx(plain["seconds"] / line["seconds"])


def test_a_process_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "made.npz"
    words = ["--worker", "original", json.dumps(asdict(SMALL)), str(file)]
    monkeypatch.setattr(sys, "argv", [WORDS[0], *words])
    benchmark.main()
    with np.load(file) as made:
        assert made["frames"].shape == (2, 3, 16, 24)
        assert made["video"][0] > 0


def test_a_difference_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def other(self: Replay, *given: object) -> torch.Tensor:
        return torch.rand(8, 16, 24, 4)

    monkeypatch.setattr(Replay, "planes", other)
    with pytest.raises(RuntimeError, match="differ by"):
        benchmark.compare(SMALL, apart=False)


def test_impossible_numbers(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", [WORDS[0], "--frames", "7"])
    with pytest.raises(SystemExit):
        benchmark.main()
    assert "--frames" in capsys.readouterr().err
