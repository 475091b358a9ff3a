"""A method that completes depth in closed form, and tasks for it."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from dataloader.depth.pairs import DepthProtocol
from dataloader.depth.room_tasks import RoomTasks
from dataloader.depth.tasks import DepthTask
from engine.method import Method
from geometry.cameras import Cameras
from geometry.views import Rendering

CORRECTED = DepthProtocol()


class Middle(Method):
    """Completes depth by the mean of what is known, or by 1 m where nothing is."""

    def render(self, state: Any, cameras: Cameras) -> Rendering:
        raise NotImplementedError

    def predict_depth(self, task: DepthTask) -> Tensor:
        known = task.sparse > 0
        middle = task.sparse[known].mean() if known.any() else torch.ones(())
        return torch.where(known, task.sparse, middle) + 0.1 * task.target.images.mean(1, keepdim=True)


@cache
def room_tasks(protocol: DepthProtocol = CORRECTED) -> list[DepthTask]:
    """The two pairs of a room; not to be changed."""
    return list(RoomTasks(5, 24, 32, protocol).tasks())
