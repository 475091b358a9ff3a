"""Tasks on sets of scenes: from evaluation indices, and with fewer sources than these name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from common.errors import UserError
from dataloader.re10k.index import index_tasks, read_index
from dataloader.scene import Scene
from dataloader.scene_sets import SceneSet, ViewTask
from geometry.selection import farthest_first


def read_tasks(path: Path, scenes: SceneSet) -> list[ViewTask]:
    """The tasks that an evaluation index sets on a set of scenes, in its order.

    Raises UserError when the file is missing or malformed, or names a scene that the set does not hold.
    """
    return index_tasks(read_index(path), scenes, str(path))


def nested_sources(scene: Scene, sources: Sequence[int], count: int) -> tuple[int, ...]:
    """`count` of a task's sources, so that fewer are always among more.

    The outermost records come first (the lower one alone for a count of 1), then always the one whose camera
    is farthest from those chosen. Raises UserError where there are fewer.
    """
    if count > len(sources):
        raise UserError(
            f"scene {scene.name} has {len(sources)} source views in the index, {count} were asked for: "
            "take an index with more"
        )
    if count == len(sources):
        return tuple(sources)
    ordered = sorted(sources)
    centers = torch.stack([scene.records[i].camera.center.double() for i in ordered])
    return tuple(ordered[i] for i in farthest_first(centers, [0, len(ordered) - 1])[:count])
