"""Procedural rooms to learn depth completion from: exact depth, and holes as they are in practice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dataloader.depth.pairs import DepthProtocol, make_task
from dataloader.images import to_uint8
from dataloader.toy import make_boxes, make_cameras, render, render_depth

_VIEWS = 8  # cameras on the arc of a room, 10 degrees apart
_FARTHEST = 3  # cameras between the two of an item, at most
_BOXES = 6
_UNIT = 5000  # steps per metre: 16 bits hold up to 13.1 m, the rooms' diagonal is 9.4

Photo = NDArray[np.uint8]
Stored = NDArray[np.uint16]


@dataclass
class RoomDepths:
    """An item per seed: a photo of a room, its true depth, and what a second camera knows of it.

    The second camera stands 10 to 30 degrees further along the room's arc; its true depth is drawn into the
    photo as in the benchmark (`dataloader.depth.pairs`): nothing is known behind what stands in front, nor
    beyond the border of its image, and here and there a farther surface shines through. Items are pure
    functions of seed and size. At 96x128 one takes 60 ms to make; it is then kept, at 7 bytes per pixel.

    height, width: of the photos, in pixels.
    """

    seeds: Sequence[int]
    height: int
    width: int
    _made: dict[int, tuple[Photo, Stored, Stored]] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.seeds)

    def name(self, index: int) -> str:
        return f"room{self.seeds[index]}"

    def load(self, index: int) -> tuple[Photo, NDArray[np.float32], NDArray[np.float32]]:
        """Photo [H, W, 3]; z-depth [H, W] > 0 in metres (to 0.1 mm); what is known of it [H, W], else 0."""
        if index not in self._made:
            self._made[index] = self._make(self.seeds[index])
        photo, depth, seen = self._made[index]
        return photo, _metres(depth), _metres(seen)

    def _make(self, seed: int) -> tuple[Photo, Stored, Stored]:
        boxes = make_boxes(seed, _BOXES)
        cameras = make_cameras(seed, _VIEWS, self.height, self.width, boxes)
        here, there = _choose_pair(seed)
        target = render(boxes, cameras[here : here + 1])
        assert target.depth is not None
        other = replace(
            target, cameras=cameras[there : there + 1], depth=render_depth(boxes, cameras[there])[None, None]
        )
        task = make_task(other, target, DepthProtocol(), f"room{seed}", "pair")
        return to_uint8(target.images[0]), _stored(target.depth[0, 0]), _stored(task.sparse[0, 0])


def _choose_pair(seed: int) -> tuple[int, int]:
    """The photo's camera and the other's, on the arc."""
    generator = torch.Generator().manual_seed(seed)
    here = int(torch.randint(_VIEWS, (1,), generator=generator))
    near = [view for view in range(_VIEWS) if 0 < abs(view - here) <= _FARTHEST]
    return here, near[int(torch.randint(len(near), (1,), generator=generator))]


def _stored(depth: Tensor) -> Stored:
    return (depth * _UNIT).round().numpy().astype(np.uint16)


def _metres(stored: Stored) -> NDArray[np.float32]:
    return stored.astype(np.float32) / np.float32(_UNIT)
