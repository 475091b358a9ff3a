"""Image and depth files, and image transforms that move intrinsics along."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from common.errors import UserError
from common.files import replacing
from geometry.cameras import Cameras

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp"}
DEPTH_SUFFIXES = {".npy", ".npz", ".png", ".pfm", ".exr"}
UNREADABLE = (OSError, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError)
_ORIENTATION = 0x0112  # EXIF tag; values 5 to 8 turn the image on its side


def list_images(folder: Path) -> list[Path]:
    """The image files of a folder, sorted by name. Raises UserError when there is none."""
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: give the folder that holds the photos")
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        raise UserError(f"{folder} holds no image ({', '.join(sorted(IMAGE_SUFFIXES))})")
    return files


@dataclass(frozen=True)
class EncodedImage:
    """An image file in memory. data: its bytes (JPEG, PNG, ...). source: what messages call it."""

    data: bytes
    source: str

    def __str__(self) -> str:
        return self.source

    def open(self) -> io.BytesIO:
        return io.BytesIO(self.data)


class StoredImage(Protocol):
    """An image inside a larger file, such as an archive; str() is what messages call it."""

    def read(self) -> NDArray[np.uint8]:
        """[H, W, 3], or [H, W, 4] with alpha. Raises UserError when it cannot be read."""
        ...


ImageSource = Path | EncodedImage | StoredImage | NDArray[np.uint8]
MatteSource = Path | StoredImage | NDArray[np.bool_]


def photo_pixels(source: ImageSource) -> NDArray[np.uint8]:
    """[H, W, 3] uint8 of a photo, wherever it is kept. Raises UserError when it cannot be read."""
    if isinstance(source, np.ndarray):
        return source
    return read_image(source) if isinstance(source, Path | EncodedImage) else source.read()


def matte_pixels(source: MatteSource) -> NDArray[np.bool_]:
    """[H, W] bool, alpha above one half, wherever the matte is kept. Raises UserError for a bad one."""
    if isinstance(source, np.ndarray):
        return source
    return read_matte(source) if isinstance(source, Path) else source.read()[..., 3] > 127


def read_image(path: Path | EncodedImage, turn: bool = True) -> NDArray[np.uint8]:
    """Read an image file, or one in memory, as [H, W, 3] uint8 RGB, upright by its EXIF orientation.

    16-bit grey images keep their high byte. turn: False leaves the pixels as the file stores them, which is
    how COLMAP sees them. Raises UserError when the file is missing, cut off or no image.
    """
    try:
        with Image.open(path.open() if isinstance(path, EncodedImage) else path) as image:
            upright = ImageOps.exif_transpose(image) if turn else image
            if upright.mode.startswith("I"):  # Pillow would clip 16-bit values at 255
                grey = (np.asarray(upright).clip(0, 65535) >> 8).astype(np.uint8)
                return np.repeat(grey[..., None], 3, axis=2)
            return np.asarray(upright.convert("RGB"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: give the path of an image") from None
    except UNREADABLE as error:
        raise UserError(f"{path} is not a readable image ({error}): replace the file") from None


def read_matte(path: Path) -> NDArray[np.bool_]:
    """[H, W] bool of an image with an alpha channel: where alpha exceeds one half.

    Raises UserError when the file is missing, cut off, no image, or has no alpha.
    """
    return read_cutout(path)[..., 3] > 127


def read_cutout(path: Path) -> NDArray[np.uint8]:
    """[H, W, 4] uint8 RGBA of an image with an alpha channel (not premultiplied).

    Raises UserError when the file is missing, cut off, no image, or has no alpha.
    """
    try:
        with Image.open(path) as image:
            if "A" not in image.getbands():
                raise UserError(f"{path} has no alpha channel: a matte is an RGBA image")
            return np.asarray(image.convert("RGBA"))
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{path} is no readable image ({error}): write it anew") from None


def image_size(path: Path | EncodedImage) -> tuple[int, int]:
    """(height, width) of an image file as `read_image` returns it, from its header alone."""
    try:
        with Image.open(path.open() if isinstance(path, EncodedImage) else path) as image:
            width, height = image.size
            # Pillow gives the upright size of a TIFF itself; asking a PNG without an EXIF chunk before its
            # pixels for EXIF data would decode it
            skipped = image.format == "TIFF" or (image.format == "PNG" and "exif" not in image.info)
            sideways = not skipped and image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: give the path of an image") from None
    except UNREADABLE as error:
        raise UserError(f"{path} is not a readable image ({error}): replace the file") from None
    return (width, height) if sideways else (height, width)


def write_image(image: Tensor | NDArray[np.uint8], path: Path) -> None:
    """Write [3, H, W] float in [0, 1] (rounded to 8 bits) or [H, W, 3] uint8; JPEG at quality 95.

    The folder is made if need be. Raises UserError for an unknown suffix or an unwritable place.
    """
    kind = Image.registered_extensions().get(path.suffix.lower())
    if kind is None:
        raise UserError(f"{path}: images end in {', '.join(sorted(IMAGE_SUFFIXES))}")
    array = to_uint8(image) if isinstance(image, Tensor) else image
    with replacing(path) as partial:
        Image.fromarray(array).save(partial, format=kind, quality=95)


def to_tensor(image: NDArray[np.uint8]) -> Tensor:
    """[H, W, 3] uint8 -> [3, H, W] float32 in [0, 1]."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


def to_uint8(image: Tensor) -> NDArray[np.uint8]:
    """[3, H, W] float in [0, 1] -> [H, W, 3] uint8, clamped and rounded."""
    scaled = (image.detach().float().clamp(0, 1) * 255).round().to(torch.uint8)
    return scaled.permute(1, 2, 0).cpu().numpy()


def resize_image(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resample [H, W, 3] uint8 to (height, width): Lanczos with antialiasing (Pillow)."""
    if image.shape[:2] == tuple(size):
        return image
    return np.asarray(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.LANCZOS))


def fit_size(height: int, width: int, max_size: int) -> tuple[int, int]:
    """(height, width) with the long side at most `max_size`, aspect kept to the pixel; unchanged when 0 or
    smaller.
    """
    if not max_size or max(height, width) <= max_size:
        return height, width
    scale = max_size / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def read_depth(path: Path) -> NDArray[np.float32]:
    """Read a z-depth map [H, W] float32 from .npy, .npz (first array), .png (16 bit, millimetres), .pfm or
    .exr.

    Unknown depth is 0. Raises UserError when the file is unreadable or no two-dimensional map of numbers.
    """
    try:
        depth = _read_depth(path)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: give the path of a depth map") from None
    except (*UNREADABLE, EOFError, IndexError, NotImplementedError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is not a readable depth map ({error}): replace the file") from None
    if depth.ndim != 2 or depth.dtype.kind not in "fiu":
        raise UserError(
            f"{path} holds an array of shape {depth.shape} and type {depth.dtype}: a depth map is numbers, "
            "[height, width]"
        )
    return np.where(np.isfinite(depth) & (depth > 0), depth, 0).astype(np.float32)


def _read_depth(path: Path) -> NDArray[Any]:
    suffix = path.suffix.lower()
    if suffix not in DEPTH_SUFFIXES:
        raise UserError(f"{path}: depth files end in {', '.join(sorted(DEPTH_SUFFIXES))}")
    if suffix == ".npy":
        return np.load(path, allow_pickle=False).squeeze()
    if suffix == ".npz":
        with np.load(path, allow_pickle=False) as archive:
            return archive[archive.files[0]].squeeze()
    if suffix == ".png":
        with Image.open(path) as image:
            if image.mode in ("L", "P", "1"):
                raise ValueError("it has 8 bits per pixel, a depth PNG has 16")
            return np.asarray(image).astype(np.float32) / 1000
    return _read_float_image(path)


def _read_float_image(path: Path) -> NDArray[Any]:
    """The first channel of a .pfm or .exr file. Raises OSError or ValueError."""
    import os

    os.environ.setdefault("OPENCV_IO_ENABLE_OPENEXR", "1")
    import cv2

    path.open("rb").close()  # OpenCV does not say why it cannot open a file
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        depth = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    except cv2.error:  # a header that asks for an absurd size
        depth = None
    finally:
        cv2.utils.logging.setLogLevel(level)
    if depth is None:
        raise ValueError("OpenCV cannot decode it")
    return depth[..., 0] if depth.ndim == 3 else depth


def resize_with_padding(
    image: Image.Image, target: int, black: bool = False
) -> tuple[Image.Image, Image.Image, tuple[int, int]]:
    """Resize so that the long side is `target`, and paste centred on a square canvas (specs/warp_diffusion
    3.1).

    Returns the padded [target, target] image, the unpadded one, and where the latter was pasted (left, top).
    Lanczos; sizes truncate, but the long side never falls short of `target`; white canvas unless `black`.
    """
    longest = max(image.size)
    ratio = target / longest
    width, height = (target if side == longest else max(1, int(side * ratio)) for side in image.size)
    unpadded = image.resize((width, height), Image.Resampling.LANCZOS)
    canvas = Image.new("RGB", (target, target), (0, 0, 0) if black else (255, 255, 255))
    corner = ((target - width) // 2, (target - height) // 2)
    canvas.paste(unpadded, corner)
    return canvas, unpadded, corner


def image_grid(
    images: Sequence[Image.Image], fixed_height: int = 256, spacing: int = 5, columns: int = 5
) -> Image.Image:
    """Paste images row by row on white, `columns` to a row, each resized to `fixed_height` (bicubic, width
    truncated), `spacing` pixels apart (specs/warp_diffusion 1.3).

    Raises ValueError when there is no image.
    """
    if not images:
        raise ValueError("a grid needs at least one image")
    cells = [
        image.resize((int(fixed_height * (image.width / image.height)), fixed_height)) for image in images
    ]
    rows = [cells[start : start + columns] for start in range(0, len(cells), columns)]
    width = max(sum(cell.width + spacing for cell in row) for row in rows) - spacing
    grid = Image.new("RGB", (width, len(rows) * (fixed_height + spacing) - spacing), (255, 255, 255))
    for i, row in enumerate(rows):
        left = 0
        for cell in row:
            grid.paste(cell, (left, i * (fixed_height + spacing)))
            left += cell.width + spacing
    return grid


def center_crop(image: Tensor, cameras: Cameras, height: int, width: int) -> tuple[Tensor, Cameras]:
    """Cut the central height x width window out of [..., 3, H, W] and move the principal points along."""
    top, left = (cameras.height - height) // 2, (cameras.width - width) // 2
    return image[..., top : top + height, left : left + width], cameras.crop(top, left, height, width)
