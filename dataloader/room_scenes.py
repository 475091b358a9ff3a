"""Procedural rooms as a set of scenes: as many as wanted, deterministic, nothing on disk."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from common.errors import UserError
from dataloader.images import to_uint8
from dataloader.scene import Record, Scene
from dataloader.scene_sets import SceneSets, ViewTask
from dataloader.toy import make_boxes, make_cameras, render
from geometry.views import Views

_BOXES = 6


@dataclass
class RoomsConfig:
    """The rooms of `builtin:rooms`, whose seeds are their names. Seeds: 'FIRST:LAST' (LAST left out)."""

    seeds: str = "0:1024"  # rooms to train on
    test_seeds: str = "100000:100032"  # rooms to test with, never the same
    views: int = 9  # photos per room, along an arc of 70 degrees
    size: int = 64  # side of the photos in pixels

    def __post_init__(self) -> None:
        if set(seed_range(self.seeds)) & set(seed_range(self.test_seeds)):
            raise UserError(f"data.rooms: seeds {self.seeds} and test_seeds {self.test_seeds} overlap")
        if self.views < 5 or self.size < 16:
            raise UserError("data.rooms: at least 5 views and a size of 16 pixels are needed")


def seed_range(text: str, section: str = "data.rooms") -> range:
    """The seeds that 'FIRST:LAST' stands for. Raises UserError naming the section for anything else."""
    match = re.fullmatch(r"(\d+):(\d+)", text)
    if match is None or int(match[1]) >= int(match[2]):
        raise UserError(f"{section}: seeds are {text!r}, write FIRST:LAST such as 0:1024")
    return range(int(match[1]), int(match[2]))


@dataclass
class RoomScenes:
    """Rooms of some seeds, each seen by cameras on an arc of 70 degrees (`dataloader.toy`), with exact depth.

    n_views: photos per room, in order along the arc. size: (height, width) in pixels. kept: how many rooms
    stay in memory once made, photos in 8 bits (9 views of 64x64 take 0.26 MB with their depth).
    """

    seeds: Sequence[int]
    n_views: int = 9
    size: tuple[int, int] = (64, 64)
    name: str = "builtin:rooms"
    kept: int = 4096
    chunk_sizes: Sequence[int] | None = None
    _made: dict[int, Scene] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.seeds)

    def key(self, index: int) -> str:
        return f"room{self.seeds[index]}"

    def scene(self, index: int) -> Scene:
        """Room `index` as an in-memory scene. Those who change the scene change it for the next reader."""
        if index not in self._made:
            while len(self._made) >= self.kept:
                self._made.pop(next(iter(self._made)))
            self._made[index] = self._make(index)
        return self._made[index]

    def _make(self, index: int) -> Scene:
        seed = self.seeds[index]
        boxes = make_boxes(seed, _BOXES)
        views = render(boxes, make_cameras(seed, self.n_views, *self.size, boxes))
        return Scene(self.key(index), [_record(views, i) for i in range(self.n_views)])


def _record(views: Views, index: int) -> Record:
    assert views.depth is not None
    depth: Tensor = views.depth[index, 0]
    bounds = (float(depth.min()), float(depth.max()))
    image = to_uint8(views.images[index])
    return Record(views.names[index], views.cameras[index], image, np.asarray(depth), bounds=bounds)


def open_rooms(config: RoomsConfig) -> SceneSets:
    """Rooms to train on and others to test with, with a task for each of these.

    A task gives the views at one and two thirds of the arc and asks for those between them.
    """
    size = (config.size, config.size)
    train = RoomScenes(seed_range(config.seeds), config.views, size)
    test = RoomScenes(seed_range(config.test_seeds), config.views, size)
    left, right = config.views // 3, 2 * config.views // 3
    between = tuple(range(left + 1, right))
    tasks = [ViewTask(i, (left, right), between) for i in range(len(test))]
    return SceneSets("builtin:rooms", {"train": train, "test": test}, {"test": tasks})
