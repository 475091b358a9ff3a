"""The ray-cache benchmark: the report holds what it says."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from benchmarks import ray_cache
from dataloader.formats import write_scene
from dataloader.scene import Scene
from geometry.meshes import Mesh


def test_the_report(
    posed_scene: Callable[..., Scene],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    scene = posed_scene(4, size=(96, 128))
    corners = torch.tensor([[2, 2, 2], [2, -2, -2], [-2, 2, -2], [-2, -2, 2]], dtype=torch.float64)
    scene.surface = Mesh(corners, torch.tensor([[0, 1, 2], [0, 2, 3], [0, 3, 1], [1, 3, 2]]))
    write_scene(scene, tmp_path / "scene", "mvsnet")
    file = tmp_path / "new" / "report.json"
    words = ["ray_cache.py", "--scene", str(tmp_path / "scene"), "--rays", "500", "--json", str(file)]
    monkeypatch.setattr(sys, "argv", words)
    ray_cache.main()
    assert str(file) in capsys.readouterr().out
    one, two = json.loads(file.read_text())
    assert (one["supersample"], two["supersample"]) == (1, 2)
    assert one["bytes_per_sample"] < 12
    assert one["tensor_bytes_per_sample"] == pytest.approx(48, rel=0.02)
    assert two["tensor_bytes_per_sample"] == pytest.approx(39, rel=0.03)
    for line in (one, two):
        assert line["views"] == 3
        assert line["largest_error"] < 2e-5
        assert all(line[key] > 0 for key in line if key.endswith("per_second"))
