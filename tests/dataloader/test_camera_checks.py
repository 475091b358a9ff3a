"""The numbers and the picture of `cameras.py check`."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from common.errors import UserError
from dataloader import camera_checks
from dataloader.camera_plots import draw_check
from dataloader.formats import format_module, open_scene, write_scene
from dataloader.scene import Scene


def test_exact_tracks_have_no_error_and_shifted_ones_theirs(posed_scene: Callable[..., Scene]) -> None:
    scene = posed_scene(4)
    assert scene.points is not None
    assert max(errors.max() for errors in camera_checks.reprojection_errors(scene).values()) < 1e-10
    rows, xy = scene.points.tracks["0002"]
    scene.points.tracks["0002"] = (rows, xy + np.array([3.0, 4.0]))
    np.testing.assert_allclose(camera_checks.reprojection_errors(scene)["0002"], 5.0)


def test_agreement_measures_a_moved_camera(posed_scene: Callable[..., Scene], tmp_path: Path) -> None:
    scene = posed_scene(4)
    write_scene(scene, tmp_path / "a", "colmap")
    for name in ("mvsnet", "llff", "nerfstudio"):
        format_module(name).write(scene, tmp_path / "a")
    opened = open_scene(tmp_path / "a")
    found = camera_checks.agreement(opened, tmp_path / "a", "images")
    assert list(found) == ["colmap", "nerfstudio", "mvsnet", "llff"]
    assert max(found.values()) < 1e-11
    rows = np.load(tmp_path / "a" / "poses_bounds.npy")
    rows[1, 14] *= 1.01  # the focal length of one photo
    np.save(tmp_path / "a" / "poses_bounds.npy", rows)
    found = camera_checks.agreement(opened, tmp_path / "a", "images")
    assert found["llff"] > 0.05
    assert found["mvsnet"] < 1e-11


def test_points_are_borrowed_from_colmap(posed_scene: Callable[..., Scene], tmp_path: Path) -> None:
    scene = posed_scene(3)
    write_scene(scene, tmp_path / "a", "colmap")
    format_module("llff").write(scene, tmp_path / "a")
    opened = open_scene(tmp_path / "a", "llff")
    assert opened.points is None
    camera_checks.borrow_points(opened, tmp_path / "a", "images")
    assert max(errors.max() for errors in camera_checks.reprojection_errors(opened).values()) < 1e-10


def test_baselines(posed_scene: Callable[..., Scene]) -> None:
    scene = posed_scene(3)
    for i, x in enumerate((0.0, 1.0, 5.0)):
        scene.records[i].camera.c2w[:3, 3] = torch.tensor([x, 0, 0])
    assert camera_checks.baselines(scene).tolist() == [1, 1, 4]
    scene.records = scene.records[:1]
    assert len(camera_checks.baselines(scene)) == 0


def test_telling_pair_shares_points_and_sees_them_from_apart(posed_scene: Callable[..., Scene]) -> None:
    scene = posed_scene(6)
    pair = camera_checks.telling_pair(scene)
    assert pair is not None
    assert len(pair.rows) >= 20
    assert camera_checks.pair_distances(scene, pair).max() < 1e-8
    first, second = (scene.records[i].camera.c2w[:3, 2] for i in (pair.first, pair.second))
    assert 12 <= np.degrees(np.arccos(first @ second)) <= 30
    scene.points = None
    pair = camera_checks.telling_pair(scene)
    assert pair is not None
    assert len(pair.rows) == 0
    scene.records = scene.records[:1]
    assert camera_checks.telling_pair(scene) is None


def test_summary(posed_scene: Callable[..., Scene]) -> None:
    rows = dict(camera_checks.summary(posed_scene(5)))
    assert rows["photos"] == "5 (train 3, test 2)"
    assert rows["size"] == "32x24"
    assert rows["focal length"] == "x 35.2 px, y 35.2 px"
    assert rows["reprojection error"] == "mean 0.000, median 0.000, 95 % 0.000 px"
    scene = posed_scene(1, size=[(20, 30)])
    scene.points = scene.records[0].bounds = None
    rows = dict(camera_checks.summary(scene))
    assert rows["near depth"] == "unknown"
    assert rows["baseline to the nearest camera"] == "- world units"


@pytest.mark.parametrize("case", ["points", "mesh only", "two sizes", "one photo", "same place"])
def test_picture(case: str, posed_scene: Callable[..., Scene], tmp_path: Path) -> None:
    """It is drawn for every kind of scene, and its overview shows both colours of cameras."""
    sizes = [(60, 80), (80, 60), (60, 80)] if case == "two sizes" else [(60, 80)] * 3
    scene = posed_scene(1 if case == "one photo" else 3, size=sizes[: 1 if case == "one photo" else 3])
    if case != "points":
        scene.points = None
    if case == "mesh only":
        scene.mesh_path = tmp_path / "a.obj"
        scene.mesh_path.write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    if case == "same place":
        for record in scene.records:
            record.camera.c2w[:3, 3] = 0
    draw_check(scene, tmp_path / "out" / "a.png")
    picture = np.asarray(Image.open(tmp_path / "out" / "a.png").convert("RGB")).astype(int)
    assert picture.shape[1] == 1760
    assert 300 < picture.shape[0] < 1800
    for tint in [(43, 108, 176), (221, 105, 32)][1 if case == "one photo" else 0 :]:
        assert (np.abs(picture - tint).sum(axis=-1) < 12).sum() > 20
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.png"]


def test_picture_in_a_place_that_cannot_be_written(posed_scene: Callable[..., Scene], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        draw_check(posed_scene(1, size=[(20, 30)]), tmp_path / "file" / "a.png")
