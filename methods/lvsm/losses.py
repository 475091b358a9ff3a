"""What LVSM is trained to minimise (specs/lvsm 5)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from common.errors import UserError
from engine.perceptual import perceptual_loss
from engine.sampling import generator
from methods.lvsm.config import LossConfig
from methods.lvsm.data import ViewSample
from methods.lvsm.latent import scale
from methods.lvsm.model import LvsmModel


class Criterion:
    """The weighted terms of a loss. The perceptual network is loaded by `prepare`; it is no part of the
    method, so that checkpoints stay free of it.
    """

    def __init__(self, config: LossConfig) -> None:
        self.config = config
        self._network: nn.Module | None = None

    def prepare(self) -> None:
        """Load what the loss needs. Raises UserError where there are no weights for it."""
        if not self.config.perceptual or self.config.network == "none" or self._network is not None:
            return
        try:
            self._network = perceptual_loss(self.config.network, self.config.weights)
        except UserError as error:
            raise UserError(f"{error} in model.loss.weights") from None

    def losses(self, model: LvsmModel, sample: ViewSample) -> dict[str, Tensor]:
        """Losses of one training batch: 'loss', and what it is made of."""
        if model.autoencoder is not None and not model.config.latent.decode:
            return self._latent_losses(model, sample)
        made = model(sample.source.images, sample.source.cameras, sample.target.cameras)
        return self.image_losses(made, sample.target.images)

    def image_losses(self, images: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Terms on images [B, T, 3, H, W]: mean squared error, and the perceptual one where it counts."""
        mse = mse_loss(images, targets)
        terms = {"mse": mse, "psnr": -10 * mse.detach().log10()}
        loss = self.config.mse * mse
        if self.config.perceptual and self.config.network != "none":
            assert self._network is not None, "prepare() loads it"
            terms["perceptual"] = self._network.to(images.device)(images, targets)
            loss = loss + self.config.perceptual * terms["perceptual"]
        return {"loss": loss, **terms}

    def _latent_losses(self, model: LvsmModel, sample: ViewSample) -> dict[str, Tensor]:
        """Mean squared error of predicted latents; both sides may be samples of the encoder."""
        given = self._latents(model, sample, sample.source.images, sample.source_latents, "source")
        wanted = self._latents(model, sample, sample.target.images, sample.target_latents, "target")
        encoded = model.network.encode(given, model.ray_inputs(sample.source.cameras))
        mse = mse_loss(model.decode(encoded, sample.target.cameras), wanted)
        return {"loss": self.config.mse * mse, "latent_mse": mse}

    def _latents(
        self, model: LvsmModel, sample: ViewSample, images: Tensor, encoded: Tensor | None, part: str
    ) -> Tensor:
        """Latents [B, V, C, h, w] of images, or of what was encoded beforehand [B, V, 2, C, h, w]."""
        noise = self._noise(model, images, sample, part)
        if encoded is None:
            return model.image_inputs(images, noise)
        mean, deviation = encoded.unbind(2)
        latents = mean if noise is None else mean + deviation * noise
        return scale(model.autoencoder, latents, model.config.latent)

    def _noise(self, model: LvsmModel, images: Tensor, sample: ViewSample, part: str) -> Tensor | None:
        """Unit noise for latents of images [B, V, 3, H, W], keyed by the items' seeds; None for the mean."""
        if not model.config.latent.stochastic:
            return None
        views, _, height, width = images.shape[1:]
        shape = (views, model.latent_channels, height // model.factor, width // model.factor)
        drawn = [torch.randn(shape, generator=generator(seed, "latents", part)) for seed in sample.seeds]
        return torch.stack(drawn).to(images)
