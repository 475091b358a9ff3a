"""The LVSM rendering benchmark: all ways agree, and the report holds what it says."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks import lvsm_render


def test_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "new" / "lvsm.json"
    words = [
        "--targets",
        "3",
        "--rounds",
        "1",
        "--size",
        "32",
        "--sources",
        "1",
        "3",
        "--width",
        "32",
        "--json",
    ]
    monkeypatch.setattr(sys, "argv", ["lvsm_render.py", *words, str(file)])
    lvsm_render.main()
    assert str(file) in capsys.readouterr().out
    lines = json.loads(file.read_text())
    assert [line["sources"] for line in lines] == [1, 3]
    for line in lines:
        assert line["difference"] <= lvsm_render.AGREEMENT["float32"] < line["spread"]
        assert line["flop_ratio"] == pytest.approx(line["full_flops"] / line["cached_flops"])
        assert 0 < line["peak_share"] < 1
    assert lines[1]["flop_ratio"] > lines[0]["flop_ratio"] > 1


def test_a_difference_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    original = lvsm_render.full_passes

    def wrong(*args: object, **options: object) -> object:
        return original(*args, **options) + 1e-3  # type: ignore[arg-type]

    monkeypatch.setattr(lvsm_render, "full_passes", wrong)
    words = ["--targets", "2", "--rounds", "1", "--size", "32", "--sources", "2", "--width", "32"]
    monkeypatch.setattr(sys, "argv", ["lvsm_render.py", *words])
    with pytest.raises(RuntimeError, match="differ by"):
        lvsm_render.main()


def test_nonsense_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["lvsm_render.py", "--size", "30"])
    with pytest.raises(SystemExit) as ended:
        lvsm_render.main()
    assert ended.value.code == 2
    assert "multiple of 8" in capsys.readouterr().err
