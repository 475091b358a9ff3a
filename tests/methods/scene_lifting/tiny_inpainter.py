"""A Stable Diffusion inpainting pipeline of a few thousand random weights, in diffusers' format on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

_WORDS = [
    "<|startoftext|>",
    "<|endoftext|>",
    *"abcdefghijklmnopqrstuvwxyz",
    *(f"{c}</w>" for c in "abcdefghij"),
]
_BLOCKS: dict[str, Any] = {"norm_num_groups": 8, "latent_channels": 4}


def write_pipeline(folder: Path, seed: int = 0) -> Path:
    """Write the pipeline; returns its folder. Images have 8 pixels per latent."""
    from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionInpaintPipeline, UNet2DConditionModel

    torch.manual_seed(seed)
    width = (8, 8, 8, 8)
    autoencoder = AutoencoderKL(
        block_out_channels=width,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        sample_size=32,
        **_BLOCKS,
    )
    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=9,
        out_channels=4,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=16,
        attention_head_dim=4,
        norm_num_groups=8,
    )
    pipeline = StableDiffusionInpaintPipeline(
        vae=autoencoder,
        text_encoder=_text_encoder(),
        tokenizer=_tokenizer(folder),
        unet=unet,
        scheduler=PNDMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            skip_prk_steps=True,
            steps_offset=1,
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


def write_decoder(folder: Path, seed: int = 1, latent_channels: int = 4) -> Path:
    """Write an asymmetric autoencoder; returns its folder."""
    from diffusers import AsymmetricAutoencoderKL

    torch.manual_seed(seed)
    AsymmetricAutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        down_block_out_channels=(8, 8, 8, 8),
        up_block_types=("UpDecoderBlock2D",) * 4,
        up_block_out_channels=(8, 8, 8, 8),
        **{**_BLOCKS, "latent_channels": latent_channels},
    ).save_pretrained(folder)
    return folder


def _text_encoder() -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel

    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(_WORDS),
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=16,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=1,
        )
    )


def _tokenizer(folder: Path) -> Any:
    """Letters are its words."""
    from transformers import CLIPTokenizer

    place = folder / "tokenizer"
    place.mkdir(parents=True)
    (place / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(_WORDS)}))
    (place / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer(str(place / "vocab.json"), str(place / "merges.txt"), model_max_length=16)
