"""The original's own `config.yaml` files, read as experiments of ours (specs/warp_diffusion 1.4)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from methods.warp_diffusion.config import (
    AutoencoderConfig,
    ImageEncoderConfig,
    UNetConfig,
    WarpDiffusionConfig,
)

_TARGET = "ldm.models.diffusion.ddpm.LatentDiffusion"


def unet_settings(params: Mapping[str, Any]) -> UNetConfig:
    """Ours, of the parameters of the original's `UNetModel`."""
    return UNetConfig(
        width=params["model_channels"],
        multipliers=tuple(params["channel_mult"]),
        blocks=params["num_res_blocks"],
        attention=tuple(sorted(params["attention_resolutions"])),
        heads=params["num_heads"],
        context=params["context_dim"],
    )


def autoencoder_settings(params: Mapping[str, Any]) -> AutoencoderConfig:
    """Ours, of the parameters of the original's `AutoencoderKL`."""
    network = params["ddconfig"]
    return AutoencoderConfig(
        width=network["ch"],
        multipliers=tuple(network["ch_mult"]),
        blocks=network["num_res_blocks"],
        channels=params["embed_dim"],
    )


def image_encoder_settings(clip: Mapping[str, Any]) -> ImageEncoderConfig:
    """Ours, of the arguments of OpenAI's `CLIP`; its heads are 64 wide."""
    return ImageEncoderConfig(
        layers=clip["vision_layers"],
        width=clip["vision_width"],
        heads=clip["vision_width"] // 64,
        patch=clip["vision_patch_size"],
        projection=clip["embed_dim"],
    )


def model_settings(params: Mapping[str, Any], clip: Mapping[str, Any] | None = None) -> WarpDiffusionConfig:
    """Ours, of the parameters of the original's `LatentDiffusion`, with its behaviour.

    clip: arguments of its `CLIP`, None for ViT-L/14.
    """
    autoencoder = autoencoder_settings(params["first_stage_config"]["params"])
    autoencoder.scale = float(params["scale_factor"])
    unet = params["unet_config"]["params"]
    return WarpDiffusionConfig(
        warp="pixels" if unet["in_channels"] == 2 * params["channels"] + 3 else "none",
        resolution=params["image_size"] * autoencoder.factor,
        unet=unet_settings(unet),
        autoencoder=autoencoder,
        image_encoder=ImageEncoderConfig() if clip is None else image_encoder_settings(clip),
        dropout="original",
    )


def is_original(raw: Mapping[str, Any]) -> bool:
    """Whether a parsed config.yaml is one of the original's."""
    model = raw.get("model")
    return isinstance(model, Mapping) and model.get("target") == _TARGET
