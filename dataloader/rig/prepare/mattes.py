"""Foreground mattes: where a frame differs from its camera's plate by more than noise explains.

Difference keying knows no shape: shadows, reflections and whatever else changes the picture count as
foreground, and what has the colour of the wall behind it does not. Holes and specks of a few pixels are
closed and dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.errors import UserError
from dataloader.images import image_size, read_image
from dataloader.rig.prepare.folders import claim, digest
from dataloader.rig.prepare.frames import RigFrames, convert_frames, read_frame, text_of
from dataloader.rig.prepare.noise import spread
from dataloader.scene import ImageSize

_MEASURED = 12  # frames per camera that noise is measured on
_LEAST_NOISE = 1.0  # of 255: cameras without noise are still written with 8 bits
_SHAKE = 0.1  # pixels by which edges of the plate may move: lenses breathe, codecs smear
_RIM_CONTRAST = 3.0  # times the threshold: below it a rim's share of the foreground cannot be told
_SMALL_SPECK, _SMALL_HOLE = 1e-3, 3e-3  # of the frame's area


@dataclass(frozen=True)
class MatteOptions:
    """low, high: standard deviations of the noise. What exceeds `low` is foreground where it hangs together
    with something that exceeds `high`. rim: pixels along its edge that may show both layers.
    """

    low: float = 3.0
    high: float = 8.0
    rim: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.low <= self.high or self.rim < 0:
            raise UserError(
                f"mattes: need 0 < low <= high and rim >= 0, not {self.low:g}, {self.high:g}, {self.rim}"
            )


class Keyer:
    """Mattes of one camera. plate: [H, W, 3] uint8. noise: its frames' standard deviation, of 255."""

    def __init__(self, plate: NDArray[np.uint8], noise: float, options: MatteOptions) -> None:
        self.plate = plate.astype(np.float32)
        slope = np.hypot(*np.gradient(self.plate, axis=(0, 1))).max(-1)
        self.unit = np.hypot(max(noise, _LEAST_NOISE), _SHAKE * slope)  # [H, W] one standard deviation
        self.options = options

    def __call__(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """[H, W, 3] uint8 -> [H, W, 4] uint8: the foreground's colour, 0 where alpha is 0, and alpha."""
        difference = frame - self.plate
        solid = self._solid(np.abs(difference).max(-1) / self.unit)
        core = _eroded(solid, self.options.rim)
        color, share = self._rim(frame, difference, core)
        alpha = np.where(core, 1.0, np.where(solid, share, 0.0))
        matte = np.concatenate([color, np.rint(alpha * 255)[..., None]], axis=-1).astype(np.uint8)
        matte[matte[..., 3] == 0] = 0
        return matte

    def _solid(self, distance: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Where the foreground is, rims included, from the difference in standard deviations [H, W]."""
        import cv2

        mask = (distance > self.options.low).astype(np.uint8)
        count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
        kept = np.zeros(count, dtype=bool)
        kept[np.unique(labels[distance > self.options.high])] = True
        kept &= stats[:, cv2.CC_STAT_AREA] >= _SMALL_SPECK * mask.size
        kept[0] = False
        closed = cv2.morphologyEx(
            kept[labels].astype(np.uint8), cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8), borderValue=0
        )
        count, labels, stats, _ = cv2.connectedComponentsWithStats(1 - closed, connectivity=4)
        holes = stats[:, cv2.CC_STAT_AREA] < _SMALL_HOLE * mask.size
        holes[0] = False
        return (closed > 0) | holes[labels]

    def _rim(
        self, frame: NDArray[np.uint8], difference: NDArray[np.float32], core: NDArray[np.bool_]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The foreground's colour [H, W, 3], that of the nearest pixel of the core, and its share [H, W].

        The share is where the frame lies between plate and foreground; all, where the two look alike.
        """
        if not core.any():
            return frame.astype(np.float32), np.ones(core.shape, np.float32)
        color = frame[_nearest(core)].astype(np.float32)
        contrast = color - self.plate
        square = (contrast * contrast).sum(-1)
        share = ((difference * contrast).sum(-1) / np.maximum(square, 1e-6)).clip(0, 1)
        return color, np.where(square < (_RIM_CONTRAST * self.options.low * self.unit) ** 2, 1, share)


def _eroded(mask: NDArray[np.bool_], pixels: int) -> NDArray[np.bool_]:
    import cv2

    square = np.ones((2 * pixels + 1, 2 * pixels + 1), np.uint8)
    return cv2.erode(mask.astype(np.uint8), square, borderValue=1) > 0


def _nearest(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns [H, W] of the nearest pixel of a mask that has some."""
    import cv2

    _, labels = cv2.distanceTransformWithLabels(
        1 - mask.astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    where = np.empty(labels.max() + 1, np.int64)
    where[labels[mask]] = np.flatnonzero(mask)
    return np.unravel_index(where[labels], mask.shape)


def measured_noise(files: Sequence[Path], plate: NDArray[np.uint8], size: ImageSize) -> float:
    """Standard deviation of frames from the plate where nothing moves, of 255."""
    chosen = files[:: max(1, len(files) // _MEASURED)][:_MEASURED]
    differences = [
        np.abs(read_frame(path, size)[::2, ::2].astype(np.int16) - plate[::2, ::2]) for path in chosen
    ]
    return spread(np.stack(differences))


def write_mattes(rig: RigFrames, plates: Path, out: Path, options: MatteOptions) -> int:
    """Write `out/camXX/NAME.png` (RGBA) for every frame. Returns the mattes made now; a killed run continues.

    plates: folder of camXX.png. Raises UserError when a plate is missing or not of its frames' size, a frame
    is unreadable, or `out` holds mattes of other frames, plates or options.
    """
    files = {name: _plate_file(plates, name) for name in rig.names}
    for name, path in files.items():
        if image_size(path) != rig.sizes[name]:
            raise UserError(
                f"{path} is {text_of(image_size(path))}, {name}'s frames are {text_of(rig.sizes[name])}: "
                "make the plate of these frames (rig.py background)"
            )
    claim(out, {"made_by": "mattes", "frames": rig.fingerprint(), "plates": digest(*files.values()),
                **asdict(options)})  # fmt: skip
    made = 0
    for name, frames in rig.cameras.items():
        if (out / name).is_dir():
            continue
        plate = read_image(files[name])
        keyer = Keyer(plate, measured_noise(frames, plate, rig.sizes[name]), options)
        made += convert_frames(frames, out / name, ".png", partial(_matte, keyer=keyer, size=rig.sizes[name]))
    return made


def _matte(path: Path, keyer: Keyer, size: ImageSize) -> NDArray[np.uint8]:
    return keyer(read_frame(path, size))


def _plate_file(folder: Path, name: str) -> Path:
    found = sorted(path for path in folder.glob(f"{name}.*") if path.suffix.lower() in (".png", ".jpg"))
    if not found:
        raise UserError(
            f"{folder} has no background plate {name}.png: make plates with rig.py background, or name their "
            "folder with --background"
        )
    return found[-1]
