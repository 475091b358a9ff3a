"""The warp benchmark: both ways of rendering agree, and the report holds what it says."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks import warp

SMALL = (48, 70)


@pytest.fixture
def small_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two small meshes in place of those that take a minute."""
    original = warp.photo_mesh
    for name in ("small_mesh", "photo_mesh"):
        monkeypatch.setattr(warp, name, lambda frames: original(frames, SMALL))


@pytest.mark.usefixtures("small_cases")
def test_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "new" / "warp.json"
    monkeypatch.setattr(sys, "argv", ["warp.py", "--frames", "2", "--json", str(file)])
    warp.main()
    printed = capsys.readouterr().out
    assert printed.count("motorcycle") == 2
    assert str(file) in printed
    for line in json.loads(file.read_text()):
        assert (line["height"], line["width"], line["frames"]) == (*SMALL, 2)
        assert line["agreement_db"] > warp.AGREEMENT
        assert 0 < line["embree_share"] < 1
        assert 0 < line["build_share"] < 1
        assert line["rays_per_second"] == pytest.approx(line["frames_per_second"] * 4 * SMALL[0] * SMALL[1])
        assert line["ratio"] > 0


def test_nonsense_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["warp.py", "--frames", "0"])
    with pytest.raises(SystemExit) as ended:
        warp.main()
    assert ended.value.code == 2
