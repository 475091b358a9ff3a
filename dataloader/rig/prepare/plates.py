"""Background plates: what each camera sees most of the time (specs/mask_volume 4.3).

Frames are read in bands of rows that fit the memory given, whatever the length of the clip and the size of
its frames; a band's pixels are known at all chosen moments, so that every statistic is exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from common.cli import progress
from common.errors import UserError
from dataloader.rig.prepare.folders import claim, in_order
from dataloader.rig.prepare.frames import RigFrames, read_frame, write_frame
from dataloader.rig.prepare.noise import spread
from dataloader.scene import ImageSize

Statistic = Literal["mode", "median"]
_ENOUGH = 50  # moments that a plate is made from by default: so many, up to twice as many, or all
_PARTS = 32  # of a band, for several threads
_MEGABYTE = 1_000_000
_RADIUS = 3.5  # standard deviations of the difference of two samples within which they agree
_LEAST_RADIUS = 6.0  # of 255


@dataclass(frozen=True)
class PlateOptions:
    """every: each n-th frame takes part, from the first (0: as many as are enough). statistic: 'mode' is the
    colour that most samples agree on, 'median' that of each channel. memory: MB for samples.
    """

    every: int = 0
    statistic: Statistic = "mode"
    memory: int = 256

    def chosen(self, count: int) -> range:
        """Which of `count` frames take part."""
        return range(0, count, self.every or max(1, count // _ENOUGH))


def write_plates(rig: RigFrames, out: Path, options: PlateOptions) -> int:
    """Write `out/camXX.png` for every camera, loss-free. Plates that are there are kept; returns those made.

    Raises UserError for unreadable frames, and when `out` holds plates of other frames or options.
    """
    every = options.chosen(len(rig)).step
    claim(out, {"made_by": "background", "frames": rig.fingerprint(), "every": every,
                "statistic": options.statistic})  # fmt: skip
    made = 0
    for name, files in rig.cameras.items():
        if not (out / f"{name}.png").exists():
            chosen = [files[i] for i in options.chosen(len(rig))]
            write_frame(make_plate(chosen, rig.sizes[name], options, name), out / f"{name}.png")
            made += 1
    return made


def make_plate(
    files: Sequence[Path], size: ImageSize, options: PlateOptions, name: str = "plate"
) -> NDArray[np.uint8]:
    """[H, W, 3] uint8 of frames of this size. name: for the progress bar."""
    height, width = size
    rows = options.memory * _MEGABYTE // (len(files) * width * 3)
    if not rows:
        raise UserError(
            f"{options.memory} MB do not hold a row of {len(files)} frames, {width} pixels wide: raise "
            "--memory or --every"
        )
    bands = range(0, height, rows)
    plate = np.empty((height, width, 3), np.uint8)
    with progress((), name, len(bands) * len(files), "frame") as bar:
        for top in bands:
            bottom = min(top + rows, height)
            samples = np.empty((len(files), bottom - top, width, 3), np.uint8)
            for i, frame in enumerate(in_order(lambda path: read_frame(path, size), files)):
                samples[i] = frame[top:bottom]
                bar.update()
            plate[top:bottom] = median(samples) if options.statistic == "median" else mode(samples)
    return plate


def median(samples: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[T, ...] -> [...]: the middle value; of an even number the mean of the middle two, rounded down.

    The samples are reordered in place.
    """
    low, high = (len(samples) - 1) // 2, len(samples) // 2
    samples.partition(sorted({low, high}), axis=0)
    return ((samples[low].astype(np.uint16) + samples[high]) // 2).astype(np.uint8)


def mode(samples: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[T, H, W, 3] -> [H, W, 3]: the colour around which most samples of a pixel lie.

    Each sample is scored by how many others have its colour, and how closely, within what noise explains; the
    plate is the mean of those that agree with the best one. Unlike the median, it finds a background that is
    seen less than half of the time, if what covers it changes its colour.
    """
    from dataloader.rig.prepare.plate_kernels import densest

    radius = round(max(_LEAST_RADIUS, _RADIUS * 2**0.5 * noise(samples)))
    parts = np.array_split(samples, min(samples.shape[1], _PARTS), axis=1)
    return np.concatenate(list(in_order(lambda part: densest(part, radius), parts)))


def noise(samples: NDArray[np.uint8]) -> float:
    """Standard deviation of what differs from sample to sample where nothing moves, of 255."""
    if len(samples) < 2:
        return 0.0
    return spread(np.abs(np.diff(samples[:, ::4, ::4].astype(np.int16), axis=0))) / 2**0.5
