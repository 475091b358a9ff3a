"""Photos of MegaScenes pairs from their files, native, resized or already padded to the network's canvas."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from common.errors import UserError
from dataloader.canvas import fit_canvas, on_canvas
from dataloader.images import fit_size, read_image, resize_image, to_tensor
from geometry.cameras import Cameras

CANVAS = 256  # pixels: photos of this size, both ways, are taken for padded ones
_SLACK = 1.5  # pixels that the rounding of resized photos may cost in either direction


def read_canvas(path: Path, camera: Cameras, size: int = CANVAS) -> Tensor:
    """A photo on its canvas, [3, size, size]: as it is where the file is of that size, else resized and
    padded.

    camera: of the photo at its own size. Raises UserError when the file is unreadable or of another shape.
    """
    image = read_image(path, turn=False)
    if image.shape[:2] == (size, size):
        return to_tensor(image)
    return on_canvas(_unpadded(image, camera, path), size)


def read_unpadded(path: Path, camera: Cameras, max_size: int = 0) -> tuple[NDArray[np.uint8], Cameras]:
    """A photo [H, W, 3] uint8 without padding, and its camera at that size.

    max_size: long side to which larger photos are reduced; 0 keeps them. Raises UserError as `read_canvas`.
    """
    image = _unpadded(read_image(path, turn=False), camera, path)
    height, width = fit_size(image.shape[0], image.shape[1], max_size)
    return resize_image(image, (height, width)), camera.resize(height, width)


def _unpadded(image: NDArray[np.uint8], camera: Cameras, path: Path) -> NDArray[np.uint8]:
    """The photo's part of a padded one. Raises UserError unless that has the camera's shape."""
    if image.shape[:2] == (CANVAS, CANVAS):
        place = fit_canvas(camera.height, camera.width, CANVAS)
        image = image[place.top : place.top + place.height, place.left : place.left + place.width]
    height, width = image.shape[:2]
    longest = max(camera.height, camera.width, height, width)
    if abs(height * camera.width - width * camera.height) > _SLACK * longest:
        raise UserError(
            f"{path} is {width}x{height}, its camera is for {camera.width}x{camera.height}: "
            "give the photo uncropped"
        )
    return image
