"""The FiLM-SIREN colour decoder (specs/hash_manifold 2.3; its parameter names are the original's).

FiLM layers follow Perez et al. 2018 with the sine of Sitzmann et al. 2020: y = sin(frequency * (W x + b) +
phase), where frequency and phase come from a mapping network.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

_OMEGA, _OMEGA_0 = 15.0, 30.0  # frequency = 15 * raw + 30
_LEAK = 0.2
_SINE_GAIN = 25.0  # sine layers start with weights this much smaller than sqrt(6 / fan-in)


class Film(nn.Module):
    """y = sin(frequency * (W x + b) + phase). first: of its stack, whose weights start at U(-1/n, 1/n)."""

    def __init__(self, inputs: int, outputs: int, first: bool = False) -> None:
        super().__init__()
        self.layer = nn.Linear(inputs, outputs)
        _init_uniform(self.layer, 1 / inputs if first else math.sqrt(6 / inputs) / _SINE_GAIN)

    def forward(self, x: Tensor, frequency: Tensor, phase: Tensor) -> Tensor:
        """x [..., inputs]; frequency and phase broadcast with [..., outputs]."""
        return torch.sin(torch.addcmul(phase, frequency, self.layer(x)))


class Mapping(nn.Module):
    """Code [..., inputs] -> frequencies and phases [..., outputs / 2] each, of all layers of a stack."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        first, last = nn.Linear(inputs, hidden), nn.Linear(hidden, outputs)
        for layer in (first, last):
            nn.init.kaiming_normal_(layer.weight, a=_LEAK, nonlinearity="leaky_relu")
        with torch.no_grad():
            last.weight *= 0.25
        self.network = nn.Sequential(first, nn.LeakyReLU(_LEAK), last)

    def forward(self, code: Tensor) -> tuple[Tensor, Tensor]:
        raw, phase = self.network(code).chunk(2, dim=-1)
        return _OMEGA * raw + _OMEGA_0, phase


class Decoder(nn.Module):
    """Surface features, viewing direction and codes -> colour in linear light.

    features: channels of the encoding. width: of every layer. lighting, exposure: lengths of the codes;
    exposure 0 leaves that branch out.
    """

    def __init__(self, features: int, width: int = 64, lighting: int = 8, exposure: int = 4) -> None:
        super().__init__()
        self.width = width
        self.network = nn.ModuleList([Film(features, width, first=True), Film(width, width)])
        self.mapping_network = Mapping(lighting, width, 4 * width)
        self.network_dir = nn.ModuleList([Film(3, width, first=True), Film(width, width)])
        self.mapping_network_dir = Mapping(width, width, 4 * width)
        last = nn.Linear(width, 3)
        _init_uniform(last, math.sqrt(6 / width) / _SINE_GAIN)
        self.layer_sl = nn.Sequential(last, nn.Sigmoid())
        self.mapping_network_x = None
        if exposure:
            self.mapping_network_x = nn.Sequential(
                nn.Linear(exposure, width), nn.ReLU(), nn.Linear(width, 2 * width)
            )

    def exposure(self, code: Tensor) -> tuple[Tensor, Tensor]:
        """Exposure codes [..., exposure] -> what they do to descriptors: shift and scale, [..., width]."""
        if self.mapping_network_x is None:
            raise ValueError("this decoder has no exposure branch")
        shift, log_scale = self.mapping_network_x(code).chunk(2, dim=-1)
        return shift, log_scale.exp()

    def forward(
        self,
        features: Tensor,
        direction: Tensor,
        light: tuple[Tensor, Tensor],
        exposure: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Colours [..., 3] in (0, 1), linear light.

        features: [..., C]. direction: [..., 3], unit, from the camera to the surface. light: of
        `mapping_network`, exposure: of `exposure`, both broadcasting with [..., width].
        """
        descriptor = _stack(self.network, features, light)
        if exposure is not None:
            descriptor = torch.addcmul(exposure[0], exposure[1], descriptor)
        return self.layer_sl(_stack(self.network_dir, direction, self.mapping_network_dir(descriptor)))


def _stack(layers: nn.ModuleList, x: Tensor, films: tuple[Tensor, Tensor]) -> Tensor:
    """Run FiLM layers; layer k takes channels [k width, (k + 1) width) of frequencies and phases."""
    frequencies, phases = (part.chunk(len(layers), dim=-1) for part in films)
    for layer, frequency, phase in zip(layers, frequencies, phases, strict=True):
        x = layer(x, frequency, phase)
    return x


def _init_uniform(layer: nn.Linear, bound: float) -> None:
    nn.init.uniform_(layer.weight, -bound, bound)
