"""Small LVSM models with weights that do something, and views for them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from dataloader.framing import Framing
from engine.random_views import random_views
from geometry.views import Views
from methods.lvsm.config import LossConfig, LvsmConfig, TransformerConfig
from methods.lvsm.method import Lvsm

SIZE = 16


def tiny_config(kind: str = "masked", **changes: Any) -> LvsmConfig:
    transformer = TransformerConfig(
        kind=kind,  # type: ignore[arg-type]
        width=24,
        layers=2,
        decoder_layers=2,
        latents=5,
        heads=2,
        head_dim=8,
        mlp=32,
        patch=4,
    )
    config = LvsmConfig(
        transformer=replace(transformer, **changes),
        loss=LossConfig(perceptual=0.0, network="none"),
        images=Framing(SIZE, SIZE),
    )
    config.render.targets = 3
    return config


def tiny_method(config: LvsmConfig | None = None, seed: int = 0) -> Lvsm:
    """A method whose weights are ten times their starting size, so that attention matters."""
    torch.manual_seed(seed)
    method = Lvsm.create(config or tiny_config())
    method.initialise()
    with torch.no_grad():
        for parameter in method.parameters():
            if parameter.ndim > 1:
                parameter.mul_(10)
    return method.double().eval()


def tiny_views(count: int, seed: int = 0) -> Views:
    """Views with float64 images and cameras on an arc."""
    views = random_views(count, SIZE, SIZE, seed)
    return replace(views, images=views.images.double())
