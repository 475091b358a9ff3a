"""The focal length of a photo, from what its camera wrote into it (EXIF 2.3)."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from common.errors import UserError
from dataloader.images import image_size

FULL_FRAME_DIAGONAL = math.hypot(36.0, 24.0)  # mm, 43.27: what '35 mm equivalent' refers to (CIPA DCG-001)

_EXIF_FOLDER = 0x8769
_FOCAL_LENGTH, _FOCAL_LENGTH_35 = 0x920A, 0xA405
_PLANE_RESOLUTION, _PLANE_UNIT = 0xA20E, 0xA210
_EXIF_WIDTH, _EXIF_HEIGHT = 0xA002, 0xA003
_MILLIMETRES = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}  # per unit of the focal-plane resolution
_SENSORS = (3.0, 100.0)  # diagonals of sensors that exist, in mm
_LARGE_PIXEL, _LARGE_SENSOR = 0.0038, 15.0  # mm: pixels above this are found on sensors above this diagonal
_UNREADABLE = (OSError, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError)


def focal_length(path: Path) -> float | None:
    """The focal length in pixels of a photo as `read_image` returns it; None where its EXIF does not tell.

    From the 35 mm equivalent, where there is one: the diagonal of the photo stands for 43.27 mm (a photo
    cropped since is then wrong by the factor of the crop). Otherwise from the focal length in mm, the pixels
    per mm of the sensor and the number of pixels it took, as EXIF states them; the photo may have been
    resized since. Programs that resize often write the new number of pixels beside the old pixels per mm:
    this is noticed where the sensor would come out too small for its pixels, and gives None; a moderate
    reduction (of a full frame to half its width) can go unnoticed. Turning a photo changes nothing.
    Raises UserError when the file is missing or no image.
    """
    height, width = image_size(path)
    tags = _exif(path)
    diagonal = math.hypot(height, width)
    equivalent = _positive(tags.get(_FOCAL_LENGTH_35))
    if equivalent is not None:
        return equivalent * diagonal / FULL_FRAME_DIAGONAL
    return _from_sensor(tags, diagonal)


def _from_sensor(tags: dict[int, Any], diagonal: float) -> float | None:
    """Focal length in pixels of a photo with that diagonal, from mm and pixels per mm on the sensor."""
    length = _positive(tags.get(_FOCAL_LENGTH))
    resolution = _positive(tags.get(_PLANE_RESOLUTION))
    unit = _MILLIMETRES.get(int(_positive(tags.get(_PLANE_UNIT)) or 2))  # 2, inches, is EXIF's default
    if length is None or resolution is None or unit is None:
        return None
    taken = _taken_diagonal(tags)
    per_mm = resolution / unit
    if taken is None or not _exists(taken / per_mm, 1 / per_mm):
        return None
    return length * per_mm * diagonal / taken


def _exists(sensor: float, pixel: float) -> bool:
    """Whether there are sensors of that diagonal with pixels of that pitch, both in mm."""
    return _SENSORS[0] <= sensor <= _SENSORS[1] and (pixel < _LARGE_PIXEL or sensor > _LARGE_SENSOR)


def _taken_diagonal(tags: dict[int, Any]) -> float | None:
    """The diagonal in pixels of the photo that EXIF describes."""
    width, height = _positive(tags.get(_EXIF_WIDTH)), _positive(tags.get(_EXIF_HEIGHT))
    return None if width is None or height is None else math.hypot(width, height)


def _exif(path: Path) -> dict[int, Any]:
    try:
        with Image.open(path) as image:
            return dict(image.getexif().get_ifd(_EXIF_FOLDER))
    except _UNREADABLE as error:
        raise UserError(f"{path} is not a readable image ({error}): replace the file") from None


def _positive(value: Any) -> float | None:
    """A tag as a number above 0; None when it is absent, 0 (EXIF's 'unknown'), or not a number."""
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return number if 0 < number < math.inf else None
