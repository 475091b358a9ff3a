"""Depth tasks from procedural rooms: exact depth, nothing on disk, deterministic by seed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from dataloader.depth.pairs import DepthProtocol, make_task
from dataloader.depth.tasks import DepthTask
from dataloader.toy import make_boxes, make_cameras, render

FIRST_UNSEEN = 1_000_000  # seed of the first room that no configuration trains on
_VIEWS = 6  # cameras on the arc of a room, 14 degrees apart
_FARTHEST = 2  # steps along the arc between the cameras of a pair, at most
_BOXES = 6


@dataclass(frozen=True)
class RoomTasks:
    """Pairs of cameras in the room of a seed, which also draws them; views of height x width pixels."""

    seed: int
    height: int
    width: int
    protocol: DepthProtocol
    pairs: int = 2

    @property
    def name(self) -> str:
        return f"room{self.seed}"

    def tasks(self) -> Iterator[DepthTask]:
        """The pairs."""
        boxes = make_boxes(self.seed, _BOXES)
        cameras = make_cameras(self.seed, _VIEWS, self.height, self.width, boxes)
        near = [(i, j) for i in range(_VIEWS) for j in range(_VIEWS) if 0 < abs(i - j) <= _FARTHEST]
        generator = torch.Generator().manual_seed(self.seed)
        for k in torch.randperm(len(near), generator=generator)[: self.pairs].tolist():
            views = render(boxes, cameras[torch.tensor(near[k])])
            views.names = [str(i) for i in near[k]]
            yield make_task(views[0:1], views[1:2], self.protocol, self.name, "-".join(views.names))
