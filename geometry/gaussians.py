"""3D Gaussians (Kerbl et al. 2023): their parameters."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass
class Gaussians:
    """G anisotropic Gaussians with view-dependent colour.

    means: [G, 3] world. log_scales: [G, 3], logarithms of the standard deviations along the own axes, world
    units. quaternions: [G, 4] (w, x, y, z), of any length. opacity_logits: [G, 1]. sh_dc: [G, 1, 3] and
    sh_rest: [G, K, 3], spherical-harmonics coefficients of degree 0 and 1 to 3 (K = 15); colour = 0.5 + their
    sum.
    """

    means: Tensor
    log_scales: Tensor
    quaternions: Tensor
    opacity_logits: Tensor
    sh_dc: Tensor
    sh_rest: Tensor

    def __len__(self) -> int:
        return len(self.means)
