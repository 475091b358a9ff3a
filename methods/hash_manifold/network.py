"""The trained part: hash grid, decoder, and codes of lighting and exposure (specs/hash_manifold 2.1)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from methods.hash_manifold.colour import display
from methods.hash_manifold.decoder import Decoder
from methods.hash_manifold.grid.encoding import HashGrid

Exposure = Literal["none", "code", "gain"]


class SurfaceField(nn.Module):
    """Points of a surface, seen from a direction -> colours.

    grid: encoding of the unit box. photos: rows of the exposure table; lights: rows of the lighting table.
    exposure: 'code' modulates the descriptor (original); 'gain' multiplies the linear colours by one gain per
    photo and channel, relative to the mean photo. widen: the original's transfer function.
    """

    def __init__(
        self,
        grid: HashGrid,
        photos: int,
        width: int = 64,
        lighting: int = 8,
        lights: int = 1,
        exposure: Exposure = "gain",
        exposure_length: int = 4,
        widen: bool = False,
    ) -> None:
        super().__init__()
        self.grid, self.widen = grid, widen
        coded = exposure == "code"
        self.decoder = Decoder(grid.n_outputs, width, lighting, exposure_length if coded else 0)
        self.lighting = _codes(lights, lighting)
        self.exposure = _codes(photos, exposure_length) if coded else None
        self.log_gain = nn.Parameter(torch.zeros(photos, 3)) if exposure == "gain" else None

    def forward(
        self,
        points: Tensor,
        direction: Tensor,
        photo: Tensor | None = None,
        light: Tensor | None = None,
        covered: Tensor | None = None,
    ) -> Tensor:
        """Display colours [N, 3].

        points: [N, S, 3] surface points of each pixel's samples, in the unit box. direction: [N, 3], unit,
        camera to surface. photo: [N] int64, rows of the exposure table; None renders as the mean photo.
        light: [N] int64; None is the first. covered: [N, S] {0, 1}: which samples hit (None: all).
        """
        features = self.encode(points, covered)
        linear = self.decoder(features, direction, self._light(light), self._exposure(photo))
        if self.log_gain is not None and photo is not None:
            linear = linear * (self.log_gain - self.log_gain.mean(0)).exp()[photo]
        return display(linear, self.widen)

    def encode(self, points: Tensor, covered: Tensor | None = None) -> Tensor:
        """Features [N, C]: the mean over each pixel's covered samples, points [N, S, 3]."""
        features = self.grid(points)
        if points.shape[1] == 1:
            return features[:, 0]
        if covered is None:
            return features.mean(1)
        weight = covered.to(features.dtype)
        return (features * weight[..., None]).sum(1) / weight.sum(1, keepdim=True).clamp(min=1)

    def _light(self, light: Tensor | None) -> tuple[Tensor, Tensor]:
        """Frequencies and phases [N or 1, 2 width]; the mapping runs once per code, not once per ray."""
        if light is None:
            light = torch.zeros(1, dtype=torch.int64, device=self.lighting.weight.device)
        rows, inverse = light.unique(return_inverse=True)
        frequency, phase = self.decoder.mapping_network(self.lighting(rows))
        return frequency[inverse], phase[inverse]

    def _exposure(self, photo: Tensor | None) -> tuple[Tensor, Tensor] | None:
        """Shift and scale [N or 1, width] of the descriptors; None without exposure codes."""
        if self.exposure is None:
            return None
        if photo is None:
            return self.decoder.exposure(self.mean_exposure())
        rows, inverse = photo.unique(return_inverse=True)
        shift, scale = self.decoder.exposure(self.exposure(rows))
        return shift[inverse], scale[inverse]

    def mean_exposure(self) -> Tensor:
        """[1, length]: the mean of all photos' codes, each brought to norm 1 at most."""
        if self.exposure is None:
            raise ValueError("this field has no exposure codes")
        rows = torch.arange(self.exposure.num_embeddings, device=self.exposure.weight.device)
        return self.exposure(rows).mean(0, keepdim=True)


def _codes(count: int, length: int) -> nn.Embedding:
    """A table of codes; looked-up rows longer than 1 are shortened in place, as the original does."""
    table = nn.Embedding(count, length, max_norm=1.0)
    nn.init.normal_(table.weight, std=0.1)
    return table
