"""Settings of `Lvsm`: by default the official decoder's size with the unofficial code's attention, so that
sources are encoded once.

What published weights need instead is spelt out by options that name the original or the defect.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Literal

import torch

from common.errors import UserError
from dataloader.framing import Framing
from dataloader.view_choice import ViewSampler
from dataloader.view_samplers import (
    ArbitrarySampler,
    BoundedSampler,
    BoundedV2Sampler,
    OfficialSampler,
)
from methods.lvsm.attention import Activation, QKNormKind


@dataclass
class TransformerConfig:
    """The transformer (specs/lvsm 2). Defaults: the official decoder-only model but for its attention."""

    kind: Literal["masked", "full", "encoder_decoder"] = "masked"  # who sees whom: see `network`
    width: int = 768  # of tokens
    layers: int = 24  # of the encoder, where there are two parts
    decoder_layers: int = 12  # encoder_decoder only
    latents: int = 3072  # encoder_decoder only: learned tokens
    heads: int = 12
    head_dim: int = 64  # heads * head_dim may differ from the width
    mlp: int = 3072
    patch: int = 8  # pixels, or latent pixels
    qk_norm: QKNormKind = "rms"  # of queries and keys; layer: the unofficial code's
    l2_tokens: int = 2  # qk_norm l2: sequence length that its temperature is started for
    scaled_softmax: bool = False  # qk_norm l2: logits times head_dim^-0.5 on top (the first unofficial run)
    bias: bool = False
    activation: Activation = "gelu"
    pre_norm: bool = True
    two_norms: bool = False  # a norm before that of the output layer, as the unofficial code has
    initialisation: Literal["depth_scaled", "scaled", "unofficial"] = "depth_scaled"
    checkpoint_every: int = 0  # blocks between kept activations in training; 0 keeps all, 1 saves most memory

    def __post_init__(self) -> None:
        for name in ("width", "layers", "decoder_layers", "latents", "heads", "head_dim", "mlp", "patch"):
            if getattr(self, name) < 1:
                raise UserError(f"model.transformer.{name} is {getattr(self, name)}: it must be at least 1")


@dataclass
class LoraConfig:
    """Low-rank updates of the autoencoder's decoder, trained in place of the transformer."""

    rank: int = 0  # 0: none
    alpha: float = 2.0  # weights are updated by B A alpha / sqrt(rank)
    dropout: float = 0.0
    base: str = ""  # checkpoint folder of the transformer that stays as it is


@dataclass
class LatentConfig:
    """The latent variant: the transformer works on an autoencoder's latents (specs/lvsm 2.3)."""

    autoencoder: str = ""  # sd15, sd21, sdxl, sd35, a hub id or a diffusers folder; empty = pixels
    subfolder: str = "vae"
    stochastic: bool = False  # encode to a sample in place of the mean (the unofficial code's default)
    compat: bool = False  # the unofficial code's conventions: images in [0, 1], latents not scaled
    decode: bool = False  # train on decoded images in place of latents
    lora: LoraConfig = field(default_factory=LoraConfig)


@dataclass
class LossConfig:
    """What is minimised: weights of the terms."""

    mse: float = 1.0
    perceptual: float = 0.5
    network: Literal["none", "lpips", "vgg19"] = "lpips"  # vgg19: the official code's
    weights: str = ""  # file of the network's weights; empty: torchvision's, from its cache


@dataclass
class OptimizerConfig:
    """AdamW, both code lines' (specs/lvsm 5). Weight decay is for matrices and kernels only."""

    beta1: float = 0.9
    beta2: float = 0.95
    weight_decay: float = 0.05


@dataclass
class RenderConfig:
    """How views are rendered; nothing here is trained."""

    targets: int = 8  # rendered at once: lower it when memory runs out
    approximate: bool = False  # full attention: encode the sources once all the same (not what was trained)
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    compile: bool = False


@dataclass
class ViewsConfig:
    """Which views of a scene are given and which are made, in training."""

    sampler: Literal["boundedv2", "bounded", "official", "arbitrary"] = "boundedv2"
    boundedv2: BoundedV2Sampler = field(default_factory=BoundedV2Sampler)
    bounded: BoundedSampler = field(default_factory=BoundedSampler)
    official: OfficialSampler = field(default_factory=OfficialSampler)
    arbitrary: ArbitrarySampler = field(default_factory=ArbitrarySampler)
    sort: bool = True  # views in the order of the frames
    most_sources: int = 8  # of a single scene, in evaluation and videos: spread out, the first ones last

    def chosen(self) -> ViewSampler:
        """The sampler that `sampler` names, with its settings."""
        return getattr(self, self.sampler)


@dataclass
class LvsmConfig:
    """The `model:` section."""

    transformer: TransformerConfig = field(default_factory=TransformerConfig)
    latent: LatentConfig = field(default_factory=LatentConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    render: RenderConfig = field(default_factory=RenderConfig)
    views: ViewsConfig = field(default_factory=ViewsConfig)
    images: Framing = field(default_factory=Framing)  # how photos come to the size that the model takes
    signed_images: bool = True  # the transformer sees images as 2 x - 1 (False: the unofficial code)
    frame: Literal["sources", "first", "official"] = "sources"  # what cameras are relative to
    single_scale: float = 1.0  # of the world where the sources have one place only
    frame_margin: float = 1.35  # frame official: the farthest camera comes to 1 / margin
    frame_of_targets: bool = False  # official: scored targets help to choose the frame, as in the original
    train_sizes: tuple[str, ...] = ()  # 'HEIGHTxWIDTH', one drawn per step in training; empty: that of images
    compile: bool = False  # training: compile the transformer's blocks
    jitter_degrees: float = 0.0  # training: turn each sample's frame by up to so much

    def __post_init__(self) -> None:
        for size in self.train_sizes:
            if not re.fullmatch(r"[1-9]\d*x[1-9]\d*", size):
                raise UserError(f"model.train_sizes has {size!r}: write HEIGHTxWIDTH such as 256x384")

    def framing(self, draw: torch.Generator) -> Framing:
        """How photos are framed in a training step: as `images`, or at one of `train_sizes`."""
        if not self.train_sizes:
            return self.images
        chosen = self.train_sizes[int(torch.randint(len(self.train_sizes), (), generator=draw))]
        height, width = map(int, chosen.split("x"))
        return replace(self.images, height=height, width=width)
