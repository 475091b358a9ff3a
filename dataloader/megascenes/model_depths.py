"""Disparity maps of a COLMAP model's photos -> depth maps in the model's units, file by file."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from numpy.typing import NDArray

from common.cli import progress
from common.errors import UserError
from common.files import replacing
from dataloader.formats.colmap_model import Model, ModelImage, read_model
from dataloader.megascenes.depth_alignment import DisparityFit, fit_disparity, sample_map
from geometry.poses import matrix_from_quaternion

logger = logging.getLogger(__name__)


@dataclass
class Aligned:
    """What `align_folder` did. made: newly written. present: already there. failed: messages. absent: photos
    without a disparity map.
    """

    made: int = 0
    present: int = 0
    absent: int = 0
    failed: list[str] = field(default_factory=list)


def align_folder(disparities: Path, model_folder: Path, out: Path) -> Aligned:
    """Write OUT/NAME.npy (float32, z-depth) for every photo of a model with a disparity map.

    A map is DISPARITIES/NAME.npy, NAME being the photo's name in the model without its suffix, with its
    folders or without, its spaces as they are or as underscores; the depth map takes the same name.
    Maps that are there already are kept, so that a killed run continues. Photos whose map cannot be aligned
    are named in `failed` and left out. Raises UserError when the model cannot be read, or no photo of it has
    a map.
    """
    model = read_model(model_folder)
    done = Aligned()
    for image in progress(
        sorted(model.images.values(), key=lambda item: item.name), "align depth", unit="photo"
    ):
        place = _find_map(disparities, image.name)
        if place is None:
            done.absent += 1
            continue
        result = out / place
        if result.exists():
            done.present += 1
            continue
        try:
            depth, fit = align_photo(read_disparity(disparities / place), model, image)
        except UserError as error:
            done.failed.append(str(error))
            continue
        write_depth(depth, result)
        logger.debug("%s: %d points, %.0f %% inliers", image.name, fit.points, 100 * fit.inliers)
        done.made += 1
    if done.absent == len(model.images):
        raise UserError(f"{disparities} holds no disparity map NAME.npy of a photo in {model_folder}")
    return done


def align_photo(
    disparity: NDArray[np.floating], model: Model, image: ModelImage
) -> tuple[NDArray[np.float32], DisparityFit]:
    """Depth map [h, w] of a photo from its disparity map [h, w] (any size), and the fit behind it.

    Raises UserError as `fit_disparity`.
    """
    if image.camera_id not in model.cameras:
        raise UserError(f"{image.name}: camera {image.camera_id} is missing from the model: make it again")
    camera = model.cameras[image.camera_id]
    depth, xy = seen_points(model, image)
    fit = fit_disparity(sample_map(disparity, xy / (camera.width, camera.height)), depth, image.name)
    return fit.depth(disparity), fit


def seen_points(model: Model, image: ModelImage) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Depths [T] and pixels [T, 2] of the sparse points that a photo observes (in the photo as taken)."""
    rows = np.searchsorted(model.point_ids, image.point_ids)
    known = (image.point_ids >= 0) & (rows < len(model.point_ids))
    known[known] = model.point_ids[rows[known]] == image.point_ids[known]
    axis = matrix_from_quaternion(torch.from_numpy(image.qvec))[2].numpy()  # world -> z
    return model.xyz[rows[known]] @ axis + image.tvec[2], image.xy[known]


def read_disparity(path: Path) -> NDArray[np.float32]:
    """A disparity map [h, w] from a .npy file. Raises UserError when it is unreadable or no finite map."""
    try:
        values = np.load(path, allow_pickle=False).squeeze()
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path} is not a readable disparity map ({error}): make it again") from None
    if values.ndim != 2 or values.dtype.kind not in "fiu" or not np.isfinite(values).all():
        raise UserError(f"{path} holds no finite map [height, width]: make it again")
    return values.astype(np.float32)


def write_depth(depth: NDArray[np.float32], path: Path) -> None:
    with replacing(path) as partial, partial.open("wb") as file:
        np.save(file, depth)


def _find_map(folder: Path, name: str) -> PurePosixPath | None:
    """The disparity file of a photo, relative to its folder; names that lead out of it have none."""
    photo = PurePosixPath(name)
    if photo.is_absolute() or ".." in photo.parts:
        return None
    for stem in (name, name.replace(" ", "_"), photo.name, photo.name.replace(" ", "_")):
        place = PurePosixPath(stem).with_suffix(".npy")
        if (folder / place).is_file():
            return place
    return None
