"""Scenes whose photos come at a model's size, so that all else sees that size only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dataloader.framing import Framing, frame_camera, frame_record
from dataloader.scene import Record, Scene
from dataloader.scene_sets import SceneSet, SceneSets


@dataclass
class FramedRecord(Record):
    """A photo that is resized and cropped when it is loaded. own: the record as it is on disk."""

    own: Record | None = None
    framing: Framing | None = None

    def load(self) -> NDArray[np.uint8]:
        assert self.own is not None
        assert self.framing is not None
        return frame_record(self.own, self.framing)[0]


def framed(scene: Scene, framing: Framing) -> Scene:
    """The scene with every photo at the framing's size, cameras in step.

    Photos of that size stay as they are. Depth maps and masks of photos that change are left out: they would
    have to be cropped alike.
    """
    return replace(scene, records=[_framed(record, framing) for record in scene.records])


def _framed(record: Record, framing: Framing) -> Record:
    camera = record.camera
    if framing.size(camera.height, camera.width) == (camera.height, camera.width):
        return record
    return FramedRecord(
        name=record.name,
        camera=frame_camera(camera, framing),
        image=record.image,
        bounds=record.bounds,
        own=record,
        framing=framing,
    )


@dataclass
class FramedScenes:
    """A set of scenes, each `framed`."""

    scenes: SceneSet
    framing: Framing

    @property
    def name(self) -> str:
        return self.scenes.name

    @property
    def chunk_sizes(self) -> Sequence[int] | None:
        return self.scenes.chunk_sizes

    def __len__(self) -> int:
        return len(self.scenes)

    def key(self, index: int) -> str:
        return self.scenes.key(index)

    def scene(self, index: int) -> Scene:
        return framed(self.scenes.scene(index), self.framing)


def framed_sets(sets: SceneSets, framing: Framing) -> SceneSets:
    """The sets with every scene `framed`."""
    return replace(sets, splits={name: FramedScenes(scenes, framing) for name, scenes in sets.splits.items()})
