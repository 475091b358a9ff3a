"""Images in HDF5 files: read one at a time, by threads and forked processes."""

from __future__ import annotations

import pickle
import threading
from multiprocessing import get_context
from pathlib import Path

import h5py
import numpy as np
import pytest

from common.errors import UserError
from dataloader import h5_images
from dataloader.h5_images import H5Image, H5Images, close_all


@pytest.fixture
def stack(tmp_path: Path) -> tuple[Path, np.ndarray]:
    photos = np.random.default_rng(0).integers(0, 256, (2, 5, 6, 8, 3), np.uint8)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["rgb"] = photos
    return tmp_path / "a.h5", photos


def test_images_of_a_data_set(stack: tuple[Path, np.ndarray]) -> None:
    path, photos = stack
    images = H5Images(path, "rgb", (1,), 5)
    assert len(images) == 5
    assert np.array_equal(images[3].read(), photos[1, 3])
    assert np.array_equal(images[-1].read(), photos[1, 4])
    assert [image.index for image in images[1:4:2]] == [(1, 1), (1, 3)]
    assert [image.index[1] for image in images] == [0, 1, 2, 3, 4]
    assert np.array_equal(pickle.loads(pickle.dumps(images))[0].read(), photos[1, 0])
    assert str(images[2]) == f"{path} rgb[1, 2]"
    with pytest.raises(IndexError):
        images[5]


def test_failures_name_the_file(stack: tuple[Path, np.ndarray]) -> None:
    path, _ = stack
    for image in (H5Image(path, "depth", (0, 0)), H5Image(path, "rgb", (0, 9))):
        with pytest.raises(UserError, match=r"a\.h5 cannot be read"):
            image.read()
    with pytest.raises(UserError, match=r"b\.h5 does not exist"):
        H5Image(path.with_name("b.h5"), "rgb", (0, 0)).read()


def _first_read(image: H5Image, results) -> None:
    """How many files were open before, and the sum of the image."""
    results.put((len(h5_images._files), int(image.read().sum())))


def test_forked_processes_open_files_of_their_own(stack: tuple[Path, np.ndarray]) -> None:
    """While a thread of the parent reads all the time, so that the fork meets it in the midst of it."""
    path, photos = stack
    image, stop = H5Image(path, "rgb", (1, 2)), threading.Event()

    def read() -> None:
        while not stop.is_set():
            assert image.read()[0, 0, 0] == photos[1, 2, 0, 0, 0]

    reader = threading.Thread(target=read)
    reader.start()
    try:
        context = get_context("fork")
        for _ in range(8):
            results = context.Queue()
            process = context.Process(target=_first_read, args=(image, results), daemon=True)
            process.start()
            assert results.get(timeout=30) == (0, int(photos[1, 2].sum()))
            process.join(30)
    finally:
        stop.set()
        reader.join(30)
    assert not reader.is_alive()
    close_all()
