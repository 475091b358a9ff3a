"""Disparity maps aligned to sparse points."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import UserError
from dataloader.formats.colmap_model import Model, ModelCamera, ModelImage, write_model
from dataloader.megascenes.depth_alignment import MIN_POINTS, fit_disparity, sample_map
from dataloader.megascenes.model_depths import align_folder


def points(
    seed: int, count: int, scale: float, shift: float, outliers: float
) -> tuple[np.ndarray, np.ndarray]:
    """Disparities and depths, of which a fraction is wrong."""
    rng = np.random.default_rng(seed)
    disparity = rng.uniform(0.5, 20, count)
    inverse = scale * disparity + shift
    inverse *= 1 + 0.01 * rng.normal(size=count)
    wrong = rng.random(count) < outliers
    inverse[wrong] = rng.uniform(0.01, 5 * inverse.max(), wrong.sum())
    return disparity, 1 / inverse


@given(st.integers(0, 1000), st.floats(0.01, 10), st.floats(0, 5))
@settings(max_examples=25, deadline=None)
def test_scale_and_shift_are_found_among_30_percent_outliers(seed: int, scale: float, shift: float) -> None:
    disparity, depth = points(seed, 300, scale, shift, 0.3)
    fit = fit_disparity(disparity, depth, "photo")
    middle = np.median(disparity)
    assert fit.scale * middle + fit.shift == pytest.approx(scale * middle + shift, rel=0.01)
    assert fit.scale == pytest.approx(scale, rel=0.03 * (1 + shift / (10 * scale)))
    assert 0.5 < fit.inliers < 0.85


def test_an_exact_fit_is_exact() -> None:
    disparity = np.linspace(1, 5, 20)
    fit = fit_disparity(disparity, 1 / (0.3 * disparity + 0.1), "photo")
    assert (fit.scale, fit.shift, fit.inliers) == pytest.approx((0.3, 0.1, 1.0))
    assert fit == fit_disparity(disparity, 1 / (0.3 * disparity + 0.1), "photo")


def test_depths_are_clamped() -> None:
    disparity = np.linspace(1, 5, 20)
    fit = fit_disparity(disparity, 1 / (0.3 * disparity - 0.2), "photo")
    depth = fit.depth(np.array([[0.0, 2 / 3, 2.0, 1e6]]))
    assert depth.dtype == np.float32
    np.testing.assert_allclose(depth, [[1000, 1000, 2.5, 1e-3]], rtol=1e-4)


@pytest.mark.parametrize(
    ("disparity", "depth", "message"),
    [
        (np.arange(9.0), np.arange(1.0, 10), "sees 9 sparse points"),
        (np.arange(30.0), np.r_[np.full(25, -1.0), np.ones(5)], "sees 5 sparse points"),
        (np.r_[np.full(25, np.nan), np.ones(5)], np.ones(30), "sees 5 sparse points"),
        (np.ones(30), np.arange(1.0, 31), "the same at all"),
        (np.arange(1.0, 31), np.arange(1.0, 31), r"photo: depth falls .*scale -"),
    ],
)
def test_hopeless_fits_are_refused(disparity: np.ndarray, depth: np.ndarray, message: str) -> None:
    with pytest.raises(UserError, match=message):
        fit_disparity(disparity, depth, "photo")


def test_maps_are_sampled_between_pixel_centres() -> None:
    x = (np.arange(8) + 0.5) / 8
    ramp = np.broadcast_to(x, (4, 8)) + 10 * ((np.arange(4)[:, None] + 0.5) / 4)
    xy = np.array([[0.5, 0.5], [0.3, 0.7], [0.0, 0.5], [1.2, 0.5]])
    np.testing.assert_allclose(sample_map(ramp, xy), [5.5, 7.3, 5.0625, np.nan])


def small_model(folder: Path, photos: int = 3, seen: int = 40) -> np.ndarray:
    """A model whose points lie on the plane z = 4 + x; returns the disparity map of its photos."""
    rng = np.random.default_rng(0)
    xy = rng.uniform(2, 30, (seen, 2))
    slope = (xy[:, 0] - 16) / 32
    z = 4 / (1 - slope)  # x = slope * z
    xyz = np.stack([slope * z, (xy[:, 1] - 16) / 32 * z, z], axis=1)
    images = {
        n: ModelImage(
            f"sub/View {n}.jpg", 1, np.array([1.0, 0, 0, 0]), np.zeros(3), xy, np.arange(1, seen + 1)
        )
        for n in range(1, photos + 1)
    }
    cameras = {1: ModelCamera("SIMPLE_PINHOLE", 32, 32, [32.0, 16.0, 16.0])}
    colors, error = np.zeros((seen, 3), np.uint8), np.zeros(seen)
    write_model(Model(cameras, images, np.arange(1, seen + 1), xyz, colors, error), folder)
    columns = (np.arange(64) + 0.5) / 2
    inverse = (1 - (columns - 16) / 32) / 4
    return np.broadcast_to(7 * inverse + 2, (64, 64)).astype(np.float32)


def test_a_folder_of_maps_is_aligned_and_continued(tmp_path: Path) -> None:
    disparity = small_model(tmp_path / "model")
    for place in ("sub/View_1.npy", "View 2.npy"):  # the third has none
        (tmp_path / "maps" / place).parent.mkdir(parents=True, exist_ok=True)
        np.save(tmp_path / "maps" / place, disparity)
    first = align_folder(tmp_path / "maps", tmp_path / "model", tmp_path / "depths")
    assert (first.made, first.present, first.absent, first.failed) == (2, 0, 1, [])
    depth = np.load(tmp_path / "depths/sub/View_1.npy")
    np.testing.assert_allclose(depth, 7 / (disparity - 2), rtol=1e-5)
    (tmp_path / "depths/View 2.npy").unlink()
    again = align_folder(tmp_path / "maps", tmp_path / "model", tmp_path / "depths")
    assert (again.made, again.present) == (1, 1)


def test_maps_that_fail_are_named(tmp_path: Path) -> None:
    disparity = small_model(tmp_path / "model")
    (tmp_path / "maps").mkdir()
    np.save(tmp_path / "maps/View 1.npy", -disparity)
    (tmp_path / "maps/View 2.npy").write_bytes(b"no map")
    np.save(tmp_path / "maps/View 3.npy", np.full((4, 4), np.nan))
    done = align_folder(tmp_path / "maps", tmp_path / "model", tmp_path / "depths")
    assert done.made == 0
    for message, part in zip(
        done.failed, ["View 1.jpg: depth falls", "View 2.npy is not", "View 3.npy holds"], strict=True
    ):
        assert part in message
    assert not (tmp_path / "depths").exists()
    with pytest.raises(UserError, match="holds no disparity map"):
        align_folder(tmp_path / "model", tmp_path / "model", tmp_path / "depths")


def test_too_few_points_are_refused(tmp_path: Path) -> None:
    disparity = small_model(tmp_path / "model", photos=1, seen=MIN_POINTS - 1)
    (tmp_path / "maps").mkdir()
    np.save(tmp_path / "maps/View 1.npy", disparity)
    done = align_folder(tmp_path / "maps", tmp_path / "model", tmp_path / "depths")
    assert "View 1.jpg sees 9 sparse points" in done.failed[0]
