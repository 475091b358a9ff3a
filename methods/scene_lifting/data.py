"""What depth completion is trained and validated on, as batches."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.errors import UserError
from dataloader.depth.rooms import RoomDepths
from dataloader.depth.samples import CompletionSample, Draws, SampleSettings, draw, make_sample
from dataloader.depth.teacher import (
    DepthTestSet,
    HoleMasks,
    TeacherPhotos,
    open_depth_test_set,
    open_hole_masks,
    open_teacher_photos,
)
from dataloader.room_scenes import seed_range
from dataloader.scene_sets_open import ROOMS
from engine.config import Experiment
from engine.sampling import generator, key
from methods.scene_lifting.config import SceneLiftingConfig

_NO_CHANGE = Draws(inpaint=0.0, scale=0.0, flip=0.0, augment=0.0)

# photo [H, W, 3], depth [H, W], mask of what is hidden, depth that another view knows (None: the truth)
Item = tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.uint8], NDArray[np.float32] | None]


class DepthItems(Protocol):
    """Photos [H, W, 3] with depth [H, W] and a mask of what is hidden, chosen by a seed where there is
    choice.
    """

    def __len__(self) -> int: ...

    def name(self, index: int) -> str: ...

    def load(self, index: int, seed: int) -> Item: ...


@dataclass
class RoomItems:
    """Procedural rooms, each with the hole that a second camera leaves."""

    rooms: RoomDepths

    def __len__(self) -> int:
        return len(self.rooms)

    def name(self, index: int) -> str:
        return self.rooms.name(index)

    def load(self, index: int, seed: int) -> Item:
        photo, depth, seen = self.rooms.load(index)
        return photo, depth, (seen == 0).astype(np.uint8), seen


@dataclass
class TeacherItems:
    """NYU's photos with a teacher's depth; masks are those of other photos, at random."""

    photos: TeacherPhotos
    masks: HoleMasks

    def __len__(self) -> int:
        return len(self.photos)

    def name(self, index: int) -> str:
        return self.photos.name(index)

    def load(self, index: int, seed: int) -> Item:
        hole = self.masks.load(self.masks.choose(generator(seed, "mask")))
        return (*self.photos.load(index), hole, None)


@dataclass
class DepthData:
    """What `train.py` starts from.

    held_out: items that are validated on, hidden pixels and all. measured: photos with a sensor's depth. None
    where there are none.
    """

    name: str
    train: DepthItems
    held_out: DepthItems | None = None
    measured: DepthTestSet | None = None


@dataclass
class DepthSample:
    """A training batch.

    image: [B, 3, H, W] in [0, 1]. depth: [B, 1, H, W]. masked_depth: [B, 1, H, W], what is given of it, 0
    elsewhere. valid: [B, 1, H, W] {0, 1}, where the depth counts.
    """

    image: Tensor
    depth: Tensor
    masked_depth: Tensor
    valid: Tensor

    def to(self, device: torch.device) -> DepthSample:
        return replace(self, **{name: value.to(device) for name, value in vars(self).items()})


@dataclass
class DepthSamples:
    """Training samples: an epoch visits every item once (specs/scene_lifting 4.4)."""

    items: DepthItems
    settings: SampleSettings

    @property
    def size(self) -> int:
        return len(self.items)

    def draw(self, index: int, seed: int) -> CompletionSample:
        photo, depth, hole, seen = self.items.load(index, seed)
        return make_sample(photo, depth, hole, draw(generator(seed, "sample")), self.settings, seen)

    def collate(self, items: list[CompletionSample]) -> DepthSample:
        names = ("image", "depth", "masked_depth", "valid")
        return DepthSample(*(torch.stack([getattr(item, name) for item in items]) for name in names))

    def name(self, index: int) -> str:
        return self.items.name(index)


def open_depth_data(experiment: Experiment) -> DepthData:
    """What `data.root` names to train on: 'builtin:rooms', or NYU's `sync` photos.

    Rooms have the seeds of `data.rooms` and the size of the network's input. NYU's photos come with the
    teacher's depth and the masks of `model.paths`. Raises UserError for anything else, or missing.
    """
    data, config = experiment.data, experiment.model
    assert isinstance(config, SceneLiftingConfig)
    if data.root == ROOMS:
        size = (config.network.height, config.network.width)
        train, test = seed_range(data.rooms.seeds), seed_range(data.rooms.test_seeds)
        return DepthData(ROOMS, RoomItems(RoomDepths(train, *size)), RoomItems(RoomDepths(test, *size)))
    paths = config.paths
    missing = next((name for name in ("teacher", "masks") if not getattr(paths, name)), None)
    if not data.root or missing:
        lacking = "data.root" if not data.root else f"model.paths.{missing}"
        raise UserError(
            f"{lacking} is empty: depth completion is trained on builtin:rooms, or on photos with a "
            "teacher's depth and hole masks (scripts/depth.py makes both)"
        )
    photos = open_teacher_photos(Path(data.root), Path(paths.teacher), data.max_bad_fraction)
    items = TeacherItems(photos, open_hole_masks(Path(paths.masks)))
    listed = Path(paths.test_list) if paths.test_list else None
    measured = open_depth_test_set(Path(paths.test), listed) if paths.test else None
    return DepthData(data.root, items, None, measured)


def is_training(args: argparse.Namespace) -> bool:
    """Whether `open` was called for training: test.py and video_script.py have a place for their results."""
    return not hasattr(args, "savepath")


def held_out_sample(items: DepthItems, index: int, settings: SampleSettings) -> CompletionSample:
    """An item as it is, neither flipped nor rescaled, with the depth of its hole mask hidden."""
    photo, depth, hole, seen = items.load(index, key(0, "held out", index))
    plain = replace(settings, rescale=False, inpaint_probability=1.0)
    return make_sample(photo, depth, hole, _NO_CHANGE, plain, seen)
