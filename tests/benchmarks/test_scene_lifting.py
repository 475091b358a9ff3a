"""The benchmark of scene lifting: both ways of each line agree, and the report holds what it says."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import scene_lifting

WORDS = ["scene_lifting.py", "--size", "64", "--points", "500"]


def test_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "new" / "numbers.json"
    monkeypatch.setattr(sys, "argv", [*WORDS, "--json", str(file)])
    scene_lifting.main()
    assert str(file) in capsys.readouterr().out
    lines = json.loads(file.read_text())
    assert [line["items"] for line in lines] == [64 * 64, 500, 500, 12]
    assert all(line["seconds"] > 0 for line in lines)
    assert lines[-1]["twin_seconds"] is None
    for line in lines[:-1]:
        assert line["difference"] <= 1e-5
        assert line["ratio"] == pytest.approx(line["twin_seconds"] / line["seconds"])


def test_there_is_something_to_fill() -> None:
    depth = scene_lifting.stepped_depth(64)
    snapped = scene_lifting.snap_edges(depth)
    assert (snapped != depth).float().mean() > 0.05


def test_a_difference_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(values: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        return torch.where(known, values, 0)

    monkeypatch.setattr(scene_lifting, "fill_by_search", wrong)
    monkeypatch.setattr(scene_lifting, "MEASUREMENTS", [scene_lifting.measure_filling])
    monkeypatch.setattr(sys, "argv", WORDS)
    with pytest.raises(RuntimeError, match="differ by"):
        scene_lifting.main()
