"""Photos warped to other cameras as MegaScenes NVS does it, and the PNG files that keep them.

The rules are in specs/warp_diffusion 3.6, 3.7 and 4.2.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from common.errors import UserError
from common.files import replacing
from dataloader.canvas import mask_on_canvas, on_canvas
from dataloader.images import UNREADABLE
from geometry.cameras import Cameras
from geometry.lifting import disparity_to_depth, lift_depth, resize_disparity
from geometry.rasterize import Rasterizer, render_vertex_colors

MAX_ANGLE = 70.0  # degrees: triangles of the lifted photo seen at a more grazing angle are torn out


@dataclass
class Warp:
    """A warped photo. image: [H, W, 3] uint8, fading to black with the coverage. coverage: [H, W] uint8, 255
    where the warp covers the whole pixel.
    """

    image: NDArray[np.uint8]
    coverage: NDArray[np.uint8]


def lift_photo(image: NDArray[np.uint8], depth: Tensor, camera: Cameras) -> Rasterizer | None:
    """The surface of a photo [H, W, 3] with z-depth [H, W], ready to be rendered; None if nothing is left of
    it.
    """
    mesh = lift_depth(depth, camera, torch.from_numpy(np.array(image)).float() / 255, MAX_ANGLE)
    return Rasterizer(mesh) if len(mesh.faces) else None


def render_warp(surface: Rasterizer | None, camera: Cameras) -> Warp:
    """What a camera sees of a lifted photo; nothing where there is no surface."""
    if surface is None:
        size = (camera.height, camera.width)
        return Warp(np.zeros((*size, 3), np.uint8), np.zeros(size, np.uint8))
    seen = render_vertex_colors(surface, camera, eight_bit=True)
    assert seen.opacity is not None
    return Warp(_bytes(seen.image).transpose(1, 2, 0).copy(), _bytes(seen.opacity)[0])


def _bytes(values: Tensor) -> NDArray[np.uint8]:
    return (values * 255).round().to(torch.uint8).numpy()


def fit_depth(depth: NDArray[np.float32], height: int, width: int, smooth: bool = True) -> Tensor:
    """A depth map [h, w] (0 unknown) at [height, width].

    smooth: bicubic in disparity, as monocular depth is resized (specs/warp_diffusion 3.5), where all of the
    map is known. Else the nearest sample, so that nothing is blended across edges or with the unknown.
    """
    values = torch.from_numpy(np.array(depth))
    if values.shape == (height, width):
        return values
    if smooth and bool((values > 0).all()):
        disparity = 1 / values
        return disparity_to_depth(resize_disparity(disparity, height, width), float(disparity.min()))
    size = (height, width)
    return torch.nn.functional.interpolate(values[None, None], size=size, mode="nearest-exact")[0, 0]


def write_warp(warp: Warp, path: Path, alpha: bool = True) -> None:
    """Write a PNG: colours, and the coverage as alpha; without `alpha` as the original's files are.

    The colours fade to black with the coverage in either case (premultiplied alpha).
    """
    pixels = np.dstack([warp.image, warp.coverage]) if alpha else warp.image
    with replacing(path) as partial:
        Image.fromarray(pixels).save(partial, format="PNG")


def read_warp(path: Path) -> Warp:
    """Read a warp. Without alpha, pixels with any channel above 0 are covered.

    Raises UserError when the file is missing, cut off or no image.
    """
    try:
        with Image.open(path) as file:
            if "A" in file.getbands():
                pixels = np.asarray(file.convert("RGBA"))
                return Warp(pixels[..., :3], pixels[..., 3])
            image = np.asarray(file.convert("RGB"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: make it with scripts/megascenes.py prepare-warps") from None
    except UNREADABLE as error:
        raise UserError(f"{path} is not a readable warp ({error}): delete it and make it again") from None
    return Warp(image, np.where(image.any(-1), 255, 0).astype(np.uint8))


def warp_canvases(warp: Warp, size: int, small: int) -> tuple[Tensor, Tensor, Tensor]:
    """A warp as a pair has it: [3, size, size], [3, small, small] and its coverage [1, size, size]."""
    return on_canvas(warp.image, size), on_canvas(warp.image, small), mask_on_canvas(warp.coverage, size)
