"""Procedural rooms as a set of scenes: as many as wanted, deterministic, nothing on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from dataloader.images import to_uint8
from dataloader.scene import Record, Scene
from dataloader.scene_sets import SceneSets, ViewTask
from dataloader.toy import make_boxes, make_cameras, render
from geometry.views import Views

_BOXES = 6
_TRAIN, _TEST = 64, 8  # rooms of the built-in set, where their number is not said
_TEST_SEED = 100_000  # first seed of the test rooms, far from those trained on
_VIEWS, _SIZE = 24, 64


@dataclass
class RoomScenes:
    """Rooms of some seeds, each seen by cameras on an arc of 70 degrees (`dataloader.toy`), with exact depth.

    n_views: photos per room, in order along the arc. size: (height, width) in pixels. kept: how many rooms
    stay in memory once made, photos in 8 bits (24 views of 64x64 take 0.7 MB with their depth).
    """

    seeds: Sequence[int]
    n_views: int = _VIEWS
    size: tuple[int, int] = (_SIZE, _SIZE)
    name: str = "builtin:rooms"
    kept: int = 1024
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


def open_rooms(
    count: int = _TRAIN, tests: int = _TEST, n_views: int = _VIEWS, size: tuple[int, int] = (_SIZE, _SIZE)
) -> SceneSets:
    """`count` rooms to train on and `tests` others, with a task for each of these.

    A task gives the views at one and three quarters of the arc and asks for three between them.
    """
    train = RoomScenes(range(count), n_views, size)
    test = RoomScenes(range(_TEST_SEED, _TEST_SEED + tests), n_views, size)
    left, right = n_views // 4, 3 * n_views // 4
    between = torch.linspace(left, right, 5)[1:-1].round().int().tolist()
    tasks = [ViewTask(i, (left, right), tuple(between)) for i in range(tests)]
    return SceneSets("builtin:rooms", {"train": train, "test": test}, {"test": tasks})
