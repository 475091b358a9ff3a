"""Exponential moving average of the trainable weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from engine.sharding import split_like


class Ema:
    """The moving average of a module's trainable parameters, kept in float32 on their device.

    decay: limit of the weight on the past. Early on it is (1 + n) / (10 + n) at step n, so that the random
    start does not linger (the warm-up of latent diffusion's EMA; specs/warp_diffusion 5.4).
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights = {name: p.detach().float().clone() for name, p in _trainable(module).items()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Take in the weights after step `step` (0 is the first)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, parameter in _trainable(module).items():
            self.weights[name].lerp_(parameter.float(), 1 - decay)

    @torch.no_grad()
    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Continue from saved averages, which have this module's names and shapes."""
        for name, average in self.weights.items():
            average.copy_(split_like(weights[name], average))

    @contextmanager
    def applied(self, module: nn.Module) -> Iterator[None]:
        """The module with its averaged weights, for the time of a `with` block."""
        parameters = _trainable(module)
        current = {name: parameter.detach().clone() for name, parameter in parameters.items()}
        _assign(parameters, self.weights)
        try:
            yield
        finally:
            _assign(parameters, current)


def _trainable(module: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in module.named_parameters() if p.requires_grad}


@torch.no_grad()
def _assign(parameters: Mapping[str, nn.Parameter], values: Mapping[str, Tensor]) -> None:
    for name, parameter in parameters.items():
        parameter.copy_(values[name])
