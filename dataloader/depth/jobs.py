"""Long preparations of depth completion, file by file: teacher depth of photos, hole masks of depth maps.

Class folders are dealt out to shards. Files that are there are kept, and every file is written whole or not
at all, so that a job that was killed continues where it was. Files that cannot be made are named and
counted.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from common.cli import progress
from common.errors import UserError
from common.files import replacing
from dataloader.depth.occlusion import draw_move, hole_mask
from dataloader.depth.teacher import list_files, list_folders, read_array
from dataloader.images import read_image, write_image
from dataloader.keyed import keyed_generator
from dataloader.re10k.pack import Shard

logger = logging.getLogger(__name__)

Dataset = Literal["nyu", "places"]
Predict = Callable[[NDArray[np.uint8], str], NDArray[np.float32]]  # photo, what to call it -> depth

NYU_SIZE = (480, 640)
NYU_WINDOW = (slice(8, 472), slice(8, 632))  # what NYU's photos fill, inside a white border
_PHOTOS = {"nyu": ("rgb_", ".jpg"), "places": ("", ".jpg")}  # NYU's folders hold sensor depth as well


@dataclass(frozen=True)
class Selection:
    """What a run works on: of the class folders named (all where none is), those of its shard."""

    categories: tuple[str, ...] = ()
    shard: Shard = Shard()  # noqa: RUF009 (frozen)
    max_failures: int = 100  # more end the run

    def folders(self, root: Path) -> list[str]:
        """The class folders below `root`, sorted. Raises UserError as `list_folders`."""
        return self.shard.of(list_folders(root, self.categories))


@dataclass
class Worked:
    """What a run did. made: newly written. present: there already. failed: one message per file."""

    made: int = 0
    present: int = 0
    failed: list[str] = field(default_factory=list)


def predict_teacher(
    dataset: Dataset, root: Path, out: Path, load: Callable[[], Predict], selection: Selection
) -> Worked:
    """Write OUT/CLASS/NAME.npy, float32 [H, W], for the photos ROOT/CLASS/NAME.jpg that lack it.

    nyu: photos are rgb_XXXXX.jpg of 480x640; the teacher sees rows 8 to 472 and columns 8 to 632, outside of
    which the depth is 0. places: every .jpg, whole. load: gives the teacher; asked only when a photo needs
    it. Raises UserError when a folder is missing, there is no photo, or too many fail.
    """
    names = _names(root, *_PHOTOS[dataset], selection)
    todo = [name for name in names if not (out / f"{name}.npy").exists()]
    predict = load() if todo else None

    def make(name: str) -> None:
        assert predict is not None
        photo = read_image(root / f"{name}.jpg")
        depth = _predict_nyu(predict, photo, name) if dataset == "nyu" else predict(photo, name)
        write_array(depth, out / f"{name}.npy")

    return _work(todo, make, "teacher depth", selection, len(names) - len(todo))


def project_masks(root: Path, out: Path, seed: int, selection: Selection) -> Worked:
    """Write OUT/CLASS/NAME.npy, a hole mask uint8 [H, W], for depth maps ROOT/CLASS/NAME.npy that lack it.

    Beside it lies NAME.png to look at, white where there are holes. The camera's move depends on the seed and
    the map's name. Raises UserError when a folder is missing, there is no depth map, or too many fail.
    """
    names = _names(root, "", ".npy", selection)
    todo = [name for name in names if not (out / f"{name}.npy").exists()]

    def make(name: str) -> None:
        depth = _read_relative_depth(root / f"{name}.npy")
        mask = hole_mask(depth, *draw_move(keyed_generator(seed, name)))
        write_image(255 * mask, out / f"{name}.png")
        write_array(mask, out / f"{name}.npy")

    return _work(todo, make, "hole masks", selection, len(names) - len(todo))


def write_array(array: NDArray[np.generic], path: Path) -> None:
    """Write a .npy file whole or not at all."""
    with replacing(path) as partial, partial.open("wb") as file:
        np.save(file, array)


def _names(root: Path, prefix: str, suffix: str, selection: Selection) -> list[str]:
    """CLASS/NAME of the files to work on, without their suffix. Raises UserError where there is none."""
    folders = selection.folders(root)
    names = [
        f"{folder}/{name.removesuffix(suffix)}"
        for folder in folders
        for name in list_files(root / folder, prefix, suffix)
    ]
    if not names and selection.shard.count == 1:  # of many shards, some may have nothing to do
        raise UserError(f"{root} holds no file CLASS/{prefix}*{suffix}: check the folder and --categories")
    return names


def _work(
    names: Sequence[str],
    make: Callable[[str], None],
    description: str,
    selection: Selection,
    present: int,
) -> Worked:
    done = Worked(present=present)
    shard = selection.shard
    for name in progress(names, f"{description} {shard.number}/{shard.count}", unit="file"):
        try:
            make(name)
            done.made += 1
        except UserError as error:
            logger.warning("warning: %s", error)
            done.failed.append(str(error))
            if len(done.failed) > selection.max_failures:
                raise UserError(
                    f"{len(done.failed)} files failed, more than --max_failures {selection.max_failures}; "
                    f"the last: {error}"
                ) from None
    return done


def _predict_nyu(predict: Predict, photo: NDArray[np.uint8], name: str) -> NDArray[np.float32]:
    if photo.shape[:2] != NYU_SIZE:
        raise UserError(
            f"{name}.jpg is {photo.shape[:2]}, NYU's photos are {NYU_SIZE}: give --dataset places"
        )
    depth = np.zeros(NYU_SIZE, np.float32)
    depth[NYU_WINDOW] = predict(photo[NYU_WINDOW], name)
    return depth


def _read_relative_depth(path: Path) -> NDArray[np.float32]:
    depth = read_array(path, "make it again with scripts/depth.py predict-teacher")
    if depth.ndim != 2 or depth.dtype.kind != "f":
        raise UserError(
            f"{path} holds {depth.dtype} {depth.shape}, not floats [height, width]: make it again"
        )
    values = depth.astype(np.float32)
    if not (values.min() >= 0 and values.max() <= 1):  # also false for NaN
        raise UserError(f"{path} is no relative depth, whose numbers are in [0, 1]: make it again")
    return values
