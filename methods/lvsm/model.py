"""The transformer with what stands around it: rays, image range, the latent variant's autoencoder."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from common.errors import UserError
from geometry.cameras import Cameras
from geometry.plucker import ray_maps
from methods.lvsm.build import build_network
from methods.lvsm.config import LvsmConfig
from methods.lvsm.latent import (
    RayDownsampler,
    add_lora,
    autoencoder_settings,
    build_autoencoder,
    decode,
    encode,
)
from methods.lvsm.network import Encoded


class LvsmModel(nn.Module):
    """Images and cameras in, images out; in between the transformer sees pixels, or latents.

    settings: of the autoencoder, in place of those that the config names.
    """

    def __init__(self, config: LvsmConfig, settings: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.config = config
        self.autoencoder: Any = None
        self.rays: RayDownsampler | None = None
        self.factor, self.latent_channels = 1, 3  # pixels per latent pixel
        if not config.latent.autoencoder and settings is None:
            self.network = build_network(config)
            return
        settings = settings or autoencoder_settings(config.latent)
        channels = settings["latent_channels"]
        self.latent_channels = channels
        self.factor = 2 ** (len(settings["block_out_channels"]) - 1)
        self.network = build_network(config, channels, channels, sigmoid=False)
        self.rays = RayDownsampler(channels, self.factor)
        self.rays.start()
        self.autoencoder = build_autoencoder(settings)
        if config.latent.lora.rank:
            add_lora(self.autoencoder, config.latent.lora)
            self.network.requires_grad_(False)
            self.rays.requires_grad_(False)

    @property
    def dtype(self) -> torch.dtype:
        """Of the transformer's weights."""
        return self.network.output.weight.dtype

    @property
    def multiple(self) -> int:
        """What the sides of images must be multiples of."""
        return self.factor * self.config.transformer.patch

    def check_size(self, cameras: Cameras) -> None:
        """Raise UserError for cameras whose images cannot be cut into patches."""
        if cameras.height % self.multiple or cameras.width % self.multiple:
            raise UserError(
                f"images of {cameras.width}x{cameras.height}: both sides must be multiples of "
                f"{self.multiple} (model.transformer.patch), set model.images.height and model.images.width"
            )

    def ray_inputs(self, cameras: Cameras) -> Tensor:
        """Cameras [B, V] in their frame -> ray maps [B, V, R, h, w] as the transformer takes them."""
        with torch.autocast(cameras.c2w.device.type, enabled=False):
            maps = ray_maps(cameras.to(torch.promote_types(self.dtype, torch.float32)))
        return self.shrink(maps.to(self.dtype))

    def shrink(self, maps: Tensor) -> Tensor:
        """Ray maps [B, V, 6, H, W] at the resolution of what the transformer sees."""
        return maps if self.rays is None else self.rays(maps.flatten(0, 1)).unflatten(0, maps.shape[:2])

    def image_inputs(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        """Images [B, V, 3, H, W] in [0, 1] -> pixels or latents as the transformer takes them.

        noise: of the latents' shape [B, V, C, h, w], for stochastic encoding.
        """
        images = images.to(self.dtype)
        if self.autoencoder is None:
            return images * 2 - 1 if self.config.signed_images else images
        flat = None if noise is None else noise.flatten(0, 1)
        with torch.no_grad():
            latents = encode(self.autoencoder, images.flatten(0, 1), self.config.latent, flat)
        return latents.unflatten(0, images.shape[:2])

    def encode(self, images: Tensor, cameras: Cameras) -> Encoded:
        """Source images [B, S, 3, H, W] and their cameras [B, S] -> what they determine."""
        return self.network.encode(self.image_inputs(images), self.ray_inputs(cameras))

    def decode(self, encoded: Encoded, cameras: Cameras) -> Tensor:
        """Cameras [B, T] of the targets -> pixels in [0, 1], or latents, [B, T, C, h, w]."""
        return self.network.decode(encoded, self.ray_inputs(cameras))

    def pixels(self, outputs: Tensor) -> Tensor:
        """What `decode` returned -> images [B, T, 3, H, W] in [0, 1]."""
        if self.autoencoder is None:
            return outputs
        return decode(self.autoencoder, outputs.flatten(0, 1), self.config.latent).unflatten(
            0, outputs.shape[:2]
        )

    def forward(self, images: Tensor, cameras: Cameras, targets: Cameras) -> Tensor:
        """Sources and target cameras [B, T] -> images [B, T, 3, H, W]."""
        return self.pixels(self.decode(self.encode(images, cameras), targets))
