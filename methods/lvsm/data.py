"""Training samples: some views of a scene given, others to make, in the frame that the sources set."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from dataloader.scene import Scene
from dataloader.scene_sets import SceneSet
from engine.sampling import generator
from geometry.cameras import Cameras, stack_cameras
from geometry.views import Views
from methods.lvsm.config import LvsmConfig
from methods.lvsm.normalise import Frame, first_frame, official_frame, source_frame


@dataclass
class ViewSample:
    """Views [B, S] given and views [B, T] to make, cameras float32 in their scene's frame.

    seeds: what the items were drawn with.
    """

    source: Views
    target: Views
    seeds: list[int] = field(default_factory=list)

    def to(self, device: torch.device) -> ViewSample:
        return replace(self, source=self.source.to(device), target=self.target.to(device))


def scene_frame(config: LvsmConfig, source: Cameras, target: Cameras | None = None) -> Frame:
    """The frame that cameras are put in; with 'official' the targets help to choose it, where given."""
    if config.frame == "first":
        return first_frame(source)
    if config.frame == "sources":
        return source_frame(source, config.single_scale)
    views = source if target is None else _joined(source, target)
    return official_frame(views, config.frame_margin)


def _joined(a: Cameras, b: Cameras) -> Cameras:
    return Cameras(torch.cat([a.K, b.K]), torch.cat([a.c2w, b.c2w]), a.height, a.width)


@dataclass
class SceneViews:
    """Views of the scenes of a set, drawn by the sampler that the settings name."""

    scenes: SceneSet
    config: LvsmConfig
    threads: int = 0

    @property
    def size(self) -> int:
        return len(self.scenes)

    def name(self, index: int) -> str:
        return self.scenes.key(index)

    def draw(self, index: int, seed: int) -> ViewSample:
        """As at the end of training."""
        return self.draw_at(index, seed, 1 << 40, 0)

    def draw_at(self, index: int, seed: int, step: int, step_seed: int) -> ViewSample:
        """Views of scene `index`. All items of a step have the same number of sources."""
        scene, sampler = self.scenes.scene(index), self.config.views.chosen()
        count = sampler.num_sources(step, generator(step_seed, "sources"))
        centers = torch.stack([record.camera.center for record in scene.records])
        choice = sampler.sample(len(scene), centers, step, generator(seed, "views"), count)
        source, target = choice
        if self.config.views.sort:
            source, target = sorted(source), sorted(target)
        given, wanted = self._load(scene, source, target)
        frame = scene_frame(self.config, given.cameras, wanted.cameras)
        turn = jitter(self.config.jitter_degrees, generator(seed, "jitter"))
        sample = [
            replace(v, cameras=_turned(frame(v.cameras), turn).to(torch.float32), depth=None, valid=None)
            for v in (given, wanted)
        ]
        return ViewSample(sample[0], sample[1], [seed])

    def _load(self, scene: Scene, source: Sequence[int], target: Sequence[int]) -> tuple[Views, Views]:
        """The photos of both lists, each decoded once."""
        wanted = sorted({*source, *target})
        views = scene.views(wanted, threads=self.threads)
        place = {record: i for i, record in enumerate(wanted)}
        return views[[place[i] for i in source]], views[[place[i] for i in target]]

    def collate(self, items: list[Any]) -> ViewSample:
        return collate(items)


@dataclass
class ChunkedSceneViews(SceneViews):
    """The same for sets that are stored in chunks."""

    @property
    def chunk_sizes(self) -> Sequence[int]:
        assert self.scenes.chunk_sizes is not None
        return self.scenes.chunk_sizes


def collate(items: list[ViewSample]) -> ViewSample:
    """Samples of single scenes -> a batch. They must have equally many views."""
    return ViewSample(
        _stacked([item.source for item in items]),
        _stacked([item.target for item in items]),
        [seed for item in items for seed in item.seeds],
    )


def _stacked(views: list[Views]) -> Views:
    return Views(torch.stack([v.images for v in views]), stack_cameras([v.cameras for v in views]))


def jitter(degrees: float, draw: torch.Generator) -> Tensor:
    """A rotation [3, 3] float64 about a random axis by up to so many degrees: the identity for 0."""
    axis = torch.nn.functional.normalize(torch.randn(3, generator=draw, dtype=torch.float64), dim=0)
    angle = math.radians(degrees) * float(torch.rand((), generator=draw))
    x, y, z = axis.tolist()
    cross = torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=torch.float64)
    return torch.eye(3, dtype=torch.float64) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross


def _turned(cameras: Cameras, rotation: Tensor) -> Cameras:
    """Cameras [N] in a frame turned by a rotation."""
    turn = torch.eye(4, dtype=torch.float64)
    turn[:3, :3] = rotation
    return replace(cameras, c2w=turn @ cameras.c2w.double())
