"""Images in HDF5 files: read one at a time, by threads and forked processes."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from common.errors import UserError
from dataloader.h5_images import H5Image, H5Images

ROOT = Path(__file__).parents[2]


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


FORKS_WHILE_READING = """
import sys, threading
from multiprocessing import get_context
from pathlib import Path

from dataloader import h5_images

image, stop = h5_images.H5Image(Path(sys.argv[1]), "rgb", (1, 2)), threading.Event()
expected = int(image.read().sum())

def read():
    while not stop.is_set():
        assert image.read().sum() == expected

def first_read(results):
    results.put((len(h5_images._files), int(image.read().sum())))

reader = threading.Thread(target=read)
reader.start()
context = get_context("fork")
for _ in range(30):
    results = context.Queue()
    process = context.Process(target=first_read, args=(results,))
    process.start()
    print(*results.get())
    process.join()
stop.set()
reader.join()
h5_images.close_all()
"""


def test_forked_processes_open_files_of_their_own(stack: tuple[Path, np.ndarray]) -> None:
    """While a thread of the parent reads all the time, so that the fork meets it in the midst of it.

    In an interpreter that has not imported h5py before: HDF5's own lock and ours must be taken in one order.
    """
    path, photos = stack
    command = [sys.executable, "-c", FORKS_WHILE_READING, str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.stderr == ""
    assert done.stdout.splitlines() == [f"0 {photos[1, 2].sum()}"] * 30
