"""Photos of lenses resampled as pinholes see them."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest

from common.errors import UserError
from dataloader.images import read_image, write_image
from dataloader.rig.prepare.calibration import RigLens
from dataloader.rig.prepare.frames import open_rig
from dataloader.rig.prepare.undistort import Pinhole, Undistorter, largest_fov, undistort_frames
from tests.dataloader.rig.prepare.makers import write_calibration, write_frames

SIZE = (90, 160)


def lens(model: str, D: list[float], focal: float = 70.0, size: tuple[int, int] = SIZE) -> RigLens:
    K = np.array([[focal, 0, size[1] / 2 + 3], [0, focal, size[0] / 2 - 2], [0, 0, 1.0]])
    return RigLens(model, K, np.array(D), size)


def pattern(points: np.ndarray) -> np.ndarray:
    """A smooth picture [..., 3] uint8 of what lies in the directions of camera-plane points [..., 2]."""
    x, y = points[..., 0], points[..., 1]
    waves = [np.sin(9 * x + 2 * y), np.sin(8 * y - 3 * x + 1), np.cos(6 * x * y + 5 * x)]
    return np.rint(127.5 + 110 * np.stack(waves, axis=-1)).astype(np.uint8)


def photo(lens: RigLens) -> np.ndarray:
    """What the lens sees of the pattern; its distortion is inverted by Newton's method."""
    height, width = lens.size
    pixels = np.stack(np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5), axis=-1).reshape(-1, 2)
    points = (pixels - lens.K[:2, 2]) / lens.K[0, 0]
    for _ in range(30):
        step = 1e-5 * np.eye(2)
        jacobian = np.stack([(lens.distort(points + s) - lens.distort(points - s)) / 2e-5 for s in step], -1)
        points -= 0.7 * np.linalg.solve(jacobian, (lens.distort(points) - pixels)[..., None])[..., 0]
    assert np.abs(lens.distort(points) - pixels).max() < 1e-4
    return pattern(points).reshape(height, width, 3)


@pytest.mark.parametrize(
    "lens",
    [lens("fisheye", [-0.03, 0.01, 0, 0]), lens("opencv", [-0.15, 0.02, 2e-3, -1e-3, 0], focal=100)],
    ids=["fisheye", "opencv"],
)
def test_photos_become_what_a_pinhole_sees(lens: RigLens) -> None:
    target = Pinhole((60, 100), 60)
    undistorter = Undistorter(lens, target)
    assert undistorter.unseen == 0
    pixels = np.stack(np.meshgrid(np.arange(100) + 0.5, np.arange(60) + 0.5), axis=-1)
    expected = pattern(target.points(pixels)).astype(int)
    error = np.abs(undistorter(photo(lens)) - expected)
    assert error.mean() < 0.6
    shifted = np.abs(np.roll(expected, 1, axis=1) - expected).mean()  # what one pixel would do
    assert error.mean() < shifted / 10


def test_the_pinholes_focal_length() -> None:
    assert Pinhole((360, 640), 90).focal == pytest.approx(320)
    np.testing.assert_allclose(Pinhole((360, 640), 90).points(np.array([640.0, 180.0])), (1, 0))
    with pytest.raises(UserError, match="fov 180"):
        Pinhole((360, 640), 180)


def test_reduced_photos_are_averaged() -> None:
    large = lens("fisheye", [0, 0, 0, 0], focal=280, size=(360, 640))
    undistorter = Undistorter(large, Pinhole(SIZE, 60))
    assert undistorter.finer == 2
    stripes = np.zeros((360, 640, 3), np.uint8)
    stripes[:, ::2] = 255
    assert np.abs(undistorter(stripes).astype(int) - 127).max() < 70  # nearest or bilinear samples alias more


def test_what_the_lens_does_not_see_is_black() -> None:
    undistorter = Undistorter(lens("fisheye", [0, 0, 0, 0]), Pinhole(SIZE, 130))
    assert 0.05 < undistorter.unseen < 0.9
    seen = undistorter(np.full((*SIZE, 3), 200, np.uint8))
    assert (seen == 0).all(-1).mean() == pytest.approx(undistorter.unseen, abs=0.02)
    fit = largest_fov(lens("fisheye", [0, 0, 0, 0]), SIZE)
    assert Undistorter(lens("fisheye", [0, 0, 0, 0]), Pinhole(SIZE, fit)).unseen == 0
    assert Undistorter(lens("fisheye", [0, 0, 0, 0]), Pinhole(SIZE, fit + 1)).unseen > 0


def test_a_lens_that_folds_over_shows_nothing_twice() -> None:
    folding = lens("opencv", [-0.3, 0, 0, 0], focal=60)
    limit = folding.reach(10)
    undistorter = Undistorter(folding, Pinhole((50, 50), 150))
    white = undistorter(np.full((*SIZE, 3), 255, np.uint8))
    x, y = np.meshgrid(np.arange(50) + 0.5, np.arange(50) + 0.5)
    radius = np.linalg.norm(Pinhole((50, 50), 150).points(np.stack([x, y], -1)), axis=-1)
    assert (white[radius > limit + 0.2] == 0).all()
    assert (white[radius < limit - 0.2] == 255).all()


def test_a_rig_is_undistorted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rig = open_rig(write_frames(tmp_path / "raw", count=2, moments=3, size=(24, 32)))
    K = [[16.0, 0, 15.5], [0, 16, 11.5], [0, 0, 1]]
    entry = {"model": "fisheye", "K": K, "D": [0, 0, 0, 0], "width": 32, "height": 24}
    calibration = write_calibration(tmp_path / "c.json", [entry] * 2)
    with caplog.at_level(logging.WARNING):
        assert undistort_frames(rig, tmp_path / "out", calibration, (12, 16), fov=120, png=True) == 6
    assert "of cam00's frame lies outside" in caplog.text
    made = open_rig(tmp_path / "out")
    assert (made.size, len(made)) == ((12, 16), 3)
    facts = json.loads((tmp_path / "out/intrinsics.json").read_text())
    assert facts["cam01"] == {"width": 16, "height": 12, "focal": pytest.approx(8 / 3**0.5)}
    assert undistort_frames(rig, tmp_path / "out", calibration, (12, 16), fov=120, png=True) == 0
    with pytest.raises(UserError, match=r"other options \(fov\)"):
        undistort_frames(rig, tmp_path / "out", calibration, (12, 16), fov=100, png=True)


def test_a_pinhole_of_the_same_kind_changes_nothing(tmp_path: Path) -> None:
    rig = open_rig(write_frames(tmp_path / "raw", count=2, moments=1, size=(24, 32)))
    entry = {"model": "opencv", "K": [[16.0, 0, 15.5], [0, 16, 11.5], [0, 0, 1]], "D": [0, 0, 0, 0]}
    calibration = write_calibration(tmp_path / "c.json", [entry] * 2)
    undistort_frames(rig, tmp_path / "out", calibration, fov=90, png=True)
    for name in rig.names:
        same = read_image(tmp_path / "out" / name / "00000.png")
        np.testing.assert_array_equal(same, read_image(rig.cameras[name][0]))


def test_cameras_of_several_sizes_need_one_for_the_pinholes(tmp_path: Path) -> None:
    write_frames(tmp_path / "raw", count=2, moments=1, size=(24, 32))
    write_image(np.zeros((12, 16, 3), np.uint8), tmp_path / "raw/cam01/00000.png")
    entry = {"K": [[16.0, 0, 15.5], [0, 16, 11.5], [0, 0, 1]], "D": [0, 0, 0, 0], "width": 32, "height": 24}
    calibration = write_calibration(tmp_path / "c.json", [entry] * 2)
    rig = open_rig(tmp_path / "raw")
    with pytest.raises(UserError, match="must have one size"):
        undistort_frames(rig, tmp_path / "out", calibration)
    assert undistort_frames(rig, tmp_path / "out", calibration, (12, 16), fov=60) == 2
