"""`Lvsm`: a few posed photos -> new views by a transformer with minimal 3D bias."""

from __future__ import annotations

import argparse
import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common.errors import UserError
from dataloader.scene import Batch, Scene
from dataloader.scene_sets import OneScene, SceneSets
from engine.checkpoint import load_weights
from engine.config import DataConfig, Experiment, TrainingConfig
from engine.method import Evaluation, Method, Optimization
from engine.metrics import ImageMetrics
from engine.random_views import random_views
from engine.schedule import learning_rate_schedule
from engine.weights import assign, put
from geometry.cameras import Cameras
from geometry.views import Rendering, Views
from methods.lvsm.attention import Block
from methods.lvsm.config import LoraConfig, LvsmConfig
from methods.lvsm.data import (
    ChunkedSceneViews,
    SceneViews,
    ViewSample,
    collate,
    encoded_scenes,
    scene_frame,
    unframed,
)
from methods.lvsm.inputs import open_input
from methods.lvsm.latent import merge_lora, read_autoencoder
from methods.lvsm.losses import Criterion
from methods.lvsm.model import LvsmModel
from methods.lvsm.network import Encoded
from methods.lvsm.normalise import Frame
from methods.lvsm.originals import infer_config, is_original, read_original
from methods.lvsm.weights import model_weights, read_weights

log = logging.getLogger(__name__)


@dataclass
class ViewsState:
    """Source views as the transformer keeps them, and the frame they set."""

    encoded: Encoded
    frame: Frame


class Lvsm(Method):
    """LVSM, with the attention and conventions of either public code line (specs/lvsm)."""

    Config = LvsmConfig
    trains = True
    block_classes = (Block,)
    weights_hint = "published weights: python scripts/download.py weights --help"

    def __init__(self, config: LvsmConfig, model: LvsmModel) -> None:
        super().__init__()
        self.config, self.model = config, model
        self.criterion = Criterion(config.loss)

    @classmethod
    def create(cls, config: LvsmConfig, scene: Scene | SceneSets | None = None) -> Lvsm:
        """The networks without weights: `initialise` or a checkpoint brings them."""
        from accelerate import init_empty_weights

        with init_empty_weights(include_buffers=False):
            return cls(config, LvsmModel(config))

    @classmethod
    def open(cls, args: argparse.Namespace, experiment: Experiment) -> Scene | SceneSets:
        """A set of scenes, or a posed scene; photos at the size of `model.images`."""
        return open_input(args, experiment, super().open)

    # Weights

    def initialise(self) -> None:
        self.model = LvsmModel(self.config)
        self.load_frozen()

    def load_frozen(self) -> None:
        latent = self.config.latent
        if not latent.autoencoder:
            return
        weights = {f"model.autoencoder.{k}": v for k, v in read_autoencoder(latent).items()}
        if latent.lora.rank:
            weights = self._under_lora(weights) | self._base_weights()
        put(self, weights)

    def _under_lora(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weights of the autoencoder under the names they have below low-rank updates."""
        names = {name.replace(".base_layer", ""): name for name in self.state_dict()}
        return {names[name]: value for name, value in weights.items()}

    def _base_weights(self) -> dict[str, Tensor]:
        """The transformer that low-rank updates are trained for, from a checkpoint of its own."""
        base = self.config.latent.lora.base
        if not base:
            raise UserError("model.latent.lora.base names no checkpoint to take the transformer from")
        config = replace(self.config, latent=replace(self.config.latent, lora=LoraConfig()))
        whole = Lvsm.create(config)
        load_weights(whole, Path(base))
        return {k: v for k, v in whole.state_dict().items() if not k.startswith("model.autoencoder.")}

    def load_original(self, folder: Path) -> dict[str, Tensor] | None:
        weights = read_weights(folder, self.config)
        return None if weights is None else {f"model.{name}": value for name, value in weights.items()}

    @classmethod
    def from_original(cls, file: Path) -> Lvsm | None:
        """The model in a .ckpt or .pt of either code line; what is left out is logged."""
        if not is_original(file):
            return None
        original = read_original(file)
        config = infer_config(original)
        method = cls.create(config)
        weights = model_weights(original, config)
        assign(method, {f"model.{name}": value for name, value in weights.items()}, file)
        log.info(
            "%s: %s LVSM code, %s, %d weights; left out: %s",
            file,
            original.line,
            config.transformer,
            len(weights),
            f"{len(original.dropped)} such as {original.dropped[0]}" if original.dropped else "none",
        )
        return method.eval()

    def prepare_inference(self) -> None:
        settings = self.config.render
        self.eval().requires_grad_(False)
        if self.config.latent.lora.rank:
            merge_lora(self.model.autoencoder)
        self.model.to(getattr(torch, settings.dtype))
        if settings.compile:
            self.model.network.compile_blocks()

    # Training

    def samples(self, scene: Any, data: DataConfig) -> SceneViews:
        self.criterion.prepare()
        scenes = OneScene(scene) if isinstance(scene, Scene) else scene.split(data.source)
        kind = SceneViews if scenes.chunk_sizes is None else ChunkedSceneViews
        return kind(unframed(scenes), self.config, data.threads, encoded_scenes(scenes, self.config))

    def forward(self, sample: ViewSample, step: int) -> dict[str, Tensor]:
        """Mean squared error of images (or latents), and a perceptual one where it has a weight."""
        return self.criterion.losses(self.model, sample)

    def optimization(self, config: TrainingConfig) -> Optimization:
        """AdamW; weight decay on matrices and kernels, not on norms and biases (specs/lvsm 5.1, 5.2)."""
        settings = self.config.optimizer
        if self.config.compile:
            self.model.network.compile_blocks()
        trained = [p for p in self.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in trained if p.ndim != 1], "weight_decay": settings.weight_decay},
            {"params": [p for p in trained if p.ndim == 1], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(
            [group for group in groups if group["params"]],
            lr=config.learning_rate,
            betas=(settings.beta1, settings.beta2),
            eps=1e-8,
        )
        return Optimization(optimizer, learning_rate_schedule(config))

    def preview(self, sample: ViewSample) -> list[list[Tensor]]:
        """Per scene: sources, the first targets, and ours."""
        if sample.source_latents is not None:
            return []  # the photos were left unread
        source, target = sample.source, sample.target
        made = self.model(source.images, source.cameras, target.cameras).clamp(0, 1)
        shown = min(3, made.shape[1])
        return [
            [*source.images[b].cpu(), *target.images[b, :shown].cpu(), *made[b, :shown].cpu()]
            for b in range(min(8, len(made)))
        ]

    # Rendering

    def encode(self, source: Views, reuse: Any = None) -> ViewsState:
        """What the sources set and show; they are the whole scene, `reuse` is not looked at."""
        return self.encode_beside(source, None)

    @torch.no_grad()
    def encode_beside(self, source: Views, targets: Cameras | None) -> ViewsState:
        """As `encode`; targets [T] help to choose the frame where it is the official one."""
        self.model.check_size(source.cameras)
        beside = None if targets is None else targets.to(torch.float64)
        frame = scene_frame(self.config, source.cameras.to(torch.float64), beside)
        cameras = frame(source.cameras.to(torch.float64))
        encoded = self.model.encode(source.images[None], cameras[None])
        return ViewsState(encoded, frame)

    @torch.no_grad()
    def render(self, state: ViewsState, cameras: Cameras) -> Rendering:
        """One view per camera [N], `model.render.targets` at a time."""
        self.model.check_size(cameras)
        placed = state.frame(cameras.to(torch.float64))
        count = self.config.render.targets
        groups = [placed[start : start + count] for start in range(0, len(cameras), count)]
        images = [self.model.pixels(self.model.decode(state.encoded, group[None]))[0] for group in groups]
        return Rendering(torch.cat(images).float().clamp(0, 1))

    def evaluate(self, batch: Batch, state: ViewsState, metrics: ImageMetrics) -> Evaluation:
        """As every method; with `frame_of_targets`, in the frame of the sources and the batch's targets."""
        if self.config.frame == "official" and self.config.frame_of_targets:
            state = self.encode_beside(batch.source, batch.target.cameras)
        return super().evaluate(batch, state, metrics)

    # Measuring

    def view_size(self) -> tuple[int, int]:
        return self.config.images.height, self.config.images.width

    def random_sample(self, batch: int, sources: int, targets: int) -> ViewSample:
        self.criterion.prepare()
        views = [random_views(sources + targets, *self.view_size(), seed=i) for i in range(batch)]
        samples = []
        for i, view in enumerate(views):
            frame = scene_frame(self.config, view.cameras[:sources])
            plain = replace(view, cameras=frame(view.cameras).to(torch.float32), depth=None, valid=None)
            samples.append(ViewSample(plain[:sources], plain[sources:], [i]))
        return collate(samples)

    def tokens_per_sample(self, sample: ViewSample) -> int:
        views = sample.source.images.shape[1] + sample.target.images.shape[1]
        height, width = sample.source.images.shape[-2:]
        return views * (height // self.model.multiple) * (width // self.model.multiple)
