"""The hash-grid benchmark: all ways agree, and the report holds what it says."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import hash_grid
from methods.hash_manifold.grid.layout import GridConfig, grid_layout


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the compiled twin, which takes a minute, and on the CPU."""
    monkeypatch.setattr(hash_grid, "can_compile", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(hash_grid, "COPY_BYTES", 1 << 20)


def test_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "new" / "grid.json"
    options = ["--points", "200", "--log2_hashmap_size", "8", "--rounds", "2", "--json", str(file)]
    monkeypatch.setattr(sys, "argv", ["hash_grid.py", *options])
    hash_grid.main()
    printed = capsys.readouterr().out
    report = json.loads(file.read_text())
    ways = [line["way"] for line in report["encoding"]]
    assert ways == ["twin", "numba", "numba, sparse gradient"]
    assert [line["way"] for line in report["training"]] == ["twin, dense Adam", "auto, LazyAdam"]
    assert report["entries"] == 16 * 256
    assert report["copy_gigabytes_per_second"] > 0
    for line in report["encoding"] + report["training"]:
        assert line["way"] in printed
        assert line["seconds"] * line["points_per_second"] == pytest.approx(200)
        assert line["ratio"] > 0
        assert line["peak_megabytes"] >= 0
    for first in (report["encoding"][0], report["training"][0]):
        assert first["ratio"] == 1


def test_bytes_of_one_point() -> None:
    layout = grid_layout(GridConfig(n_levels=1, n_features=2))
    row = 2 * 4
    assert hash_grid.bytes_moved(layout, 1) == pytest.approx((3 * 8 * row + 2 * row) / 1e9)


def test_memory_that_grows_is_seen() -> None:
    assert hash_grid.peak_megabytes(lambda: torch.ones(50_000_000), torch.device("cpu")) > 100


def test_both_ways_train() -> None:
    config = GridConfig(n_levels=4, log2_hashmap_size=10)
    points = hash_grid.surface_points(500, torch.device("cpu"))
    assert (points - 0.5).norm(dim=1).sub(0.45).abs().max() < 1e-6
    for way in hash_grid.training_ways(config, points).values():
        way()
        way()


def test_ways_that_differ_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hash_grid, "AGREEMENT", -1.0)
    with pytest.raises(RuntimeError, match="differ"):
        hash_grid.encode_ways(GridConfig(n_levels=2, log2_hashmap_size=6), torch.rand(64, 3))


def test_nonsense_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["hash_grid.py", "--points", "0"])
    with pytest.raises(SystemExit) as ended:
        hash_grid.main()
    assert ended.value.code == 2
