"""Procedural rooms to learn depth completion from: exact depth, and holes as they are in practice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dataloader.images import to_uint8
from dataloader.toy import Boxes, make_boxes, make_cameras, render, render_depth
from geometry.cameras import Cameras
from geometry.points import splat

_VIEWS = 8  # cameras on the arc of a room, 10 degrees apart
_FARTHEST = 3  # cameras between the two of an item, at most
_BOXES = 6
_FINER = 2  # points per pixel and axis, so that near surfaces do not fall apart into dots
_UNIT = 5000  # steps per metre: 16 bits hold up to 13.1 m, the rooms' diagonal is 9.4


@dataclass
class RoomDepths:
    """An item per seed: a photo of a room, its true depth, and the mask of what a second camera cannot know.

    The second camera stands 10 to 30 degrees further along the room's arc. Its true depth is splatted into
    the photo's camera (`geometry.points.splat`, points of one pixel's radius); the hole mask is 1 where no
    point falls: behind the edges of what stands in front, and beyond the border of its image. Items are pure
    functions of seed and size. At 64x96 one takes 40 ms to make; it is then kept, at 6 bytes per pixel.

    height, width: of the photos, in pixels.
    """

    seeds: Sequence[int]
    height: int
    width: int
    _made: dict[int, tuple[NDArray[np.uint8], NDArray[np.uint16], NDArray[np.uint8]]] = field(
        default_factory=dict, repr=False
    )

    def __len__(self) -> int:
        return len(self.seeds)

    def name(self, index: int) -> str:
        return f"room{self.seeds[index]}"

    def load(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.uint8]]:
        """Photo [H, W, 3], z-depth [H, W] > 0 in metres (to 0.1 mm), hole mask [H, W] {0, 1}."""
        if index not in self._made:
            self._made[index] = self._make(self.seeds[index])
        photo, depth, hole = self._made[index]
        return photo, depth.astype(np.float32) / np.float32(_UNIT), hole

    def _make(self, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint16], NDArray[np.uint8]]:
        boxes = make_boxes(seed, _BOXES)
        cameras = make_cameras(seed, _VIEWS, self.height, self.width, boxes)
        here, there = _choose_pair(seed)
        views = render(boxes, cameras[here : here + 1])
        assert views.depth is not None
        points = _points(boxes, cameras[there])
        opacity = splat(points, None, cameras[here].to(torch.float32)).opacity
        assert opacity is not None
        depth = (views.depth[0, 0] * _UNIT).round().numpy().astype(np.uint16)
        return to_uint8(views.images[0]), depth, (opacity[0] == 0).numpy().astype(np.uint8)


def _choose_pair(seed: int) -> tuple[int, int]:
    """The photo's camera and the other's, on the arc."""
    generator = torch.Generator().manual_seed(seed)
    here = int(torch.randint(_VIEWS, (1,), generator=generator))
    near = [view for view in range(_VIEWS) if 0 < abs(view - here) <= _FARTHEST]
    return here, near[int(torch.randint(len(near), (1,), generator=generator))]


def _points(boxes: Boxes, camera: Cameras) -> Tensor:
    """What a camera sees of a room, as points [P, 3] in the world, `_FINER`^2 per pixel."""
    fine = camera.resize(camera.height * _FINER, camera.width * _FINER).to(torch.float32)
    return fine.unproject(render_depth(boxes, fine)).reshape(-1, 3)
