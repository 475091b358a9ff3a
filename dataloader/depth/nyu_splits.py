"""NYU-v2's labelled photos with sensor depth, as published in one .mat file -> the test split as files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from common.cli import progress
from common.errors import UserError
from common.files import replacing
from dataloader.depth.teacher import NYU_FOCAL
from dataloader.images import write_image

FILENAMES = "nyudepthv2_test_files_with_gt.txt"
_INSIDE = (slice(7, 474), slice(7, 632))  # of 480x640: outside, the published test photos are black
_KEYS = ("images", "rawDepths", "sceneTypes")


def write_test_split(labelled: Path, splits: Path, out: Path) -> tuple[int, int]:
    """Write OUT/SCENE/rgb_XXXXX.jpg and sync_depth_XXXXX.png of the test split, and the list of them.

    labelled: nyu_depth_v2_labeled.mat (version 7.3). splits: .mat with `testNdxs`, numbers from 1. XXXXX
    counts from 0, as in the lists in circulation. Depth is the sensor's, in millimetres, 16 bits, 0 where
    it saw none. Files that are there are kept. Returns how many photos were made and how many were
    there. Raises UserError when a file cannot be read or holds something else.
    """
    numbers = read_test_numbers(splits)
    made, lines = 0, []
    with open_labelled(labelled) as file:
        scenes = _scene_types(file, labelled)
        if numbers[-1] > len(scenes):
            raise UserError(
                f"{splits} names photo {numbers[-1]}, {labelled} holds {len(scenes)}: they do not fit"
            )
        for number in progress(numbers, "test photos", unit="photo"):
            index, scene = number - 1, scenes[number - 1]
            photo, depth = f"{scene}/rgb_{index:05d}.jpg", f"{scene}/sync_depth_{index:05d}.png"
            lines.append(f"{photo} {depth} {NYU_FOCAL}\n")
            if (out / photo).exists() and (out / depth).exists():
                continue
            _write_depth(_depth(file, index, labelled), out / depth)
            write_image(_photo(file, index, labelled), out / photo)
            made += 1
    with replacing(out / FILENAMES) as partial:
        partial.write_text("".join(lines), encoding="utf-8")
    return made, len(numbers) - made


def read_test_numbers(path: Path) -> list[int]:
    """The numbers, from 1, of the test photos: `testNdxs` of a .mat file, sorted.

    Raises UserError when the file cannot be read or has none.
    """
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        numbers = np.asarray(loadmat(path)["testNdxs"]).ravel()
    except (OSError, ValueError, KeyError, NotImplementedError, MatReadError, TypeError) as error:
        raise UserError(f"{path} holds no list testNdxs ({error}): give NYU's splits.mat") from None
    if numbers.dtype.kind not in "iuf" or not len(numbers) or numbers.min() < 1:
        raise UserError(f"{path}: testNdxs is no list of numbers from 1: give NYU's splits.mat")
    return sorted({int(number) for number in numbers})


@contextmanager
def open_labelled(path: Path) -> Iterator[Any]:
    """Open nyu_depth_v2_labeled.mat. Raises UserError when it cannot be opened or lacks an array."""
    import h5py

    try:
        file = h5py.File(path, "r")
    except OSError as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path} is no .mat file of version 7.3 ({reason}): download it again") from None
    with file:
        lacking = [key for key in _KEYS if key not in file]
        if lacking:
            raise UserError(f"{path} lacks {', '.join(lacking)}: give nyu_depth_v2_labeled.mat")
        yield file


def _scene_types(file: Any, path: Path) -> list[str]:
    """The kind of scene of every photo, kitchen or bedroom, which is the folder it goes to."""
    try:
        names = ["".join(map(chr, file[place][()].ravel())) for place in file["sceneTypes"][()].ravel()]
    except (KeyError, ValueError, TypeError, OverflowError) as error:
        raise UserError(f"{path}: sceneTypes cannot be read ({error}): download it again") from None
    if len(names) != len(file["images"]) or any(not name.isidentifier() for name in names):
        raise UserError(f"{path}: sceneTypes does not name the scene of every photo: download it again")
    return names


def _photo(file: Any, index: int, path: Path) -> NDArray[np.uint8]:
    """Photo [480, 640, 3] with the black border of the published split."""
    stored = _read(file, "images", index, path)  # [3, 640, 480]
    if stored.shape != (3, 640, 480) or stored.dtype != np.uint8:
        raise UserError(f"{path}: images are {stored.dtype} {stored.shape}, not uint8 (3, 640, 480)")
    photo = np.zeros((480, 640, 3), np.uint8)
    photo[_INSIDE] = stored.transpose(2, 1, 0)[_INSIDE]
    return photo


def _depth(file: Any, index: int, path: Path) -> NDArray[np.uint16]:
    """Sensor depth [480, 640] in millimetres. Cut off, not rounded, as in the published files."""
    stored = _read(file, "rawDepths", index, path)
    if stored.shape != (640, 480) or stored.dtype.kind != "f":
        raise UserError(f"{path}: rawDepths are {stored.dtype} {stored.shape}, not floats (640, 480)")
    return (stored.T * 1000).clip(0, 65535).astype(np.uint16)


def _read(file: Any, key: str, index: int, path: Path) -> NDArray[Any]:
    try:
        return file[key][index]
    except (OSError, ValueError, IndexError) as error:
        raise UserError(f"{path}: {key} {index} cannot be read ({error}): download it again") from None


def _write_depth(depth: NDArray[np.uint16], path: Path) -> None:
    with replacing(path) as partial:
        Image.fromarray(depth).save(partial, format="PNG")
