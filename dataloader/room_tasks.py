"""Depth tasks from procedural rooms: exact depth, nothing on disk, deterministic by seed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from dataloader.depth_pairs import DepthProtocol, make_task
from dataloader.depth_tasks import DepthTask
from dataloader.toy import make_boxes, make_cameras, render

_VIEWS = 6  # cameras on the arc of a room, 14 degrees apart
_BOXES = 6


@dataclass(frozen=True)
class RoomTasks:
    """Pairs of cameras in rooms of seeds `first`, `first + 1`, ...; the views are height x width pixels.

    pairs: per room, each of two cameras that the room's seed draws.
    """

    rooms: int
    first: int
    height: int
    width: int
    protocol: DepthProtocol
    pairs: int = 2

    def tasks(self) -> Iterator[DepthTask]:
        """The pairs, room by room."""
        for seed in range(self.first, self.first + self.rooms):
            boxes = make_boxes(seed, _BOXES)
            cameras = make_cameras(seed, _VIEWS, self.height, self.width, boxes)
            generator = torch.Generator().manual_seed(seed)
            ordered = [(i, j) for i in range(_VIEWS) for j in range(_VIEWS) if i != j and abs(i - j) < 3]
            for k in torch.randperm(len(ordered), generator=generator)[: self.pairs].tolist():
                views = render(boxes, cameras[torch.tensor(ordered[k])])
                views.names = [str(i) for i in ordered[k]]
                name = "-".join(views.names)
                yield make_task(views[0:1], views[1:2], self.protocol, f"room{seed}", name)
