"""Lens distortion against COLMAP's and OpenCV's implementations."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import UserError
from dataloader.lenses import Lens, undistorted_camera
from geometry.cameras import Cameras

K = np.array([[300.0, 0, 201], [0, 290.0, 148], [0, 0, 1]])
HEIGHT, WIDTH = 300, 400


def camera() -> Cameras:
    return Cameras(torch.from_numpy(K.copy()), torch.eye(4, dtype=torch.float64), HEIGHT, WIDTH)


small = st.floats(-0.05, 0.05)


@settings(max_examples=40, deadline=None)
@given(small, small, st.floats(-0.01, 0.01), st.floats(-0.003, 0.003), st.floats(-0.003, 0.003))
def test_undistort_inverts_distort(k1: float, k2: float, k3: float, p1: float, p2: float) -> None:
    lens = Lens(K, (k1, k2, k3), (p1, p2))
    points = np.random.default_rng(0).uniform(-0.6, 0.6, (50, 2))
    np.testing.assert_allclose(lens.undistort(lens.distort(points)), points, atol=1e-10)


def test_same_pixels_as_colmap() -> None:
    pycolmap = pytest.importorskip("pycolmap")
    params = [300.0, 290.0, 201.0, 148.0, -0.12, 0.03, 0.002, -0.001]
    theirs = pycolmap.Camera(model="OPENCV", width=WIDTH, height=HEIGHT, params=params)
    points = np.random.default_rng(1).uniform(-0.6, 0.6, (30, 2))
    expected = theirs.img_from_cam(np.column_stack([points, np.ones(30)]))
    found = Lens(K, (-0.12, 0.03, 0.0), (0.002, -0.001)).distort(points)
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_photo_is_resampled_where_the_model_says() -> None:
    """A photo whose colours are its own pixel coordinates tells where each pixel came from."""
    x, y = np.meshgrid(np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5)
    photo = np.stack([x / 2, y / 2, 0 * x], axis=-1).round().astype(np.uint8)
    lens = Lens(K, (-0.2, 0.05, 0.01), (0.002, -0.003))
    pinhole = undistorted_camera(camera(), lens, "photo")
    centers = pinhole.pixel_centers().reshape(-1, 2).numpy()
    pinhole_K = pinhole.K.numpy()
    source = lens.distort((centers - pinhole_K[:2, 2]) / pinhole_K[[0, 1], [0, 1]])
    found = lens.remap(photo, pinhole)[..., :2].reshape(-1, 2)
    error = found - source / 2
    assert np.abs(error).max() < 1.2  # grey levels, two pixels each: rounding twice
    assert np.abs(error.mean(axis=0)).max() < 0.02  # half a pixel would be 0.25


@pytest.mark.parametrize("k1", [-0.25, -0.05, 0.1, 0.4])
def test_no_pixel_comes_from_outside_and_none_is_wasted(k1: float) -> None:
    lens = Lens(K, (k1, 0.0, 0.0), (0.001, 0.0))
    pinhole = undistorted_camera(camera(), lens, "photo")
    assert lens.sees(pinhole)
    wider = Cameras(pinhole.K.clone(), pinhole.c2w, HEIGHT, WIDTH)
    wider.K[0, 0] *= 0.999
    wider.K[1, 1] *= 0.999
    assert not lens.sees(wider)
    assert pinhole.K[0, 0] / pinhole.K[1, 1] == pytest.approx(300 / 290)


def test_distortion_that_folds_the_photo_is_refused() -> None:
    with pytest.raises(UserError, match=r"photo\.jpg.*too strong"):
        undistorted_camera(camera(), Lens(K, (-90.0, 0.0, 0.0), (0.0, 0.0)), "photo.jpg")
