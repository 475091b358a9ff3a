"""Samplers: noise -> latents, given something that predicts the noise (specs/warp_diffusion 6.1).

`original` is MegaScenes' DDIM, bit for bit of its arithmetic: evenly spaced steps of which the noisiest is
dropped, eta 1. The others run the schedulers of `diffusers` from the noisiest step on (trailing spacing).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from methods.warp_diffusion.config import SamplingConfig
from methods.warp_diffusion.schedule import TIMESTEPS, NoiseSchedule

# (noisy latents [N, C, h, w], time step) -> predicted noise of the same shape
PredictNoise = Callable[[Tensor, int], Tensor]
# latents' shape -> unit noise; called once per step by samplers that add noise
DrawNoise = Callable[[], Tensor]
Progress = Callable[[Iterator[int]], Iterator[int]]


@dataclass(frozen=True)
class DdimSteps:
    """A sub-schedule, from the cleanest step to the noisiest: time steps, a and the a before, [S] float64."""

    timesteps: Tensor
    alphas: Tensor
    alphas_previous: Tensor

    def sigmas(self, eta: float) -> Tensor:
        """Standard deviation of the noise that each step adds, [S]."""
        a, before = self.alphas, self.alphas_previous
        return eta * ((1 - before) / (1 - a) * (1 - a / before)).sqrt()


def ddim_steps(schedule: NoiseSchedule, count: int) -> DdimSteps:
    """The original's evenly spaced steps: every (T // count)-th, shifted by one.

    There are more than `count` where it does not divide T. Raises ValueError above T / 2, where the shift
    would leave the schedule.
    """
    if not 1 <= count <= TIMESTEPS // 2:
        raise ValueError(f"between 1 and {TIMESTEPS // 2} steps, not {count}")
    timesteps = torch.arange(0, TIMESTEPS, TIMESTEPS // count) + 1
    alphas = schedule.alphas_cumprod.float().double()  # the original reads its float32 buffer
    a = alphas[timesteps]
    return DdimSteps(timesteps, a, torch.cat([alphas[:1], a[:-1]]))


def sample_original(
    predict: PredictNoise,
    noise: Tensor,
    schedule: NoiseSchedule,
    count: int = 50,
    eta: float = 1.0,
    draw: DrawNoise | None = None,
    drop_noisiest: bool = True,
) -> Tensor:
    """Draw latents as MegaScenes does: DDIM over `ddim_steps`, whose noisiest step is left out.

    noise: [N, C, h, w] to start from. draw: unit noise of that shape, asked for at every step; not needed for
    eta 0.
    """
    steps = ddim_steps(schedule, count)
    sigmas, x = steps.sigmas(eta), noise
    last = len(steps.timesteps) - (2 if drop_noisiest else 1)
    for i in range(last, -1, -1):
        a, before, sigma = float(steps.alphas[i]), float(steps.alphas_previous[i]), float(sigmas[i])
        e = predict(x, int(steps.timesteps[i]))
        clean = (x - (1 - a) ** 0.5 * e) / a**0.5
        x = before**0.5 * clean + (1 - before - sigma**2) ** 0.5 * e
        if sigma:
            if draw is None:
                raise ValueError("a sampler with eta above 0 needs fresh noise")
            x = x + sigma * draw().to(x)
    return x


def sample_latents(
    predict: PredictNoise,
    noise: Tensor,
    schedule: NoiseSchedule,
    config: SamplingConfig,
    draw: DrawNoise | None = None,
) -> Tensor:
    """Draw latents [N, C, h, w] by the configured sampler from the given noise."""
    if config.sampler == "original":
        return sample_original(predict, noise, schedule, config.steps, 1.0, draw)
    return _sample_library(predict, noise, config, draw)


def _sample_library(
    predict: PredictNoise, noise: Tensor, config: SamplingConfig, draw: DrawNoise | None
) -> Tensor:
    scheduler = _make_scheduler(config)
    scheduler.set_timesteps(config.steps)
    x = noise
    for t in scheduler.timesteps:
        e = predict(x, int(t))
        if config.sampler == "ddim":
            fresh = draw().to(x) if config.eta and draw is not None else None
            x = scheduler.step(e, t, x, eta=config.eta, variance_noise=fresh).prev_sample
        else:
            x = scheduler.step(e, t, x).prev_sample
    return x


def _make_scheduler(config: SamplingConfig) -> Any:
    """The scheduler of `diffusers` that a configuration names, with trailing spacing (Lin et al. 2023)."""
    from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, UniPCMultistepScheduler

    common: dict[str, Any] = {
        "num_train_timesteps": TIMESTEPS,
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "timestep_spacing": "trailing",
        "prediction_type": "epsilon",
    }
    if config.sampler == "ddim":
        return DDIMScheduler(**common, clip_sample=False, set_alpha_to_one=True)
    if config.sampler == "dpmpp":
        return DPMSolverMultistepScheduler(**common, final_sigmas_type="zero")
    return UniPCMultistepScheduler(**common, final_sigmas_type="zero")
