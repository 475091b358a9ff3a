"""The photo that a scene starts from, made ready: upright, not too large, sides that are multiples of 8."""

from __future__ import annotations

import logging
import math
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from common.errors import UserError
from dataloader.focal import focal_length
from dataloader.images import fit_size, read_depth, read_image, resize_image
from dataloader.scene import Record, Scene
from geometry.cameras import Cameras, pinhole
from methods.scene_lifting.config import GenerationConfig

log = logging.getLogger(__name__)

MULTIPLE = 8  # pixels per latent of the inpainters' autoencoders
SMALLEST, LARGEST = 32, 4096  # pixels: of the short side, and of the long one of a photo that is not reduced
DEFAULT_VIEW = math.degrees(2 * math.atan(0.5))  # 53.13, the original's field of view for every photo


def open_photo(path: Path, depth_file: Path | None, focal: float | None, config: GenerationConfig) -> Scene:
    """A scene of one photo at the world's origin, of the size that generation works at.

    The photo is turned upright (EXIF), converted to RGB, reduced to `config.max_size` and cropped to
    multiples of 8: evenly on both sides, or at right and bottom with the original's camera
    (`config.half_pixel`). depth_file: z-depth of the photo's full size, 0 where unknown; it sets the unit of
    the scene. focal: pixels of the photo's full size; None takes `config.field_of_view`, else what EXIF says,
    else 53.13 degrees. Raises UserError for files that cannot be used.
    """
    photo = read_image(path)
    full = photo.shape[:2]
    reduced = _size(path, full, config)
    window = _window(reduced, at_end=config.half_pixel)
    height, width = (edge.stop - edge.start for edge in window)
    pixels = _focal(path, focal, full[1], reduced[1], width, config)
    depth = None if depth_file is None else _depth(depth_file, path, full, reduced)[window].copy()
    record = Record(
        path.stem,
        photo_camera(height, width, pixels, config.half_pixel),
        np.ascontiguousarray(resize_image(photo, reduced)[window]),
        depth=depth,
    )
    return Scene(path.stem, [record], splits={"train": [0], "test": [0]})


def photo_camera(height: int, width: int, focal: float, half_pixel: bool = False) -> Cameras:
    """The single camera at the origin of a photo; focal: pixels.

    half_pixel: the original's principal point ((W - 1) / 2, (H - 1) / 2), though pixel centres lie at +0.5.
    """
    camera = pinhole(focal, height, width)
    if half_pixel:
        camera.K[:2, 2] -= 0.5
    return camera


def _size(path: Path, full: tuple[int, int], config: GenerationConfig) -> tuple[int, int]:
    """(height, width) after reduction."""
    height, width = full
    if min(full) < SMALLEST:
        raise UserError(
            f"{path} is {width}x{height}: photos need at least {SMALLEST} pixels a side; take a larger one"
        )
    if not config.max_size and max(full) > LARGEST:
        raise UserError(
            f"{path} is {width}x{height}, more than {LARGEST} pixels a side: have it reduced with "
            "model.generation.max_size=768"
        )
    reduced = fit_size(height, width, config.max_size)
    if min(reduced) < SMALLEST:
        raise UserError(
            f"{path} is {width}x{height}, too narrow to be reduced to model.generation.max_size="
            f"{config.max_size}: crop the photo or raise it"
        )
    if reduced != full:
        log.info("%s is reduced from %dx%d to %dx%d", path, width, height, reduced[1], reduced[0])
    return reduced


def _window(size: tuple[int, int], at_end: bool) -> tuple[slice, slice]:
    """Rows and columns that are kept, multiples of 8; at_end: the rest is cut at right and bottom."""
    starts = [0 if at_end else side % MULTIPLE // 2 for side in size]
    rows, columns = (
        slice(start, start + side // MULTIPLE * MULTIPLE) for start, side in zip(starts, size, strict=True)
    )
    return rows, columns


def _focal(
    path: Path, given: float | None, full: int, reduced: int, width: int, config: GenerationConfig
) -> float:
    """Focal length in pixels of the reduced photo. Widths: full, of the file; reduced; width, as cropped."""
    if given is not None:
        return given * reduced / full
    if config.field_of_view:
        return width / (2 * math.tan(math.radians(config.field_of_view) / 2))
    known = focal_length(path)
    if known is not None:
        return known * reduced / full
    log.info("%s does not say its focal length: %.2f degrees are assumed; pass --focal", path, DEFAULT_VIEW)
    return width / (2 * math.tan(math.radians(DEFAULT_VIEW) / 2))


def _depth(file: Path, path: Path, full: tuple[int, int], reduced: tuple[int, int]) -> NDArray[np.float32]:
    """A depth file at the reduced size: every pixel takes the depth at its middle, so that none is mixed."""
    depth = read_depth(file)
    if depth.shape not in (full, reduced):
        raise UserError(
            f"{file} is {depth.shape[1]}x{depth.shape[0]}, {path} is {full[1]}x{full[0]}: depth and photo "
            "must have one size"
        )
    if not (depth > 0).any():
        raise UserError(f"{file} holds no positive depth")
    if depth.shape == reduced:
        return depth
    resized = torch.nn.functional.interpolate(
        torch.from_numpy(depth)[None, None], size=reduced, mode="nearest-exact"
    )
    return resized[0, 0].numpy()
