"""Photos on square canvases: where they lie there, and the canvases themselves (specs/warp_diffusion 3.1)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dataloader.images import resize_with_padding, to_tensor
from dataloader.pairs import Canvas


def fit_canvas(height: int, width: int, size: int) -> Canvas:
    """Where `resize_with_padding` pastes an image of height x width on a canvas of `size` pixels."""
    longest = max(height, width)
    rows, columns = (
        size if side == longest else max(1, int(side * (size / longest))) for side in (height, width)
    )
    return Canvas(size, (size - rows) // 2, (size - columns) // 2, rows, columns)


def on_canvas(image: NDArray[np.uint8], size: int, black: bool = False) -> Tensor:
    """[H, W, 3] uint8 -> [3, size, size] in [0, 1]: long side resized to `size` (Lanczos), centred on white.

    black: on black instead.
    """
    return to_tensor(np.asarray(resize_with_padding(Image.fromarray(image), size, black)[0]))


def mask_on_canvas(mask: NDArray[np.uint8], size: int) -> Tensor:
    """[H, W] uint8 (255 is full) -> [1, size, size] in [0, 1], resized as a photo is, 0 around."""
    return on_canvas(np.repeat(mask[..., None], 3, axis=2), size, black=True)[:1]
