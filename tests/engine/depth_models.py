"""A method that completes depth in closed form, and tasks for it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dataloader.depth_pairs import DepthProtocol
from dataloader.depth_tasks import DepthTask
from dataloader.room_tasks import RoomTasks
from engine.method import Method
from geometry.cameras import Cameras
from geometry.views import Rendering


class Middle(Method):
    """Completes depth by the mean of what is known, or by 1 m where nothing is."""

    def render(self, state: Any, cameras: Cameras) -> Rendering:
        raise NotImplementedError

    def predict_depth(self, task: DepthTask) -> Tensor:
        known = task.sparse > 0
        middle = task.sparse[known].mean() if known.any() else torch.ones(())
        return torch.where(known, task.sparse, middle) + 0.1 * task.target.images.mean(1, keepdim=True)


def room_tasks(seed: int = 5, protocol: DepthProtocol | None = None) -> list[DepthTask]:
    return list(RoomTasks(seed, 24, 32, protocol or DepthProtocol()).tasks())
