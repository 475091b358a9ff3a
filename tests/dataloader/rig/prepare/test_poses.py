"""Poses of a rig: COLMAP models as rows, and a room filmed by known cameras."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from common.errors import UserError
from dataloader.formats.colmap_model import Model, ModelCamera, ModelImage, read_model
from dataloader.formats.llff import row_camera
from dataloader.rig.prepare.frames import open_rig
from dataloader.rig.prepare.poses import PoseOptions, calibrate, colmap_to_rows
from geometry.cameras import Cameras, stack_cameras
from tests.dataloader.rig.prepare.makers import film_room, rig_cameras, write_frames


@pytest.fixture
def recorded(parity_dir: Path, tmp_path: Path) -> tuple[Model, np.ndarray]:
    """A COLMAP model and the rows that the original makes of it."""
    case = load_file(parity_dir / "mask_volume/colmap_to_poses_bounds.safetensors")
    for name in ("cameras", "images", "points3D"):
        (tmp_path / f"{name}.bin").write_bytes(case[f"input.{name}_bin"].tobytes())
    return read_model(tmp_path), case["output.poses_bounds"]


def test_the_originals_rows(recorded: tuple[Model, np.ndarray]) -> None:
    model, rows = recorded
    np.testing.assert_allclose(colmap_to_rows(model, llff_intrinsics=True), rows, rtol=1e-8)


def test_image_numbers_do_not_matter(recorded: tuple[Model, np.ndarray]) -> None:
    model, rows = recorded
    renumbered = {7 * number + 3: image for number, image in reversed(model.images.items())}
    found = colmap_to_rows(replace(model, images=renumbered), llff_intrinsics=True)
    np.testing.assert_allclose(found, rows, rtol=1e-8)


def test_each_camera_has_its_own_focal_length(recorded: tuple[Model, np.ndarray]) -> None:
    model, _ = recorded
    cameras = {i: ModelCamera("SIMPLE_PINHOLE", 60 + i, 40, [50.0 + i, 30, 20]) for i in model.images}
    images = {i: replace(image, camera_id=i) for i, image in model.images.items()}
    own = colmap_to_rows(replace(model, cameras=cameras, images=images))
    numbers = sorted(model.images, key=lambda i: model.images[i].name)
    assert own[:, [9, 14]].tolist() == [[60 + i, 50 + i] for i in numbers]
    shared = colmap_to_rows(replace(model, cameras=cameras, images=images), llff_intrinsics=True)
    assert len(set(shared[:, 14])) == 1


def test_models_that_give_no_row() -> None:
    image = ModelImage("0.png", 1, np.array([1.0, 0, 0, 0]), np.zeros(3), np.zeros((1, 2)), np.array([-1]))
    model = Model({1: ModelCamera("SIMPLE_PINHOLE", 8, 6, [5.0, 4, 3])}, {1: image})
    with pytest.raises(UserError, match=r"0\.png observes no point"):
        colmap_to_rows(model)
    model.cameras[1] = ModelCamera("OPENCV", 8, 6, [5.0] * 8)
    with pytest.raises(UserError, match=r"OPENCV is no pinhole .* undistort"):
        colmap_to_rows(model)


def relative_errors(found: Cameras, truth: Cameras) -> tuple[float, float]:
    """The largest errors of poses relative to the first camera: rotation in degrees, and of positions, after
    one scale, in the unit of the truth.
    """
    ours, theirs = (torch.linalg.inv(c.c2w[0]) @ c.c2w[1:] for c in (found, truth))
    turn = ours[:, :3, :3].mT @ theirs[:, :3, :3]
    degrees = torch.rad2deg(2 * torch.asin((turn - torch.eye(3)).flatten(1).norm(dim=1) / 8**0.5))
    one, two = ours[:, :3, 3], theirs[:, :3, 3]
    scale = (one * two).sum() / (one * one).sum()
    return float(degrees.max()), float((scale * one - two).norm(dim=1).max())


def poses_of(path: Path) -> tuple[Cameras, np.ndarray]:
    rows = np.load(path)
    return stack_cameras([row_camera(row, str(i)) for i, row in enumerate(rows)]), rows


def test_a_room_filmed_by_known_cameras(tmp_path: Path) -> None:
    truth = rig_cameras()
    rig = open_rig(film_room(tmp_path, truth, times=(0.0, 0.5)))
    focal = tuple(truth.K[:, 0, 0].tolist())
    one = calibrate(rig, tmp_path / "one.npy", PoseOptions())
    found, rows = poses_of(tmp_path / "one.npy")
    degrees, distance = relative_errors(found, truth)
    assert degrees < 1.5
    assert distance < 0.15  # the cameras span 1.1
    np.testing.assert_allclose(rows[:, 14], focal, rtol=0.1)
    fitting = re.match(r"(\d+) of 15 pairs of cameras fit together", one["merged"])
    assert fitting, one["merged"]
    # one pair lies near COLMAP's threshold, and its matching is not the same every time
    assert int(fitting[1]) >= 13
    assert (rows[:, 15] < rows[:, 16]).all()
    (tmp_path / "calibration/poses_bounds.npy").unlink()  # else a second --out would take its place
    two = calibrate(rig, tmp_path / "two.npy", PoseOptions((0, 1), focal))
    assert "focal lengths are known" in two["merged"]
    found, rows = poses_of(tmp_path / "two.npy")
    np.testing.assert_allclose(rows[:, 14], focal)
    better = relative_errors(found, truth)
    assert better[0] < min(0.4, degrees)
    assert better[1] < min(0.04, distance)


def test_focal_lengths_of_undistorted_frames_are_known(tmp_path: Path) -> None:
    rig = open_rig(write_frames(tmp_path, count=2))
    assert PoseOptions().known_focals(rig) is None
    camera = {"width": 16, "height": 12, "focal": 8.0}
    (tmp_path / "intrinsics.json").write_text(
        json.dumps({"cam00": camera, "cam01": {**camera, "focal": 9.0}})
    )
    assert PoseOptions().known_focals(rig) == [8, 9]
    assert PoseOptions(focal=(7.0,)).known_focals(rig) == [7, 7]
    (tmp_path / "intrinsics.json").write_text(json.dumps({"cam00": camera}))
    with pytest.raises(UserError, match=r"intrinsics\.json, cam01 is not of these frames \(16x12\)"):
        PoseOptions().known_focals(rig)


def test_what_cannot_be_calibrated(tmp_path: Path) -> None:
    rig = open_rig(write_frames(tmp_path))
    out = tmp_path / "poses_bounds.npy"
    with pytest.raises(UserError, match=r"poses_bounds\.npy exists and was not made by this command"):
        calibrate(rig, out, PoseOptions())
    out.unlink()
    with pytest.raises(UserError, match=r"--frames 4: .* has frames 0 to 3"):
        calibrate(rig, out, PoseOptions((4,)))
    with pytest.raises(UserError, match="--focal has 2 values for 3 cameras"):
        calibrate(rig, out, PoseOptions(focal=(1.0, 2.0)))
    with pytest.raises(UserError, match="2 cameras: poses are estimated from 3 or more"):
        calibrate(open_rig(write_frames(tmp_path / "two", count=2)), out, PoseOptions())
    with pytest.raises(UserError, match=r"no features|0 of 3 photos"):
        calibrate(rig, out, PoseOptions())
    assert not out.exists()
