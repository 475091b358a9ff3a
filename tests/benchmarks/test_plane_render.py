"""The benchmark of planes: both ways of each line agree, and the report holds what it says."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import plane_render

WORDS = ["plane_render.py", "--sizes", "24x16", "--planes", "3", "--rounds", "1"]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(plane_render, "COPY_BYTES", 1 << 20)
    monkeypatch.setattr(plane_render, "TURN", 0.0)


def test_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "new" / "numbers.json"
    monkeypatch.setattr(sys, "argv", [*WORDS, "--json", str(file)])
    plane_render.main()
    assert str(file) in capsys.readouterr().out
    report = json.loads(file.read_text())
    assert [line["work"] for line in report["lines"]] == [
        "render",
        "render float16",
        "render, gradient",
        "sweep of a photo",
    ]
    for line in report["lines"]:
        assert line["size"] == "24x16x3"
        assert line["backend"] == "compiled"
        assert line["difference"] <= plane_render.AGREEMENT
        assert line["ratio"] == pytest.approx(line["twin_milliseconds"] / line["milliseconds"])
        share = line["gigabytes_per_second"] / report["copy_gigabytes_per_second"]
        assert line["copy_share"] == pytest.approx(share)
    moved = report["lines"][0]["gigabytes_per_second"] * report["lines"][0]["milliseconds"] * 1e6
    assert moved == pytest.approx(24 * 16 * 3 * 16)


def test_every_plane_is_seen() -> None:
    planes = plane_render.random_planes(24, 16, 32, torch.device("cpu"))
    alpha = plane_render.view(planes, plane_render.target(24, 16), "twin")[0, 3]
    assert 0.5 < alpha.mean() < 0.95


def test_a_difference_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plane_render, "AGREEMENT", -1.0)
    monkeypatch.setattr(sys, "argv", WORDS)
    with pytest.raises(RuntimeError, match="differ by"):
        plane_render.main()


def test_nonsense_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["plane_render.py", "--sizes", "24"])
    with pytest.raises(SystemExit) as ended:
        plane_render.main()
    assert ended.value.code == 2
