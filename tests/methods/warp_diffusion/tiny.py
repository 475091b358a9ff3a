"""A model small enough for seconds on one core: pixels folded into channels, rooms of 32 pixels a side."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dataloader.toy import make_boxes, make_cameras, render
from geometry.views import Views
from methods.warp_diffusion.conditioning import Condition
from methods.warp_diffusion.config import (
    AutoencoderConfig,
    ImageEncoderConfig,
    SamplingConfig,
    UNetConfig,
    WarpDiffusionConfig,
)
from methods.warp_diffusion.method import WarpDiffusion
from methods.warp_diffusion.model import LatentDiffusion

SIDE = 32


def tiny_config(encoder: bool = False, **changes: Any) -> WarpDiffusionConfig:
    """encoder: with an image encoder. changes: of the other settings; those of `sampling` as a dict."""
    layers = 1 if encoder else 0
    sampling = SamplingConfig(**{"steps": 2, "guidance": 2.0, **changes.pop("sampling", {})})
    return WarpDiffusionConfig(
        resolution=SIDE,
        unet=UNetConfig(width=32, multipliers=(1, 1), blocks=1, attention=(2,), heads=2, context=32),
        autoencoder=AutoencoderConfig(kind="pixels", patch=2),
        image_encoder=ImageEncoderConfig(layers=layers, width=32, heads=1, patch=112, projection=32),
        sampling=sampling,
        **changes,
    )


def tiny_model(config: WarpDiffusionConfig, seed: int = 0) -> LatentDiffusion:
    """The networks with random weights, also where a model starts with zeros."""
    torch.manual_seed(seed)
    model = LatentDiffusion(config).eval()
    for part in (model.unet.conv_out, model.cc_projection):
        torch.nn.init.normal_(part.weight, std=0.1)
    return model


def tiny_method(config: WarpDiffusionConfig, seed: int = 0) -> WarpDiffusion:
    """The method around `tiny_model`."""
    return WarpDiffusion(config, tiny_model(config, seed)).eval()


def tiny_condition(model: LatentDiffusion, count: int, seed: int = 0) -> Condition:
    """Random conditions of `count` views."""
    random = torch.Generator().manual_seed(seed)
    side, config = model.config.latent_size, model.config
    channels = torch.randn(count, config.condition_channels, side, side, generator=random)
    return Condition(torch.randn(count, 1, config.unet.context, generator=random), channels)


def random_latents(model: LatentDiffusion, count: int, seed: int = 0) -> Tensor:
    """Unit noise [count, C, h, w] of the model's latents."""
    side, channels = model.config.latent_size, model.config.autoencoder.latent_channels
    return torch.randn(count, channels, side, side, generator=torch.Generator().manual_seed(seed))


def room_views(count: int = 3, height: int = SIDE, width: int = SIDE, seed: int = 3) -> Views:
    """Views of a procedural room with exact depth."""
    boxes = make_boxes(seed, 4)
    return render(boxes, make_cameras(seed, count, height, width, boxes))
