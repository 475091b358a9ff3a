"""The latent diffusion model: networks, conditions, loss and samples. No geometry, no files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from methods.warp_diffusion.conditioning import Condition, Dropped, draw_dropped, hide
from methods.warp_diffusion.config import SamplingConfig, WarpDiffusionConfig
from methods.warp_diffusion.network import (
    ImageEncoder,
    make_autoencoder,
    make_projection,
    make_unet,
    zero_image_part,
)
from methods.warp_diffusion.sampling import DrawNoise, PredictNoise, sample_latents
from methods.warp_diffusion.schedule import make_schedule, per_item_mse


@dataclass
class SourceCode:
    """What the networks make of N source photos. embedding: [N, E] (E may be 0). latents: [N, C, h, w]."""

    embedding: Tensor
    latents: Tensor

    def __getitem__(self, index: Tensor) -> SourceCode:
        return SourceCode(self.embedding[index], self.latents[index])


@dataclass
class Draws:
    """The random numbers of one loss over N samples.

    posterior, noise: unit noise [N, C, h, w] for the target's latents. uniform: [N] in [0, 1), decides what
    is hidden. t: [N] time steps.
    """

    posterior: Tensor
    uniform: Tensor
    t: Tensor
    noise: Tensor


class LatentDiffusion(nn.Module):
    """Denoiser, autoencoder, image encoder and projection. Images are square canvases in [-1, 1]."""

    def __init__(self, config: WarpDiffusionConfig) -> None:
        super().__init__()
        self.config = config
        self.schedule = make_schedule()
        latent = config.autoencoder.latent_channels
        self.unet = make_unet(config.unet, config.in_channels, latent, config.latent_size)
        self.autoencoder = make_autoencoder(config.autoencoder, config.resolution)
        self.image_encoder = ImageEncoder(config.image_encoder) if config.image_encoder.layers else None
        embedding = config.image_encoder.projection if config.image_encoder.layers else 0
        self.cc_projection = make_projection(embedding, config.unet.context)
        for part in self.frozen_parts():
            part.requires_grad_(False)

    def frozen_parts(self) -> list[nn.Module]:
        """What is never trained."""
        parts: list[nn.Module | None] = [self.autoencoder, self.image_encoder]
        if self.config.freeze_projection:
            parts.append(self.cc_projection)
        return [part for part in parts if part is not None]

    def start(self) -> None:
        """Starting values of the projection where no weights are loaded (the rest has its library's)."""
        zero_image_part(self.cc_projection)

    # Conditions

    def encode_source(self, images: Tensor) -> SourceCode:
        """Embedding and latents of source canvases [N, 3, S, S]."""
        latents = self.autoencoder.encode(images.to(self._type(self.autoencoder))).float()
        if self.config.scaled_source:
            latents = latents * self.autoencoder.scale
        if self.image_encoder is None:
            return SourceCode(images.new_zeros(len(images), 0), latents)
        return SourceCode(self.image_encoder(images.to(self._type(self.image_encoder))).float(), latents)

    def token(self, embedding: Tensor, pose: Tensor) -> Tensor:
        """The cross-attention context [N, 1, D] of embeddings [N, E] and poses [N, 19]."""
        if self.config.token == "image":
            return embedding[:, None]
        inputs = torch.cat([embedding, pose.to(embedding)], dim=-1)
        return self.cc_projection(inputs.to(self._type(self.cc_projection))).to(embedding)[:, None]

    def warp_channels(self, warp: Tensor | None, coverage: Tensor | None) -> Tensor | None:
        """What the warp contributes beside the latents, [N, C, h, w].

        warp: [N, 3, h, w] for `warp: pixels`, the whole canvas [N, 3, S, S] for `warp: latent`. coverage: [N,
        1, h, w] in [0, 1], for the latter.
        """
        if self.config.warp == "none":
            return None
        assert warp is not None
        if self.config.warp == "pixels":
            return warp
        assert coverage is not None
        latents = self.autoencoder.encode(warp.to(self._type(self.autoencoder))).float()
        return torch.cat([latents * self.autoencoder.scale, coverage * 2 - 1], dim=1)

    def condition(self, source: SourceCode, pose: Tensor, warp: Tensor | None) -> Condition:
        """The condition of N views from the codes of their sources, poses [N, 19] and `warp_channels`."""
        channels = source.latents if warp is None else torch.cat([source.latents, warp], dim=1)
        return Condition(self.token(source.embedding, pose), channels)

    def hidden_condition(
        self, source: SourceCode, pose: Tensor, warp: Tensor | None, dropped: Dropped
    ) -> Condition:
        """As `condition`, less what training hides."""
        kept = SourceCode(hide(source.embedding, dropped.embedding), hide(source.latents, dropped.source))
        condition = self.condition(kept, pose, None if warp is None else hide(warp, dropped.warp))
        return Condition(hide(condition.token, dropped.token), condition.channels)

    # Training

    def losses(
        self, target: Tensor, source: Tensor, pose: Tensor, warp: Tensor | None, draws: Draws
    ) -> dict[str, Tensor]:
        """Mean squared error of the predicted noise (or velocity), and the variational bound for the log.

        target, source: canvases [N, 3, S, S]. warp: `warp_channels`.
        """
        with torch.no_grad():
            latents = self.target_latents(target, draws.posterior)
            code = self.encode_source(source)
            if self.config.residual and warp is not None:
                latents = latents - warp[:, : latents.shape[1]]
        dropped = draw_dropped(draws.uniform, self.config.dropout)
        condition = self.hidden_condition(code, pose, warp, dropped)
        noisy = self.schedule.add_noise(latents, draws.noise, draws.t)
        predicted = self.unet_output(noisy, draws.t, condition)
        truth = draws.noise
        if self.config.prediction == "v_prediction":
            truth = self.schedule.velocity(latents, draws.noise, draws.t)
        errors = per_item_mse(predicted.float(), truth)
        weights = self.schedule.vlb_weights.to(errors)[draws.t]
        return {"loss": errors.mean(), "vlb": (weights * errors.detach()).mean()}

    def target_latents(self, images: Tensor, posterior: Tensor | None) -> Tensor:
        """Scaled latents of canvases [N, 3, S, S], drawn by unit noise or (None) the mode."""
        images = images.to(self._type(self.autoencoder))
        posterior = None if posterior is None else posterior.to(images)
        return self.autoencoder.encode(images, posterior).float() * self.autoencoder.scale

    def unet_output(self, noisy: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """What the network says of noisy latents [N, C, h, w] at time steps [N]: noise or velocity."""
        kind = self._type(self.unet)
        inputs = torch.cat([noisy, condition.channels], dim=1).to(kind)
        return self.unet(inputs, t, encoder_hidden_states=condition.token.to(kind)).sample.to(noisy.dtype)

    # Sampling

    def predictor(
        self,
        condition: Condition,
        guidance: float,
        adjust: Callable[[Tensor, slice, int], Tensor] | None = None,
        batch: int | None = None,
    ) -> PredictNoise:
        """The noise prediction that samplers call, with classifier-free guidance in one network call.

        guidance: s in e_null + s (e - e_null). adjust: (clean latents, which views, time step) -> clean
        latents, applied to what the prediction implies. batch: views per network call, None: all.
        """
        size = batch or len(condition)

        def predict(x: Tensor, t: int) -> Tensor:
            parts = [slice(i, min(i + size, len(x))) for i in range(0, len(x), size)]
            return torch.cat([self._guided(x[p], t, condition[p], guidance, adjust, p) for p in parts])

        return predict

    def _guided(
        self,
        x: Tensor,
        t: int,
        condition: Condition,
        guidance: float,
        adjust: Callable[[Tensor, slice, int], Tensor] | None,
        part: slice,
    ) -> Tensor:
        """Guided noise of latents [N, C, h, w] at one time step."""
        if guidance == 1:
            output = self.unet_output(x, torch.full((len(x),), t, device=x.device), condition)
        else:
            steps = torch.full((2 * len(x),), t, device=x.device)
            both = self.unet_output(torch.cat([x, x]), steps, condition.null().joined(condition))
            null, given = both.chunk(2)
            output = null + guidance * (given - null)
        steps = torch.full((len(x),), t, device=x.device)
        if self.config.prediction == "v_prediction":
            output = self.schedule.noise_from_velocity(x, output, steps)
        if adjust is None:
            return output
        clean = adjust(self.schedule.clean(x, output, steps), part, t)
        return self.schedule.noise_of(x, clean, steps)

    def base(self, condition: Condition) -> Tensor | None:
        """Warp latents [N, C, h, w] where the difference to them is diffused; None where the view is."""
        channels = self.config.autoencoder.latent_channels
        return condition.channels[:, channels : 2 * channels] if self.config.residual else None

    def sample(
        self,
        condition: Condition,
        noise: Tensor,
        config: SamplingConfig,
        draw: DrawNoise | None = None,
        adjust: Callable[[Tensor, slice, int], Tensor] | None = None,
    ) -> Tensor:
        """Draw scaled latents [N, C, h, w] of N views from unit noise."""
        base = self.base(condition)
        change = adjust
        if adjust is not None and base is not None:

            def change(clean: Tensor, part: slice, t: int) -> Tensor:
                return adjust(clean + base[part], part, t) - base[part]

        predict = self.predictor(condition, config.guidance, change, config.batch)
        latents = sample_latents(predict, noise, self.schedule, config, draw)
        return latents if base is None else latents + base

    def decode(self, latents: Tensor, batch: int = 16) -> Tensor:
        """Canvases [N, 3, S, S] of scaled latents; not clamped."""
        kind = self._type(self.autoencoder)
        scaled = (latents / self.autoencoder.scale).to(kind)
        return torch.cat([self.autoencoder.decode(part).float() for part in scaled.split(batch)])

    @staticmethod
    def _type(module: nn.Module) -> torch.dtype:
        """The type a network computes in."""
        parameter = next(module.parameters(), None)
        return torch.float32 if parameter is None else parameter.dtype
