"""NYU's test split from its .mat files."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from common.errors import UserError
from dataloader.depth.nyu_splits import FILENAMES, read_test_numbers, write_test_split
from dataloader.depth.teacher import open_depth_test_set, read_filename_list
from tests.dataloader.depth.files import write_mats


@pytest.fixture(scope="module")
def mats(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_mats(tmp_path_factory.mktemp("mats"))


def test_test_photos_are_written_with_the_sensors_depth(mats: tuple[Path, Path], tmp_path: Path) -> None:
    assert write_test_split(*mats, tmp_path) == (2, 0)
    photos = open_depth_test_set(tmp_path)
    assert [photos.name(i) for i in range(len(photos))] == ["home_office/rgb_00003", "living_room/rgb_00001"]
    image, depth = photos.load(1)
    with h5py.File(mats[0]) as file:
        stored, measured = file["images"][1].T, file["rawDepths"][1].T
    assert image.shape == (480, 640, 3)
    assert image[:6].max() < 20  # black, but for what JPEG does to edges
    assert np.abs(image[8:473, 8:631].astype(float) - stored[8:473, 8:631]).max() < 20
    assert (depth[:, :20] == 0).all()
    np.testing.assert_allclose(depth, measured, atol=1e-3)
    assert (depth <= measured + 1e-4).all()


def test_the_list_is_that_of_the_originals(mats: tuple[Path, Path], tmp_path: Path) -> None:
    write_test_split(*mats, tmp_path)
    lines = (tmp_path / FILENAMES).read_text().splitlines()
    assert lines[0] == "living_room/rgb_00001.jpg living_room/sync_depth_00001.png 518.8579"
    assert len(read_filename_list(tmp_path / FILENAMES)) == 2
    assert open_depth_test_set(tmp_path, tmp_path / FILENAMES).name(0) == "living_room/rgb_00001"


def test_a_killed_run_continues(mats: tuple[Path, Path], tmp_path: Path) -> None:
    write_test_split(*mats, tmp_path)
    place = tmp_path / "living_room/sync_depth_00001.png"
    before = place.read_bytes()
    place.unlink()
    assert write_test_split(*mats, tmp_path) == (1, 1)
    assert place.read_bytes() == before
    with Image.open(place) as depth:
        assert depth.mode.startswith("I;16")


def test_numbers_count_from_one(mats: tuple[Path, Path], tmp_path: Path) -> None:
    assert read_test_numbers(mats[1]) == [2, 4]
    savemat(tmp_path / "zero.mat", {"testNdxs": np.array([[0]])})
    with pytest.raises(UserError, match="no list of numbers from 1"):
        read_test_numbers(tmp_path / "zero.mat")
    savemat(tmp_path / "other.mat", {"trainNdxs": np.array([[1]])})
    with pytest.raises(UserError, match=r"other.mat holds no list testNdxs"):
        read_test_numbers(tmp_path / "other.mat")
    (tmp_path / "text.mat").write_text("no mat file, but long enough to be read as one" * 9)
    with pytest.raises(UserError, match=r"^[^\n]*text.mat holds no list testNdxs[^\n]*$"):
        read_test_numbers(tmp_path / "text.mat")
    with pytest.raises(UserError, match=r"none.mat holds no list testNdxs"):
        read_test_numbers(tmp_path / "none.mat")


def test_broken_mat_files_are_named(mats: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(UserError, match=r"none.mat is no .mat file of version 7.3"):
        write_test_split(tmp_path / "none.mat", mats[1], out)
    with pytest.raises(UserError, match=r"is no .mat file of version 7.3"):
        write_test_split(mats[1], mats[1], out)
    with h5py.File(tmp_path / "less.mat", "w") as file:
        file["images"] = np.zeros((2, 3, 640, 480), np.uint8)
    with pytest.raises(UserError, match=r"less.mat lacks rawDepths, sceneTypes"):
        write_test_split(tmp_path / "less.mat", mats[1], out)
    labelled, _ = write_mats(tmp_path, count=2)
    with pytest.raises(UserError, match=r"names photo 4, .* holds 2"):
        write_test_split(labelled, mats[1], out)
    with h5py.File(labelled, "r+") as file:
        del file["rawDepths"]
        file["rawDepths"] = np.zeros((2, 480, 640), np.float32)
    with pytest.raises(UserError, match=r"rawDepths are float32 \(480, 640\)"):
        write_test_split(labelled, tmp_path / "splits.mat", out)
    assert not out.exists()
