"""A folder of photos as it comes from a camera: checked, and copied upright and small enough to work on."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from common.cli import progress
from common.errors import UserError
from dataloader.images import fit_size, list_images, read_image, resize_image

_ORIENTATION = 0x0112  # EXIF tag
_PLAIN_SUFFIXES = {".jpg", ".jpeg", ".png"}  # what COLMAP reads as we do
MIN_PHOTOS = 3


@dataclass(frozen=True)
class Photo:
    """A photo file, its name without suffix, and the SHA-256 of its bytes."""

    path: Path
    name: str
    digest: str


def open_photos(folder: Path) -> list[Photo]:
    """The photos of a folder, sorted by file name.

    Raises UserError when there are fewer than 3, or two of them differ only in their suffix.
    """
    files = list_images(folder)
    if len(files) < MIN_PHOTOS:
        raise UserError(f"{folder} holds {len(files)} photos: at least {MIN_PHOTOS} are needed")
    named: dict[str, Path] = {}
    for file in files:
        first = named.setdefault(file.stem, file)
        if first is not file:
            raise UserError(f"{folder}: {first.name} and {file.name} have the same name: rename one")
    return [Photo(file, file.stem, _digest(file)) for file in files]


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error})") from None


def copy_photos(photos: Sequence[Photo], folder: Path, max_size: int) -> dict[str, tuple[int, int]]:
    """Write every photo upright, RGB, with its long side at most `max_size` (0: any), as 00000_NAME.jpg, ...

    Photos that are so already are copied byte for byte (JPEG or PNG); others become JPEG of quality 98
    without chroma subsampling and keep their EXIF block, which tells the focal length. Returns file name ->
    (height, width) in the photos' order. Raises UserError for a photo that is unreadable or cut off.
    """
    folder.mkdir(parents=True)
    sizes = {}
    for number, photo in enumerate(progress(photos, "photos", unit="photo", leave=False)):
        image = read_image(photo.path)  # decodes every pixel: a cut-off file is noticed here
        size = fit_size(image.shape[0], image.shape[1], max_size)
        exif, plain = _look(photo.path)
        stem = (
            f"{number:05d}_{re.sub(r'[^A-Za-z0-9.-]', '_', photo.name)}"  # no spaces: see sfm.match_features
        )
        if plain and size == image.shape[:2]:
            target = folder / f"{stem}{photo.path.suffix.lower()}"
            shutil.copyfile(photo.path, target)
        else:
            target = folder / f"{stem}.jpg"
            resized = Image.fromarray(resize_image(image, size))
            resized.save(target, quality=98, subsampling=0, exif=exif)
        sizes[target.name] = size
    return sizes


def source_number(name: str) -> int:
    """Which photo a copy of `copy_photos` was made from."""
    return int(name.partition("_")[0])


def _look(path: Path) -> tuple[Image.Exif, bool]:
    """The EXIF block without its orientation, and whether COLMAP sees the file as `read_image` does."""
    with Image.open(path) as image:
        exif = image.getexif()
        exif.get_ifd(0x8769)  # loads the block that holds the focal length, so that it is saved along
        plain = path.suffix.lower() in _PLAIN_SUFFIXES and image.mode == "RGB"
        upright = exif.get(_ORIENTATION, 1) == 1
        if not upright:
            del exif[_ORIENTATION]
    return exif, plain and upright
