"""`Clip`: one recording by a rig, as scenes moment by moment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from common.errors import UserError
from dataloader.images import ImageSource, MatteSource
from dataloader.scene import Record, Scene
from geometry.cameras import Cameras

# How much farther than their bounds the planes of a rig reach (specs/mask_volume 3.2).
NEAR_MARGIN, FAR_MARGIN = 0.9, 2.0


@dataclass
class Clip:
    """C cameras that do not move, at T moments. Photos are read when they are asked for.

    name: for messages and files. names: of the cameras [C]. cameras: single float64 ones, all of one size,
    that of the photos. bounds: near and far z-depth per camera. photos: [C][T]; [T, H, W, 3] uint8 arrays per
    camera will do. frames: the number of each moment [T]; empty counts from 0. plates: [C] photos of the
    scene without what moves, or None. mattes: [C][T] where something moves, or None.

    Raises UserError for a single camera, cameras of different sizes, or lists of different lengths.
    """

    name: str
    names: list[str]
    cameras: list[Cameras]
    bounds: Sequence[tuple[float, float]]
    photos: Sequence[Sequence[ImageSource]]
    frames: Sequence[int] = ()
    plates: Sequence[ImageSource] | None = None
    mattes: Sequence[Sequence[MatteSource]] | None = None

    def __post_init__(self) -> None:
        if len(self.cameras) < 2:
            raise UserError(
                f"{self.name} has {len(self.cameras)} camera: a rig needs at least 2, to see depth at all"
            )
        self._check_sizes()
        self._check_counts()
        if not len(self.frames):
            self.frames = range(len(self.photos[0]))

    def _check_sizes(self) -> None:
        first = self.cameras[0]
        for name, camera in zip(self.names, self.cameras, strict=True):
            if (camera.height, camera.width) != (first.height, first.width):
                raise UserError(
                    f"{self.name}: {name} films in {camera.width}x{camera.height}, {self.names[0]} in "
                    f"{first.width}x{first.height}: bring the cameras of a rig to one size"
                )

    def _check_counts(self) -> None:
        expected = len(self.frames) or len(self.photos[0])
        for what, lists in (("photos", self.photos), ("mattes", self.mattes)):
            for name, items in zip(self.names, lists or [], strict=lists is not None):
                if len(items) != expected:
                    raise UserError(
                        f"{self.name}: {name} has {len(items)} {what} for {expected} moments: every camera "
                        "needs one per moment"
                    )
        if not expected:
            raise UserError(f"{self.name} has no photo: a clip needs at least one moment")
        if self.plates is not None and len(self.plates) != len(self.cameras):
            raise UserError(
                f"{self.name} has {len(self.plates)} background plates for {len(self.cameras)} cameras: "
                "there must be one per camera"
            )

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the photos."""
        return self.cameras[0].height, self.cameras[0].width

    def record(self, camera: int, moment: int) -> Record:
        """The photo of a camera at a moment, with its plate and matte where there are such."""
        return Record(
            self.names[camera],
            self.cameras[camera],
            self.photos[camera][moment],
            foreground=None if self.mattes is None else self.mattes[camera][moment],
            background=None if self.plates is None else self.plates[camera],
            bounds=self.bounds[camera],
        )

    def scene(self, moment: int) -> Scene:
        """What all cameras see at a moment, in the order of the cameras; named by its number ('00007')."""
        records = [self.record(camera, moment) for camera in range(len(self.cameras))]
        return Scene(f"{self.frames[moment]:05d}", records)

    def plane_bounds(self) -> tuple[float, float]:
        """Near and far depth of planes that suit every camera: 0.9 of the least near, twice the greatest far.

        Source: specs/mask_volume 3.2.
        """
        near, far = min(near for near, _ in self.bounds), max(far for _, far in self.bounds)
        return NEAR_MARGIN * near, FAR_MARGIN * far

    def cut(self, start: int = 0, end: int = 0, every: int = 1) -> Clip:
        """The moments from `start` up to, without, `end` (0: all that follow), every `every`-th of them.

        Moments count from 0. Raises UserError where there are none.
        """
        stop = end or len(self)
        if not 0 <= start < stop <= len(self) or every < 1:
            raise UserError(
                f"{self.name} has {len(self)} moments: start {start}, end {end}, every {every} choose none "
                "of them or some that are not there"
            )
        chosen = range(start, stop, every)
        if len(chosen) == len(self):
            return self
        return replace(
            self,
            frames=[self.frames[i] for i in chosen],
            photos=[[items[i] for i in chosen] for items in self.photos],
            mattes=None if self.mattes is None else [[items[i] for i in chosen] for items in self.mattes],
        )

    def need_plates(self) -> None:
        """Raises UserError where the clip has no background plates."""
        if self.plates is None:
            raise UserError(
                f"{self.name} has no background plates: give their folder (--background, "
                "data.rig.background), or make them with scripts/rig.py background"
            )
