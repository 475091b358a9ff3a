"""Lens models against OpenCV's, and calibration files."""

import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest

from common.errors import UserError
from dataloader.rig.prepare.calibration import RigLens, read_calibration
from tests.dataloader.rig.prepare.makers import write_calibration

K = [[300.0, 0, 310], [0, 305, 250], [0, 0, 1]]
FISHEYE = [-0.03, 0.01, -0.004, 0.001]
POLYNOMIAL = [-0.2, 0.05, 1e-3, -2e-3, 0.01, 0.1, 0.02, 0.003]
POINTS = np.random.default_rng(0).uniform(-0.8, 0.8, (40, 2))


def lens(model: str, D: list[float], **more: int) -> dict:
    return {"model": model, "K": K, "D": D, **more}


@pytest.mark.parametrize("count", [4, 5, 8])
def test_polynomial_lenses_are_opencvs(tmp_path: Path, count: int) -> None:
    path = write_calibration(tmp_path / "c.json", [lens("opencv", POLYNOMIAL[:count])])
    (found,) = read_calibration(path, 1)
    ours = np.column_stack([POINTS, np.ones(len(POINTS))])
    theirs, _ = cv2.projectPoints(ours, np.zeros(3), np.zeros(3), np.array(K), np.array(POLYNOMIAL[:count]))
    np.testing.assert_allclose(found.distort(POINTS), theirs[:, 0] + 0.5, atol=1e-9)


def test_fisheye_lenses_are_opencvs(tmp_path: Path) -> None:
    (found,) = read_calibration(write_calibration(tmp_path / "c.json", [lens("fisheye", FISHEYE)]), 1)
    theirs = cv2.fisheye.distortPoints(POINTS[:, None], np.array(K), np.array(FISHEYE))
    np.testing.assert_allclose(found.distort(POINTS), theirs[:, 0] + 0.5, atol=1e-9)
    np.testing.assert_allclose(found.distort(np.zeros(2)), (310.5, 250.5))


def test_the_data_sets_pickles(tmp_path: Path) -> None:
    cameras = [{"K": np.array(K), "D": np.array(FISHEYE)[:, None] * i} for i in (1, 2)]
    (tmp_path / "calib_1080.pkl").write_bytes(pickle.dumps(cameras))
    one, two = read_calibration(tmp_path / "calib_1080.pkl", 2)
    assert (one.model, one.size) == ("fisheye", None)
    np.testing.assert_allclose(two.D, 2 * np.array(FISHEYE))
    np.testing.assert_allclose(one.K, np.array(K) + np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]]))
    (tmp_path / "bad.pkl").write_bytes(pickle.dumps([Path("x")]))
    with pytest.raises(UserError, match=r"bad\.pkl asks for .*do not trust"):
        read_calibration(tmp_path / "bad.pkl", 1)


def test_a_calibration_of_another_size(tmp_path: Path) -> None:
    path = write_calibration(tmp_path / "c.json", [lens("fisheye", FISHEYE, width=640, height=480)])
    (found,) = read_calibration(path, 1)
    half = found.resized((240, 320), "cam00")
    np.testing.assert_allclose(half.distort(POINTS), found.distort(POINTS) / 2)
    assert found.resized((480, 640), "cam00").K is found.K
    with pytest.raises(
        UserError, match="cam00: the calibration is of 640x480 photos, the frames are 640x360"
    ):
        found.resized((360, 640), "cam00")


def test_how_far_a_lens_is_one_to_one() -> None:
    wide = RigLens("opencv", np.eye(3), np.array([-0.3, 0, 0, 0]))
    assert wide.reach(5) == pytest.approx((1 / 0.9) ** 0.5, abs=5e-3)  # 1 - 0.9 r^2 = 0
    assert wide.reach(0.5) == 0.5
    assert RigLens("fisheye", np.eye(3), np.zeros(4)).reach(100) == 100


@pytest.mark.parametrize(
    ("entries", "line"),
    [
        ([lens("fisheye", FISHEYE)], "calibrates 1 cameras, there are 2"),
        ([lens("fisheye", FISHEYE)] * 3, "calibrates 3 cameras, there are 2"),
        ([lens("fisheye", FISHEYE), {"K": K}], "camera 1: the keys 'K' and 'D' are needed"),
        ([lens("fisheye", FISHEYE[:3])] * 2, r"camera 0: a fisheye lens .* D of 4 numbers, not .* D of 3"),
        ([lens("opencv", POLYNOMIAL[:7])] * 2, "D of 4 or 5 or 8 numbers"),
        ([lens("thin", FISHEYE)] * 2, "'thin' is neither"),
        ([{**lens("fisheye", FISHEYE), "K": K[:2]}] * 2, r"not K \[2, 3\]"),
        ([{**lens("fisheye", FISHEYE), "K": "x"}] * 2, "K must be numbers"),
        ([lens("fisheye", [float("nan")] * 4)] * 2, "D holds NaN"),
        ([lens("fisheye", FISHEYE, width=640)] * 2, "width and height must both be"),
        ([], "must hold a list of cameras"),
    ],
)
def test_bad_calibrations_are_one_line(tmp_path: Path, entries: list, line: str) -> None:
    with pytest.raises(UserError, match=line) as error:
        read_calibration(write_calibration(tmp_path / "c.json", entries), 2)
    assert "c.json" in str(error.value)
    assert "\n" not in str(error.value)
