"""Training samples: some views of a scene given, others to make, in the frame that the sources set."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from common.errors import UserError
from dataloader.framed import FramedScenes, framed
from dataloader.framing import Framing
from dataloader.scene import Scene
from dataloader.scene_sets import EncodedScenes, SceneSet
from dataloader.view_choice import Choice, TooFewFramesError
from engine.sampling import generator
from geometry.cameras import Cameras, stack_cameras
from geometry.views import Views
from methods.lvsm.config import LvsmConfig
from methods.lvsm.normalise import Frame, first_frame, official_frame, source_frame

_MOST_SHORT_SCENES = 50  # in a row, after which there is no point in trying on


@dataclass
class ViewSample:
    """Views [B, S] given and views [B, T] to make, cameras float32 in their scene's frame.

    seeds: what the items were drawn with. source_latents, target_latents: [B, V, 2, C, h, w], means and
    deviations of the autoencoder's latents, where the set was encoded beforehand; the images are black then.
    """

    source: Views
    target: Views
    seeds: list[int] = field(default_factory=list)
    source_latents: Tensor | None = None
    target_latents: Tensor | None = None

    def to(self, device: torch.device) -> ViewSample:
        latents = [None if x is None else x.to(device) for x in (self.source_latents, self.target_latents)]
        return ViewSample(self.source.to(device), self.target.to(device), self.seeds, *latents)


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
    """Views of the scenes of a set, drawn by the sampler that the settings name and framed by them.

    encoded: where latents of the photos are had in place of photos.
    """

    scenes: SceneSet
    config: LvsmConfig
    threads: int = 0
    encoded: EncodedScenes | None = None

    @property
    def size(self) -> int:
        return len(self.scenes)

    def name(self, index: int) -> str:
        return self.scenes.key(index)

    def draw(self, index: int, seed: int) -> ViewSample:
        """As at the end of training."""
        return self.draw_at(index, seed, 1 << 40, 0)

    def draw_at(self, index: int, seed: int, step: int, step_seed: int) -> ViewSample:
        """Views of scene `index`, or of one of the next where it is too short for the sampler.

        All items of a step have the same number of sources and the same size. Raises UserError for an
        unreadable scene.
        """
        count = self.config.views.chosen().num_sources(step, generator(step_seed, "sources"))
        framing = self.config.framing(generator(step_seed, "size"))
        index, scene, choice = self._choose(index, seed, step, count)
        source, target = choice
        if self.config.views.sort:
            source, target = sorted(source), sorted(target)
        given, wanted = self._load(scene, framing, source, target)
        frame = scene_frame(self.config, given.cameras, wanted.cameras)
        turn = jitter(self.config.jitter_degrees, generator(seed, "jitter"))
        sample = [
            replace(v, cameras=_turned(frame(v.cameras), turn).to(torch.float32), depth=None, valid=None)
            for v in (given, wanted)
        ]
        return ViewSample(sample[0], sample[1], [seed], *self._latents(index, source, target))

    def _choose(self, index: int, seed: int, step: int, count: int) -> tuple[int, Scene, Choice]:
        """A scene that is long enough, and the views drawn from it."""
        sampler = self.config.views.chosen()
        for attempt in range(_MOST_SHORT_SCENES):
            number = (index + attempt) % len(self.scenes)
            scene = self.scenes.scene(number)
            centers = torch.stack([record.camera.center for record in scene.records])
            try:
                choice = sampler.sample(len(scene), centers, step, generator(seed, "views"), count)
            except TooFewFramesError:
                continue
            return number, scene, choice
        raise UserError(
            f"{_MOST_SHORT_SCENES} scenes in a row are too short for the view sampler: "
            "lower its distances (model.views)"
        )

    def _load(
        self, scene: Scene, framing: Framing, source: Sequence[int], target: Sequence[int]
    ) -> tuple[Views, Views]:
        """The photos of both lists, each decoded once; black where latents stand in for them."""
        wanted = sorted({*source, *target})
        chosen = framed(replace(scene, records=[scene.records[i] for i in wanted]), framing)
        if self.encoded is None:
            views = chosen.views(threads=self.threads)
        else:
            cameras = chosen.cameras()
            black = torch.zeros(()).expand(len(wanted), 3, cameras.height, cameras.width)
            views = Views(black, cameras)
        place = {record: i for i, record in enumerate(wanted)}
        return views[[place[i] for i in source]], views[[place[i] for i in target]]

    def _latents(
        self, index: int, source: Sequence[int], target: Sequence[int]
    ) -> tuple[Tensor | None, Tensor | None]:
        """Means and deviations [V, 2, C, h, w] of both lists."""
        if self.encoded is None:
            return None, None
        both = torch.stack(self.encoded.latents(index), dim=1).float()
        return both[list(source)], both[list(target)]

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
        _stacked_latents([item.source_latents for item in items]),
        _stacked_latents([item.target_latents for item in items]),
    )


def _stacked_latents(latents: list[Tensor | None]) -> Tensor | None:
    present = [x for x in latents if x is not None]
    return torch.stack(present) if present else None


def unframed(scenes: SceneSet) -> SceneSet:
    """The set whose photos come as they are stored; training frames them itself."""
    return scenes.scenes if isinstance(scenes, FramedScenes) else scenes


def encoded_scenes(scenes: SceneSet, config: LvsmConfig) -> EncodedScenes | None:
    """The set itself where it holds latents that the settings can use in place of photos, else None.

    Raises UserError where it was encoded by another convention than `model.latent.compat` says, or at
    another size than the model's.
    """
    own = unframed(scenes)
    if not config.latent.autoencoder or config.latent.decode or not isinstance(own, EncodedScenes):
        return None
    if not own.meta.get("vae_encoded"):
        return None
    if config.train_sizes:
        raise UserError(
            f"{own.name}: latents encoded beforehand have one size, leave model.train_sizes empty"
        )
    if bool(own.meta.get("vae_input_scaled")) == config.latent.compat:
        wanted = "with --legacy_range" if config.latent.compat else "without --legacy_range"
        raise UserError(
            f"{own.name}: its latents are of the other convention than model.latent.compat="
            f"{config.latent.compat}: run scripts/re10k.py pre-encode {wanted}"
        )
    size = own.meta["expected_shape"][1:]
    if list(size) != [config.images.height, config.images.width]:
        raise UserError(
            f"{own.name} was encoded at {size[1]}x{size[0]}, model.images is {config.images.width}x"
            f"{config.images.height}: run scripts/re10k.py rescale before pre-encode"
        )
    return own


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
