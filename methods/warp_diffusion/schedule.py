"""The diffusion process: noise schedule, losses, single steps and warm-up (specs/warp_diffusion 5.1, 6.1)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

TIMESTEPS = 1000
_FIRST_BETA, _LAST_BETA = 0.00085, 0.0120


@dataclass(frozen=True)
class NoiseSchedule:
    """Variances of the forward process q(x_t | x_0) = N(sqrt(a_t) x_0, (1 - a_t) I), t = 0 .. T - 1.

    betas, alphas_cumprod (a_t) and alphas_cumprod_prev (a_{t-1}, 1 at t = 0): [T] float64, as everything
    here; what is applied to a tensor is rounded to its type last.
    """

    betas: Tensor
    alphas_cumprod: Tensor
    alphas_cumprod_prev: Tensor
    posterior_variance: Tensor
    posterior_log_variance: Tensor
    posterior_mean_coef1: Tensor
    posterior_mean_coef2: Tensor
    vlb_weights: Tensor

    def _at(self, values: Tensor, t: Tensor, x: Tensor) -> Tensor:
        """Values at time steps [N], shaped to multiply x [N, ...]."""
        return values.to(x.device)[t].reshape(-1, *(1,) * (x.ndim - 1)).to(x.dtype)

    def add_noise(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """x_t from x_0, unit noise and time steps [N]."""
        a = self.alphas_cumprod
        return self._at(a.sqrt(), t, x0) * x0 + self._at((1 - a).sqrt(), t, x0) * noise

    def clean(self, x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """The x_0 that x_t [N, ...] and its noise imply."""
        a = self.alphas_cumprod
        return self._at((1 / a).sqrt(), t, x) * x - self._at((1 / a - 1).sqrt(), t, x) * noise

    def noise_of(self, x: Tensor, x0: Tensor, t: Tensor) -> Tensor:
        """The noise that x_t and x_0 imply."""
        a = self.alphas_cumprod
        return (x - self._at(a.sqrt(), t, x) * x0) / self._at((1 - a).sqrt(), t, x)

    def velocity(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """v = sqrt(a) noise - sqrt(1 - a) x_0 (Salimans & Ho 2022)."""
        a = self.alphas_cumprod
        return self._at(a.sqrt(), t, x0) * noise - self._at((1 - a).sqrt(), t, x0) * x0

    def noise_from_velocity(self, x: Tensor, v: Tensor, t: Tensor) -> Tensor:
        """The noise that x_t and v imply."""
        a = self.alphas_cumprod
        return self._at(a.sqrt(), t, x) * v + self._at((1 - a).sqrt(), t, x) * x

    def posterior(self, x0: Tensor, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean, variance and log variance of q(x_{t-1} | x_t, x_0); the log is clipped at t = 0."""
        mean = self._at(self.posterior_mean_coef1, t, x) * x0 + self._at(self.posterior_mean_coef2, t, x) * x
        return mean, self._at(self.posterior_variance, t, x), self._at(self.posterior_log_variance, t, x)

    def ancestral_step(self, x: Tensor, predicted: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """x_{t-1} by the predicted noise of x_t, without clipping x_0; no noise is added at t = 0."""
        mean, _, log_variance = self.posterior(self.clean(x, predicted, t), x, t)
        later = (t > 0).to(x.dtype).reshape(-1, *(1,) * (x.ndim - 1))
        return mean + later * (0.5 * log_variance).exp() * noise


def make_schedule(
    steps: int = TIMESTEPS, first: float = _FIRST_BETA, last: float = _LAST_BETA
) -> NoiseSchedule:
    """betas evenly spaced in their square roots ('scaled linear'), from `first` to `last`."""
    betas = torch.linspace(first**0.5, last**0.5, steps, dtype=torch.float64) ** 2
    a = torch.cumprod(1 - betas, 0)
    previous = torch.cat([a.new_ones(1), a[:-1]])
    variance = betas * (1 - previous) / (1 - a)
    # the original computes the bound's weights from its float32 buffers
    b, v, kept, left = (value.float() for value in (betas, variance, 1 - betas, a))
    vlb = b**2 / (2 * v * kept * (1 - left))
    vlb[0] = vlb[1]  # the variance is 0 there
    values = (
        betas,
        a,
        previous,
        variance,
        variance.clamp(min=1e-20).log(),
        betas * previous.sqrt() / (1 - a),
        (1 - previous) * (1 - betas).sqrt() / (1 - a),
        vlb,
    )
    return NoiseSchedule(*values)


def per_item_mse(predicted: Tensor, truth: Tensor) -> Tensor:
    """Mean squared error of every item: [N, ...] x 2 -> [N]."""
    return (predicted - truth).square().flatten(1).mean(1)


def warm_up_rate(step: int, steps: int, first: float = 1e-6) -> float:
    """Factor on the learning rate: from `first` linearly to 1 over `steps` steps, then 1 (5.4)."""
    return first + (1 - first) * step / steps if step < steps else 1.0
