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


def original_names(config: LvsmConfig) -> dict[str, torch.Tensor]:
    """Weights of a model of these settings, under the unofficial code's names."""
    method = Lvsm.create(config)
    method.initialise()
    whole = {"source_tokens": "tokenize_input.1", "target_tokens": "tokenize_target.1"}
    whole |= {"output": "untokenize_output.0", "norm_last": "transformer.encoder.norm"}
    parts = {"attention.qkv": "self_attn.qkv_proj", "attention.out": "self_attn.o_proj"}
    parts |= {"attention.norm.queries": "self_attn.qk_scale.q_layer_norm", "mlp1": "mlp.0", "mlp2": "mlp.3"}
    parts |= {"attention.norm.keys": "self_attn.qk_scale.k_layer_norm"}
    found = {}
    for name, value in method.model.state_dict().items():
        top, _, rest = name.partition(".")
        if top == "autoencoder":
            found[f"vae.vae.{rest}"] = value
        elif top == "rays":
            found[f"downsample_rays.{rest}"] = value
        else:
            place, _, last = rest.rpartition(".")
            if place.startswith("blocks."):
                _, index, part = place.split(".", 2)
                place = f"transformer.encoder.layers.{index}.{parts.get(part, part)}"
            found[f"{whole.get(place, place)}.{last}"] = value
    return found
