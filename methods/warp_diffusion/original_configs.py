"""The original's own `config.yaml` files, read as experiments of ours (specs/warp_diffusion 1.4)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from common.errors import UserError
from methods.warp_diffusion.config import (
    AutoencoderConfig,
    ImageEncoderConfig,
    UNetConfig,
    WarpDiffusionConfig,
)

ZERONVS = "configs/zeronvs_original/iter_0/zeronvs.ckpt"  # where the original looks for its start
MEGASCENES = {
    "root": "data/megascenes/images",
    "format": "megascenes",
    "pairs": "data/splits",
    "warps": "data/megascenes/warped_images",
}
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


def translate(raw: dict[str, Any]) -> dict[str, Any] | None:
    """A parsed config.yaml of the original as one of ours; None where it is no such file.

    Raises UserError when it lacks something.
    """
    model = raw.get("model")
    if not isinstance(model, Mapping) or model.get("target") != _TARGET:
        return None
    training = raw.get("training") or {}
    try:
        settings = asdict(model_settings(model["params"]))
        logged = training["log_images_kwargs"]
        settings["sampling"] |= {
            "sampler": "original",
            "steps": logged["ddim_steps"],
            "guidance": float(logged["unconditional_guidance_scale"]),
            "samples": 9,
        }
        settings |= {"freeze_projection": True, "warp_edges": "faded", "finetune": ZERONVS}
        settings["unet"]["checkpointing"] = bool(
            model["params"]["unet_config"]["params"].get("use_checkpoint")
        )
        rate = float(training["learning_rate"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"the original's config.yaml lacks {error}, or it is malformed: restore it") from None
    return {
        "method": "warp_diffusion",
        "model": settings,
        "data": dict(MEGASCENES),
        "training": {
            "learning_rate": rate,
            "accumulation": training.get("gradient_accumulation_steps", 1),
            "steps": 150_000,
            "warmup_steps": 100,
            "batch_size": 64,
            "workers": 8,
            "seed": 23,
            "save_every": 1000,
            "log_every": 500,
            "preview_every": 1000,
        },
    }
