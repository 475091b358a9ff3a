"""Depth lines and view pairs of MVSNet scenes."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from dataloader.formats import mvsnet, open_scene, write_scene
from dataloader.formats.mvsnet_ranges import depth_line, format_pairs, pair_scores
from dataloader.scene import Record, Scene, SparsePoints
from geometry.cameras import pinhole


def row_of_points(depths: list[float]) -> SparsePoints:
    xyz = np.array([[0.0, 0.0, depth] for depth in depths]).reshape(-1, 3)
    points = SparsePoints(xyz, np.zeros((len(xyz), 3), np.uint8), np.zeros(len(xyz)))
    points.tracks["a"] = (np.arange(len(xyz)), np.zeros((len(xyz), 2)))
    return points


def test_the_formula() -> None:
    camera = pinhole(50.0, 40, 60)
    points = row_of_points([*np.linspace(2, 10, 300)[::-1], -5.0])  # one behind the camera is none
    near, interval, count, far = depth_line(points, "a", camera)
    ordered = np.linspace(2, 10, 300)
    assert (near, far) == pytest.approx((ordered[3], ordered[297]))
    step = near / 50  # width of a pixel at the near depth
    assert count == pytest.approx((1 / near - 1 / far) / (1 / near - 1 / (near + step)))
    assert interval == pytest.approx((far - near) / (count - 1))
    assert depth_line(points, "a", camera, max_d=9, interval_scale=2) == pytest.approx(
        (near, (far - near) / 16, 9, far)
    )


@pytest.mark.parametrize("depths", [[], [3.0], [3.0, 3.0], [-1.0, -2.0]])
def test_no_range(depths: list[float]) -> None:
    assert depth_line(row_of_points(depths), "a", pinhole(50.0, 40, 60)) is None
    assert depth_line(row_of_points(depths), "b", pinhole(50.0, 40, 60)) is None


def slow_score(a: Record, b: Record, points: SparsePoints) -> float:
    """Point by point, as the definition reads."""
    total = 0.0
    partners = set(points.tracks[b.name][0].tolist())
    for row in points.tracks[a.name][0].tolist():
        if row in partners:
            p, q = (record.camera.center.numpy() - points.xyz[row] for record in (a, b))
            theta = math.degrees(math.acos(p @ q / np.linalg.norm(p) / np.linalg.norm(q)))
            sigma = 1 if theta <= 5 else 10
            total += math.exp(-((theta - 5) ** 2) / (2 * sigma**2))
    return total


def test_scores_against_every_point_in_turn(posed_scene: Callable[..., Scene]) -> None:
    scene = posed_scene(6, seed=4)
    assert scene.points is not None
    rows, pixels = scene.points.tracks["0001"]
    twice = np.concatenate([rows, rows[:3]])
    scene.points.tracks["0001"] = (twice, np.concatenate([pixels, pixels[:3]]))
    del scene.points.tracks["0005"]
    scene.points.tracks["0005"] = (np.empty(0, np.int64), np.empty((0, 2)))
    scores = pair_scores(scene.records, scene.points)
    assert (scores == scores.T).all()
    for i in range(6):
        assert scores[i, i] == 0
        for j in range(i + 1, 6):
            expected = slow_score(scene.records[i], scene.records[j], scene.points)
            assert scores[i, j] == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_the_ten_best_in_order() -> None:
    scores = np.zeros((13, 13))
    scores[0, 1:] = np.arange(12)
    lines = format_pairs(scores).splitlines()
    assert lines[0] == "13"
    words = lines[2].split()
    assert words[0] == "10"
    assert words[1:5] == ["12", "11.000000", "11", "10.000000"]
    assert lines[1::2] == [str(i) for i in range(13)]
    assert lines[4] == "0"


def test_files(posed_scene: Callable[..., Scene], tmp_path: Path) -> None:
    """Ranges from points where there are some, else from the records' bounds; and no pairs without points."""
    scene = posed_scene(3)
    assert scene.points is not None
    scene.points.tracks["0002"] = (np.empty(0, np.int64), np.empty((0, 2)))
    write_scene(scene, tmp_path / "a", "mvsnet")
    lines = [
        mvsnet.parse_camera((tmp_path / "a" / "cams" / f"000{i}_cam.txt").read_text(), "")[2]
        for i in range(3)
    ]
    for i in (0, 1):
        record = scene.records[i]
        assert tuple(lines[i]) == depth_line(scene.points, record.name, record.camera)
    assert scene.records[2].bounds is not None
    assert lines[2][2:] == [192, scene.records[2].bounds[1]]
    assert (tmp_path / "a" / "pair.txt").read_text().startswith("3\n0\n1 1 ")
    again = open_scene(tmp_path / "a")
    assert again.records[0].bounds == (lines[0][0], lines[0][3])
    scene.points = None
    write_scene(scene, tmp_path / "b", "mvsnet")
    assert not (tmp_path / "b" / "pair.txt").exists()
    assert torch.equal(again.cameras().K, open_scene(tmp_path / "b").cameras().K)
