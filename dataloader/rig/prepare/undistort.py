"""Frames resampled to ideal pinhole cameras by a calibration of the lenses (specs/mask_volume 4.2)."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.errors import UserError
from dataloader.formats.shared import write_json
from dataloader.rig.prepare.calibration import RigLens, read_calibration
from dataloader.rig.prepare.folders import claim, digest
from dataloader.rig.prepare.frames import RigFrames, convert_frames, read_frame
from dataloader.scene import ImageSize

logger = logging.getLogger(__name__)

INTRINSICS = "intrinsics.json"  # beside the camera folders: the pinholes that were made
_FINER = 4  # samples per pixel and axis, at most, where a photo is reduced
_SIDE = 64  # samples per side of the frame
_TOLERANCE = 1e-3  # pixels


@dataclass(frozen=True)
class Pinhole:
    """The camera to make: size (height, width), fov: horizontal, in degrees; the centre is the middle."""

    size: ImageSize
    fov: float = 90.0

    def __post_init__(self) -> None:
        if not 1 <= self.fov < 180 or min(self.size) < 1:
            raise UserError(f"fov {self.fov:g} of {self.size}: a pinhole sees 1 to 179 degrees")

    @property
    def focal(self) -> float:
        """Pixels."""
        return self.size[1] / 2 / math.tan(math.radians(self.fov) / 2)

    def points(self, pixels: NDArray[np.float64]) -> NDArray[np.float64]:
        """Pixels [..., 2] -> camera-plane points at depth 1."""
        return (pixels - np.array([self.size[1] / 2, self.size[0] / 2])) / self.focal


class Undistorter:
    """Resamples photos of one lens as a pinhole sees them; call it with [H, W, 3] uint8.

    A photo that is reduced is sampled finer and averaged. What the lens does not see becomes black; `unseen`
    is its share of the frame.
    """

    def __init__(self, lens: RigLens, target: Pinhole) -> None:
        height, width = target.size
        self.size = target.size
        middle = target.points(np.array([[width / 2, height / 2], [width / 2 + 1, height / 2]]))
        reduction = float(np.linalg.norm(np.diff(lens.distort(middle), axis=0)))
        self.finer = min(_FINER, max(1, int(reduction)))
        y, x = np.mgrid[0 : height * self.finer, 0 : width * self.finer]
        points = target.points((np.stack([x, y], axis=-1) + 0.5) / self.finer)
        pixels = lens.distort(points)
        self.x, self.y = np.moveaxis(pixels - 0.5, -1, 0).astype(np.float32)  # OpenCV's pixel centres
        self.outside = ~_seen(lens, points, pixels)
        self.unseen = float(self.outside.mean())

    def __call__(self, photo: NDArray[np.uint8]) -> NDArray[np.uint8]:
        import cv2

        image = cv2.remap(photo, self.x, self.y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        image[self.outside] = 0
        if self.finer > 1:
            image = cv2.resize(image, self.size[::-1], interpolation=cv2.INTER_AREA)
        return np.asarray(image, dtype=np.uint8)


def _seen(lens: RigLens, points: NDArray[np.float64], pixels: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which camera-plane points [..., 2] the lens shows inside its photo, where it is one-to-one."""
    assert lens.size is not None
    radius = np.linalg.norm(points, axis=-1)
    high = np.array([lens.size[1], lens.size[0]]) + _TOLERANCE
    inside = ((pixels >= -_TOLERANCE) & (pixels <= high)).all(axis=-1)
    return inside & (radius <= lens.reach(float(radius.max())))


def largest_fov(lens: RigLens, size: ImageSize) -> float:
    """The largest horizontal field of view, to a tenth of a degree, that leaves no pixel of `size` empty."""
    height, width = size
    along = np.linspace(0, 1, _SIDE)
    edge = np.concatenate([np.stack([along, along * 0 + k], -1) for k in (0, 1)])
    border = np.concatenate([edge, edge[:, ::-1]]) * (width, height)

    def fits(fov: float) -> bool:
        points = Pinhole(size, fov).points(border)
        return bool(_seen(lens, points, lens.distort(points)).all())

    low, high = 1.0, 179.0
    while high - low > 0.05:
        middle = (low + high) / 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return math.floor(low * 10) / 10


def undistorters(
    calibration: Path, sizes: Sequence[ImageSize], names: Sequence[str], target: Pinhole
) -> list[Undistorter]:
    """One per camera. sizes: (height, width) of the cameras' frames. Warns of frames with empty pixels.

    Raises UserError for a calibration that is unreadable, of another number of cameras, or of another shape.
    """
    lenses = [
        lens.resized(size, f"{calibration}, {name}")
        for lens, size, name in zip(read_calibration(calibration, len(names)), sizes, names, strict=True)
    ]
    made = [Undistorter(lens, target) for lens in lenses]
    worst = max(range(len(made)), key=lambda i: made[i].unseen)
    if made[worst].unseen:
        fit = min(largest_fov(lens, target.size) for lens in lenses)
        logger.warning(
            "warning: %.1f%% of %s's frame lies outside its photos and stays black: --fov %.1f is the "
            "largest that leaves nothing empty",
            100 * made[worst].unseen,
            names[worst],
            fit,
        )
    return made


def write_intrinsics(names: Sequence[str], target: Pinhole, folder: Path) -> None:
    """Write `intrinsics.json`: the focal length in pixels of the cameras just made. `calibrate` reads it."""
    height, width = target.size
    camera = {"width": width, "height": height, "focal": target.focal}
    write_json(dict.fromkeys(names, camera), folder / INTRINSICS)


def undistort_frames(
    rig: RigFrames,
    out: Path,
    calibration: Path,
    size: ImageSize | None = None,
    fov: float = 90.0,
    quality: int = 95,
    png: bool = False,
) -> int:
    """Write every frame as `out/camXX/NAME.jpg` (or .png), seen by pinholes. Returns the frames made now.

    size, fov: of the pinholes; None keeps the frames' size, which must then be the same everywhere. A killed
    run continues. Raises UserError as `undistorters`, for unreadable frames, and when `out` holds anything
    else.
    """
    target = Pinhole(size or rig.size, fov)
    maps = undistorters(calibration, list(rig.sizes.values()), rig.names, target)
    options = {"frames": rig.fingerprint(), "calibration": digest(calibration), "png": png}
    claim(out, {"made_by": "undistort", **options, **asdict(target), "quality": quality})
    suffix, made = ".png" if png else ".jpg", 0
    for undistorter, (name, files) in zip(maps, rig.cameras.items(), strict=True):
        read = partial(_undistorted, undistorter=undistorter, size=rig.sizes[name])
        made += convert_frames(files, out / name, suffix, read, quality)
    write_intrinsics(rig.names, target, out)
    return made


def _undistorted(path: Path, undistorter: Undistorter, size: ImageSize) -> NDArray[np.uint8]:
    return undistorter(read_frame(path, size))
