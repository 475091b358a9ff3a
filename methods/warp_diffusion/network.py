"""The networks, as `diffusers` and `transformers` have them (specs/warp_diffusion 2.6)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from methods.warp_diffusion.config import AutoencoderConfig, ImageEncoderConfig, UNetConfig

POSE_WIDTH = 19  # numbers that describe a relative camera (`pose_encoding`)

_CLIP_SIZE = 224
_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def make_unet(config: UNetConfig, in_channels: int, out_channels: int, size: int) -> Any:
    """The denoiser, a `UNet2DConditionModel` on latents of side `size`."""
    from diffusers import UNet2DConditionModel

    has_attention = [2**level in config.attention for level in range(len(config.multipliers))]
    down = ["CrossAttnDownBlock2D" if attention else "DownBlock2D" for attention in has_attention]
    up = ["CrossAttnUpBlock2D" if attention else "UpBlock2D" for attention in reversed(has_attention)]
    unet: Any = UNet2DConditionModel(
        sample_size=size,
        in_channels=in_channels,
        out_channels=out_channels,
        block_out_channels=[config.width * multiplier for multiplier in config.multipliers],
        layers_per_block=config.blocks,
        down_block_types=down,
        up_block_types=up,
        cross_attention_dim=config.context,
        attention_head_dim=config.heads,  # in this class the number of heads
        norm_num_groups=32,
        norm_eps=1e-5,
        flip_sin_to_cos=True,
        freq_shift=0,
    )
    if config.checkpointing:
        unet.enable_gradient_checkpointing()
    return unet


class KLAutoencoder(nn.Module):
    """A Stable-Diffusion-1 autoencoder. Images are in [-1, 1], latents unscaled."""

    def __init__(self, config: AutoencoderConfig, resolution: int) -> None:
        super().__init__()
        from diffusers import AutoencoderKL

        levels = len(config.multipliers)
        self.scale = config.scale
        self.network: Any = AutoencoderKL(
            in_channels=3,
            out_channels=3,
            down_block_types=["DownEncoderBlock2D"] * levels,
            up_block_types=["UpDecoderBlock2D"] * levels,
            block_out_channels=[config.width * multiplier for multiplier in config.multipliers],
            layers_per_block=config.blocks,
            latent_channels=config.channels,
            norm_num_groups=32,
            sample_size=resolution,
            scaling_factor=config.scale,
        )

    def encode(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        """Latents [N, C, h, w] of images [N, 3, H, W]: the posterior's mode, or its sample by `noise`."""
        posterior = self.network.encode(images).latent_dist
        return posterior.mode() if noise is None else posterior.mean + posterior.std * noise

    def decode(self, latents: Tensor) -> Tensor:
        """Images [N, 3, H, W] of unscaled latents; not clamped."""
        return self.network.decode(latents).sample


class PixelAutoencoder(nn.Module):
    """Pixels folded into channels, without loss: for small models that need no autoencoder."""

    scale = 1.0

    def __init__(self, patch: int) -> None:
        super().__init__()
        self.patch = patch

    def encode(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        """[N, 3, H, W] -> [N, 3 p p, H/p, W/p]; there is nothing to draw."""
        return nn.functional.pixel_unshuffle(images, self.patch)

    def decode(self, latents: Tensor) -> Tensor:
        """[N, 3 p p, h, w] -> [N, 3, h p, w p]."""
        return nn.functional.pixel_shuffle(latents, self.patch)


def make_autoencoder(config: AutoencoderConfig, resolution: int) -> KLAutoencoder | PixelAutoencoder:
    """The autoencoder that a configuration names."""
    if config.kind == "pixels":
        return PixelAutoencoder(config.patch)
    return KLAutoencoder(config, resolution)


class ImageEncoder(nn.Module):
    """CLIP's image tower, on images of any size."""

    def __init__(self, config: ImageEncoderConfig) -> None:
        super().__init__()
        from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

        self.network = CLIPVisionModelWithProjection(
            CLIPVisionConfig(
                hidden_size=config.width,
                intermediate_size=4 * config.width,
                num_hidden_layers=config.layers,
                num_attention_heads=config.heads,
                patch_size=config.patch,
                image_size=_CLIP_SIZE,
                projection_dim=config.projection,
                hidden_act="quick_gelu",
            )
        )

    def forward(self, images: Tensor) -> Tensor:
        """Images [N, 3, H, W] in [-1, 1] -> embeddings [N, projection], not normalised."""
        return self.network(pixel_values=clip_pixels(images)).image_embeds


def clip_pixels(images: Tensor) -> Tensor:
    """What CLIP sees of images [N, 3, H, W] in [-1, 1]: [N, 3, 224, 224], normalised.

    Bicubic with aligned corners and without antialiasing, as the original resizes (2.3).
    """
    resized = nn.functional.interpolate(
        images, size=(_CLIP_SIZE, _CLIP_SIZE), mode="bicubic", align_corners=True
    )
    mean, std = (images.new_tensor(values)[:, None, None] for values in (_CLIP_MEAN, _CLIP_STD))
    return ((resized + 1) / 2 - mean) / std


def make_projection(embedding: int, context: int) -> nn.Linear:
    """`cc_projection`: image embedding and pose -> cross-attention token."""
    return nn.Linear(embedding + POSE_WIDTH, context)


def zero_image_part(projection: nn.Linear) -> None:
    """Start with a token that carries the pose alone, as the original does before it loads weights (5.2)."""
    with torch.no_grad():
        projection.weight[:, :-POSE_WIDTH] = 0
        projection.bias.zero_()
