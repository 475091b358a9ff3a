"""`builtin:rigs`: procedural clips, as many as wanted, deterministic by seed, with nothing on disk.

A rig of 4 to 10 nearly parallel cameras films a room with textured boxes, posts and panels, through which one
to three things move. Images are exact (`toy_cast`), and so are plates, mattes, depth and views by any other
camera. They are made when they are read: a photo of 128x72 takes 8 ms.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.errors import UserError
from dataloader.rig.clip import Clip
from dataloader.rig.config import RIGS, RigConfig
from dataloader.rig.toy_cast import depth_map, depth_range, picture
from dataloader.rig.toy_draw import draw_stage
from dataloader.rig.toy_site import draw_cameras, draw_site
from dataloader.rig.toy_stage import Stage
from dataloader.room_scenes import seed_range
from geometry.cameras import Cameras
from geometry.views import Views

_SUPERSAMPLE = 3  # rays per pixel and axis
_KEPT_BYTES = 96 * 2**20  # of images made, per process


@dataclass(frozen=True)
class ToyFilm:
    """What a procedural clip follows from. cameras: how many; 0 draws 4 to 10."""

    seed: int
    moments: int
    height: int
    width: int
    cameras: int = 0

    def __str__(self) -> str:
        return f"rig{self.seed:06d}"

    @property
    def stage(self) -> Stage:
        return _stage(self)

    @property
    def rig(self) -> Cameras:
        """[C] float64 cameras."""
        return _rig(self)


@dataclass(frozen=True)
class ToyImage:
    """One image of a procedural clip, made when it is read (`dataloader.images.StoredImage`)."""

    film: ToyFilm
    camera: int
    moment: int
    kind: Literal["photo", "plate", "matte"]

    def __str__(self) -> str:
        return f"{RIGS} {self.film} camera {self.camera} moment {self.moment} {self.kind}"

    def read(self) -> NDArray[np.uint8]:
        """[H, W, 3] uint8, or [H, W, 4] for a matte: the photo's colours, 0 where alpha is 0, and alpha."""
        moving = self.kind != "plate"
        rgba = _kept.get((self.film, self.camera, self.moment, moving), lambda: self._make(moving))
        return rgba * (rgba[..., 3:] > 0) if self.kind == "matte" else rgba[..., :3].copy()

    def _make(self, moving: bool) -> NDArray[np.uint8]:
        film = self.film
        image, alpha = picture(film.stage, film.rig[self.camera], self.moment, _SUPERSAMPLE, moving)
        return np.rint(255 * np.concatenate([image, alpha[..., None]], -1)).astype(np.uint8)


@dataclass
class _Bounds(Sequence[tuple[float, float]]):
    """Exact depth bounds of the cameras of a film, found when they are asked for."""

    film: ToyFilm
    cameras: int

    def __len__(self) -> int:
        return self.cameras

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(self.cameras)[index]]
        return _bounds(self.film, range(self.cameras)[index])


def open_rigs(config: RigConfig) -> tuple[list[Clip], list[Clip]]:
    """Clips to train on and others to test with, by the seeds of the settings."""
    train, test = (
        [open_rig(ToyFilm(seed, config.frames, *config.size, config.cameras)) for seed in seed_range(seeds)]
        for seeds in (config.seeds, config.test_seeds)
    )
    return train, test


def open_rig(film: ToyFilm) -> Clip:
    """A procedural clip, of which nothing is made yet."""
    rig = film.rig
    count, moments = len(rig), range(film.moments)
    return Clip(
        str(film),
        [f"cam{camera:02d}" for camera in range(count)],
        [rig[camera] for camera in range(count)],
        _Bounds(film, count),
        photos=[[ToyImage(film, c, t, "photo") for t in moments] for c in range(count)],
        plates=[ToyImage(film, c, 0, "plate") for c in range(count)],
        mattes=[[ToyImage(film, c, t, "matte") for t in moments] for c in range(count)],
    )


def render_novel(clip: Clip, cameras: Cameras, moment: int) -> Views:
    """What any cameras [N] inside the room of a procedural clip see at one of its moments, exactly.

    Returns Views with images and plates that are not rounded to 8 bits, depth and its bounds, and foreground.
    Raises UserError for a clip that is not procedural, ValueError for a camera outside the room.
    """
    first = clip.plates[0] if clip.plates else None
    if not isinstance(first, ToyImage):
        raise UserError(f"{clip.name} is no clip of {RIGS}: only these can be seen from anywhere")
    stage, frame = first.film.stage, clip.frames[moment]
    parts: dict[str, list[Tensor]] = {"images": [], "foreground": [], "background": [], "depth": []}
    for camera in (cameras[i] for i in range(len(cameras))):
        image, alpha = picture(stage, camera, frame, _SUPERSAMPLE)
        plate, _ = picture(stage, camera, frame, _SUPERSAMPLE, moving=False)
        parts["images"].append(torch.from_numpy(image).permute(2, 0, 1))
        parts["foreground"].append(torch.from_numpy(alpha > 0.5).float()[None])
        parts["background"].append(torch.from_numpy(plate).permute(2, 0, 1))
        parts["depth"].append(torch.from_numpy(depth_map(stage, camera, frame))[None])
    stacked = {name: torch.stack(maps) for name, maps in parts.items()}
    return Views(
        cameras=cameras,
        valid=torch.ones_like(stacked["depth"]),
        names=[f"{i:03d}" for i in range(len(cameras))],
        **stacked,
    )


class _Kept:
    """Arrays made lately, of at most so many bytes in all: what was made first goes first."""

    def __init__(self, limit: int) -> None:
        self._limit, self._bytes = limit, 0
        self._arrays: dict[Hashable, NDArray[np.uint8]] = {}
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], NDArray[np.uint8]]) -> NDArray[np.uint8]:
        found = self._arrays.get(key)
        if found is None:
            found = make()
            with self._lock:
                self._bytes += found.nbytes if key not in self._arrays else 0
                self._arrays[key] = found
                while self._bytes > self._limit:
                    self._bytes -= self._arrays.pop(next(iter(self._arrays))).nbytes
        return found


_kept = _Kept(_KEPT_BYTES)


@lru_cache(maxsize=1024)
def _stage(film: ToyFilm) -> Stage:
    return draw_stage(film.seed, draw_site(film.seed, film.width / film.height), film.moments)


@lru_cache(maxsize=4096)
def _rig(film: ToyFilm) -> Cameras:
    site = draw_site(film.seed, film.width / film.height)
    return draw_cameras(film.seed, site, film.height, film.width, film.cameras)


@lru_cache(maxsize=16384)
def _bounds(film: ToyFilm, camera: int) -> tuple[float, float]:
    return depth_range(film.stage, film.rig[camera])
