"""Sets of toy rooms in memory, with tasks on them."""

from __future__ import annotations

from functools import cache

from common.errors import UserError
from dataloader.scene import Scene
from dataloader.scene_sets import SceneSets, ViewTask
from dataloader.toy import make_scene

VIEWS = 9


@cache
def room(seed: int) -> Scene:
    scene = make_scene(seed, n_views=VIEWS, height=24, width=32, n_boxes=3)
    for record in scene.records:
        record.depth = None
    scene.surface = None
    return scene


class Rooms:
    """So many toy rooms. broken: indices of those that cannot be read."""

    chunk_sizes = None
    name = "rooms"

    def __init__(self, count: int, broken: tuple[int, ...] = ()) -> None:
        self.count, self.broken = count, broken

    def __len__(self) -> int:
        return self.count

    def key(self, index: int) -> str:
        return f"room{index}"

    def scene(self, index: int) -> Scene:
        if index in self.broken:
            raise UserError(f"chunk 0{index}.torch is cut off: download it again")
        return room(index)


def room_sets(count: int = 3, broken: tuple[int, ...] = (), sources: tuple[int, ...] = (0, 8)) -> SceneSets:
    """Rooms whose tasks have 2, 3, 2, 3, ... targets."""
    tasks = [ViewTask(i, sources, (3, 5, 6)[: 2 + i % 2]) for i in range(count)]
    return SceneSets("rooms", {"test": Rooms(count, broken)}, {"test": tasks})
