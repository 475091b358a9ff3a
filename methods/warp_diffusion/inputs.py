"""What the scripts start from: one photo with its depth, a scene, or image pairs."""

from __future__ import annotations

import argparse
import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from common.errors import UserError
from dataloader.focal import focal_length
from dataloader.images import read_depth, read_image, resize_with_padding
from dataloader.pair_sets import ROOMS, PairSizes, open_pairs_of
from dataloader.pairs import PairData
from dataloader.scene import Record, Scene
from engine.config import Experiment
from geometry.cameras import pinhole
from methods.warp_diffusion.config import WarpDiffusionConfig

log = logging.getLogger(__name__)

ORIGINAL_FOCAL = 80.0  # pixels of a photo whose long side has 256 (specs/warp_diffusion 3.3)
_ORIGINAL_SIZE = 256
_DEFAULT_VIEW = 53.0  # degrees, horizontally, of photos that say nothing of their lens


def open_input(
    args: argparse.Namespace, experiment: Experiment, open_scene: Callable[..., Any]
) -> Scene | PairData:
    """A photo where `-i` names one, pairs where `data` names some, else the scene of `open_scene`."""
    model: WarpDiffusionConfig = experiment.model
    if getattr(args, "inputimg", None) is not None:
        return open_photo(args.inputimg, model, args.depth, args.focal, args.original_camera)
    if hasattr(args, "inputimg"):  # videos are of one scene
        data = experiment.data
        if data.format == "megascenes" or data.root.startswith(ROOMS):
            raise UserError(
                f"{args.exp_dir} is about image pairs: give a photo with -i, or a scene by "
                "data.root=FOLDER data.format=auto"
            )
        return open_scene(args, experiment)
    sizes = PairSizes(model.resolution, model.latent_size, model.max_angle)
    return open_pairs_of(experiment.data, sizes, model.warp != "none")


def open_photo(
    path: Path,
    config: WarpDiffusionConfig,
    depth_file: Path | None = None,
    focal: float | None = None,
    original_camera: bool = False,
) -> Scene:
    """A scene of one photo at the network's size, with depth, at the world's origin.

    depth_file: z-depth, of the photo's size or of the network's; None asks the configured depth model, whose
    depth has an arbitrary unit. focal: pixels of the photo; None takes what it says of its lens, or 53
    degrees. original_camera: the original's 80 pixels of 256. Raises UserError for unreadable files and for
    depth that does not fit.
    """
    photo = read_image(path)
    small = np.asarray(resize_with_padding(Image.fromarray(photo), config.resolution)[1])
    height, width = small.shape[:2]
    if depth_file is None:
        from dataloader.depth_models import load_depth_model
        from engine.device import best_device

        depth = load_depth_model(config.depth_model, best_device())(photo, (height, width))
    else:
        depth = _fitted_depth(depth_file, photo, (height, width), path)
    if original_camera:
        pixels = ORIGINAL_FOCAL * config.resolution / _ORIGINAL_SIZE
    else:
        pixels = _focal(path, focal, photo.shape[1]) * width / photo.shape[1]
    record = Record(path.stem, pinhole(pixels, height, width), small, depth=depth)
    return Scene(path.stem, [record], splits={"train": [0], "test": [0]})


def _focal(path: Path, given: float | None, width: int) -> float:
    """Focal length in pixels of the whole photo."""
    if given is not None:
        return given
    known = focal_length(path)
    if known is not None:
        return known
    log.info("%s does not say its focal length: %g degrees are assumed; pass --focal", path, _DEFAULT_VIEW)
    return width / (2 * math.tan(math.radians(_DEFAULT_VIEW) / 2))


def _fitted_depth(
    file: Path, photo: NDArray[np.uint8], size: tuple[int, int], path: Path
) -> NDArray[np.float32]:
    depth = read_depth(file)
    if depth.shape not in (photo.shape[:2], size):
        raise UserError(
            f"{file} is {depth.shape[1]}x{depth.shape[0]}, {path} is {photo.shape[1]}x{photo.shape[0]}: "
            "depth and photo must have one size"
        )
    if not (depth > 0).any():
        raise UserError(f"{file} holds no positive depth")
    return depth
