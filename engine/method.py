"""`Method`: the one interface that trainer, evaluator and video script know."""

from __future__ import annotations

import argparse
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, Self, cast, runtime_checkable

import torch
from torch import Tensor, nn

from common.errors import UserError
from dataloader.depth.tasks import DepthTask
from dataloader.scene import Batch, Scene
from engine.device import clock
from geometry.cameras import Cameras
from geometry.views import Rendering, Views

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dataloader.pairs import PairData
    from dataloader.scene_sets import SceneSets
    from engine.config import DataConfig, Experiment, TrainingConfig
    from engine.metrics import ImageMetrics


Script = Literal["train", "test", "video"]


@dataclass
class Optimization:
    """One optimiser and its schedule.

    schedule: step -> factor on every group's base learning rate. momentum: step -> beta1 of every group; None
    leaves the optimiser's own.
    """

    optimizer: torch.optim.Optimizer
    schedule: Callable[[int], float]
    momentum: Callable[[int], float] | None = None


class Sample(Protocol):
    """A training batch: the method's own dataclass, movable to a device."""

    def to(self, device: torch.device) -> Any: ...


class Samples(Protocol):
    """Where training samples come from.

    size: number of items an epoch visits once each, in the order of `engine.sampling.order`; None for keyed
    draws with replacement (there is no epoch). `draw` is a pure function of its arguments: `index` picks the
    item (the position itself when size is None), `seed` keys every random choice made for it (through
    `engine.sampling.generator`). It raises UserError when the item cannot be read: another replaces it, up to
    `data.max_bad_fraction`.
    """

    @property
    def size(self) -> int | None: ...

    def draw(self, index: int, seed: int) -> Any: ...

    def collate(self, items: list[Any]) -> Sample: ...

    def name(self, index: int) -> str:
        """What messages call the item."""
        ...


@runtime_checkable
class ChunkedSamples(Samples, Protocol):
    """Samples stored in chunks that are slow to open: an epoch finishes a chunk before it opens the next.

    chunk_sizes: items per chunk, summing to `size`; indices count through the chunks.
    """

    @property
    def chunk_sizes(self) -> Sequence[int]: ...


@runtime_checkable
class SteppedSamples(Samples, Protocol):
    """Samples that change in the course of training: `draw_at` is called in place of `draw`.

    step: the optimiser step that the item is drawn for. step_seed: keys choices that all items of the step
    share.
    """

    def draw_at(self, index: int, seed: int, step: int, step_seed: int) -> Any: ...


@dataclass
class Evaluation:
    """Scores of one batch.

    rows: per target, metric name -> value. seconds: spent rendering, without the scoring. rendering: what was
    scored, for the sheets.
    """

    rows: list[dict[str, float]]
    seconds: float
    rendering: Rendering | None = None


@dataclass
class NoConfig:
    """The settings of a method that has none."""


@dataclass
class SourceState:
    """What `encode` returns when the sources themselves are all a method needs."""

    source: Views


class Method(nn.Module, ABC):
    """A way of novel-view synthesis. Subclasses are listed in `methods/__init__.py` and made by `create`.

    Config: dataclass of the `model:` section. method_name: what config files call it; by default the class's
    name in snake case. config: what `create` was given; every method keeps it. trains: whether `train.py` has
    anything to do. reads_sources: whether `encode` looks at the source photos, or only at their cameras (then
    they are not loaded). missing: why there are no weights, where a method works without (`without_weights`).
    weights_hint: how published weights are had. needs_scene: whether an instance is made for one scene, so
    that `create` cannot do without it and it serves no sets of scenes. reuses_moments: whether the `reuse` of
    `encode` may be its state of an earlier moment of the same clip, by the same cameras, of which it keeps
    what does not change. keeps_frozen: whether checkpoints hold the weights that are not trained, too.
    block_classes: of the repeated parts (transformer blocks) that sharded training gathers one at a time;
    none: the method cannot be sharded.
    """

    missing: str = ""
    config: Any = None
    method_name: ClassVar[str] = ""

    Config: ClassVar[type] = NoConfig
    trains: ClassVar[bool] = False
    reads_sources: ClassVar[bool] = True
    weights_hint: ClassVar[str] = ""
    needs_scene: ClassVar[bool] = False
    reuses_moments: ClassVar[bool] = False
    keeps_frozen: ClassVar[bool] = False
    block_classes: ClassVar[tuple[type[nn.Module], ...]] = ()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "method_name" not in vars(cls) and Method in cls.__bases__:
            cls.method_name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__).lower()

    @classmethod
    def create(cls, config: Any, scene: Any = None) -> Method:
        """Build the method from its config; some methods need the scene (mesh, number of photos)."""
        method = cls()
        method.config = config
        return method

    @classmethod
    def serves(cls, data: Any) -> bool:
        """Whether it can be evaluated on such data."""
        from dataloader.scene_sets import SceneSets

        return not (cls.needs_scene and isinstance(data, SceneSets))

    @classmethod
    def from_pretrained(cls, place: str | Path, scene: Any = None) -> Self:
        """The method in a folder of `save_pretrained`, one of our iter_N, or a model of the hub.

        place: path, or OWNER/NAME on the hub. scene: for methods that need one. Raises UserError when it is
        another method's, or its weights do not fit.
        """
        from engine.checkpoint import open_pretrained

        return cast("Self", open_pretrained(cls, place, scene))

    @classmethod
    def from_original(cls, file: Path) -> Self | None:
        """The method in an original implementation's checkpoint file, built by the shapes of its weights.

        None where it is no such file, or the method cannot tell its architecture from them.
        """
        return None

    def save_pretrained(self, folder: str | Path) -> list[Path]:
        """Write a folder that `from_pretrained` reads; returns its files. Raises UserError if it cannot."""
        from engine.pretrained import save

        return save(self, Path(folder))

    def forward(self, sample: Any, step: int) -> dict[str, Tensor]:
        """Losses of one training batch: 'loss' is minimised, the rest is logged."""
        raise TypeError(f"{type(self).__name__} has nothing to train")

    def samples(self, scene: Any, data: DataConfig) -> Samples:
        """The training samples drawn from what `open` returned."""
        raise TypeError(f"{type(self).__name__} has nothing to train")

    def optimization(self, config: TrainingConfig) -> Optimization:
        """Parameter groups, optimiser and schedule."""
        raise TypeError(f"{type(self).__name__} has nothing to train")

    def prepare_scene(self, scene: Any) -> None:
        """Add to what `open` returned what the weights know and videos ask for, such as depth."""

    def encode(self, source: Views, reuse: Any = None) -> Any:
        """Everything the source views determine, once. reuse: an earlier state to extend."""
        return SourceState(source)

    @abstractmethod
    def render(self, state: Any, cameras: Cameras) -> Rendering:
        """Any number of targets [N] from that state."""

    def views(self, scene: Scene, indices: Sequence[int], data: DataConfig) -> Views:
        """Photos of a scene as the method takes them, framed and sized (default: at `data.max_size`)."""
        from engine.data import view_size

        return scene.views(indices, view_size(scene, data), data.threads)

    def evaluate(self, batch: Batch, state: Any, metrics: ImageMetrics) -> Evaluation:
        """Render the batch's targets from an encoded state and score them (default: the image protocol)."""
        device = batch.target.images.device
        started = clock(device)
        rendering = self.render(state, batch.target.cameras)
        seconds = clock(device) - started
        return Evaluation(metrics.score(rendering, batch.target), seconds, rendering)

    def validate(self, scene: Any, data: DataConfig) -> dict[str, float] | None:
        """Scores on held-out training samples (default None: the image metrics on held-out views)."""
        return None

    def evaluate_pairs(self, batch: Batch, metrics: ImageMetrics) -> Evaluation:
        """Make and score the targets of `batch.pairs`, each from its own source (default: one by one)."""
        from engine.pairs import score_pairs

        started = clock(batch.target.images.device)
        renderings = [
            self.render(self.encode(batch.source[i : i + 1]), batch.target.cameras[i : i + 1])
            for i in range(len(batch.target))
        ]
        images = torch.cat([rendering.image for rendering in renderings])
        seconds = clock(batch.target.images.device) - started
        return Evaluation(score_pairs(images, batch, metrics), seconds, Rendering(images))

    def predict_depth(self, task: DepthTask) -> Tensor:
        """z-depth [1, 1, H, W] of the target, 0 where there is none (default: rendered from the source).

        The source's depth, the target's photo and what is known of its depth may be used; its true depth may
        not. Raises UserError where the method renders no depth.
        """
        rendered = self.render(self.encode(task.source), task.target.cameras).depth
        if rendered is None:
            raise UserError(f"{self.method_name} renders no depth: choose another method for this benchmark")
        return rendered

    def film(self, state: Any, cameras: Cameras, folder: Path) -> Iterator[Rendering]:
        """The views [1] of a path [N], one after the other, as a video shows them.

        folder: of the path, for pictures that a method writes beside the video (default: none).
        """
        for i in range(len(cameras)):
            yield self.render(state, cameras[i : i + 1])

    def write_sources(self, state: Any, folder: Path) -> list[Path]:
        """Write what the method made of the source photos, for people to look at; returns the files."""
        return []

    def random_sample(self, batch: int, sources: int, targets: int) -> Sample | None:
        """A training batch of random content on the CPU, of the configured image size, for measuring.

        batch: samples; each with so many source and target views. None: there are only real ones.
        """
        return None

    def tokens_per_sample(self, sample: Any) -> int:
        """How many tokens the network is given for one sample of this training batch; 0: it knows none."""
        return 0

    def view_size(self) -> tuple[int, int] | None:
        """(height, width) of the views the method is made for; None: any."""
        return None

    def preview(self, sample: Any) -> list[list[Tensor]]:
        """Rows of pictures [3, H, W] that show how training is getting on, from one training batch."""
        return []

    def initialise(self) -> None:
        """Give starting values to weights that no checkpoint brought, before training."""

    def load_frozen(self) -> None:
        """Load the weights that are not trained, which checkpoints of ours do not hold."""

    def completed(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weights that we wrote, with what an earlier stage of training does not have yet."""
        return weights

    def prepare_inference(self) -> None:
        """Make ready what only renders from now on: types, memory layout, compilation."""

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser, script: Script) -> None:
        """Add the method's own flags of a script."""

    @classmethod
    def apply_arguments(cls, args: argparse.Namespace, experiment: Experiment) -> None:
        """Let the method's own flags change the experiment."""

    @classmethod
    def open(cls, args: argparse.Namespace, experiment: Experiment) -> Scene | PairData | SceneSets:
        """What a script starts from; by default the scene that `data` names, or the clips of a rig."""
        from dataloader.formats import open_scene
        from dataloader.rig.sets import is_rig, open_rig_sets

        data = experiment.data
        if getattr(args, "inputimg", None) is not None:
            raise UserError(f"-i {args.inputimg}: this method starts from a scene, set data.root instead")
        if data.format == "auto" and data.root and is_rig(data.root):
            clips = open_rig_sets(data)
            if not cls.serves(clips):
                raise UserError(f"{cls.method_name} is made for a single scene, and {data.root} holds clips")
            return clips
        scene = open_scene(
            data.root, data.format, images=data.images, mesh=data.mesh, hold_out_every=data.hold_out_every
        )
        scene.choose_views(data.test_views, data.left_out_views)
        return scene

    @classmethod
    def needs_weights(cls, config: Any) -> bool:
        """Whether it takes a checkpoint to encode and render (default: whatever is trained needs one)."""
        return cls.trains

    @classmethod
    def without_weights(cls, config: Any, scene: Any, missing: str) -> Method | None:
        """A method that does what needs no checkpoint, where that is something worth having.

        missing: why there is none. None (the default): nothing works without.
        """
        return None

    def export(self, folder: Path) -> list[Path]:
        """Write the weights as the libraries of the field save theirs; returns what was written."""
        raise UserError(f"{type(self).__name__} has no other format to be written in")

    def load_original(self, folder: Path) -> dict[str, Tensor] | None:
        """Weights from a folder or file of the original implementation, or None if it is not one."""
        return None
