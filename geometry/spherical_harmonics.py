"""Real spherical harmonics up to degree 3, in the order and with the signs of 3D Gaussian splatting.

Kerbl et al. 2023, after Yu et al. 2021 (PlenOctrees): band l has 2 l + 1 functions, all bands one after the
other.
"""

from __future__ import annotations

from math import pi, sqrt

import torch
from torch import Tensor

SH_DC = sqrt(1 / (4 * pi))  # the value of the constant function, 0.28209479
BANDS = {1: (0, 3), 2: (3, 8), 3: (8, 15)}  # where each band lies among the coefficients beyond the constant

_1 = sqrt(3 / (4 * pi))
_2 = sqrt(15 / (4 * pi))
_2Z = sqrt(5 / (16 * pi))
_3A, _3B, _3C, _3D = sqrt(35 / (32 * pi)), sqrt(105 / (4 * pi)), sqrt(21 / (32 * pi)), sqrt(7 / (16 * pi))


def rgb_to_dc(rgb: Tensor) -> Tensor:
    """The constant coefficient whose colour, 0.5 + SH_DC * coefficient, is `rgb`; any shape."""
    return (rgb - 0.5) / SH_DC


def harmonics(directions: Tensor) -> Tensor:
    """The 15 functions of bands 1 to 3 at unit directions [..., 3]; [..., 15]."""
    x, y, z = directions.unbind(-1)
    xx, yy, zz = x * x, y * y, z * z
    return torch.stack(
        [
            -_1 * y,
            _1 * z,
            -_1 * x,
            _2 * x * y,
            -_2 * y * z,
            _2Z * (2 * zz - xx - yy),
            -_2 * x * z,
            _2 / 2 * (xx - yy),
            -_3A * y * (3 * xx - yy),
            _3B * x * y * z,
            -_3C * y * (4 * zz - xx - yy),
            _3D * z * (2 * zz - 3 * xx - 3 * yy),
            -_3C * x * (4 * zz - xx - yy),
            _3B / 2 * z * (xx - yy),
            -_3A * x * (xx - 3 * yy),
        ],
        dim=-1,
    )


def evaluate_sh(dc: Tensor, rest: Tensor, directions: Tensor) -> Tensor:
    """The sum of the harmonics for every item, [G, 3]; colour is 0.5 more.

    dc: [G, 1, 3]. rest: [G, K, 3] with K = 0, 3, 8 or 15. directions: [G, 3], of any length but 0.
    """
    total = SH_DC * dc[:, 0]
    if rest.shape[1] == 0:
        return total
    basis = harmonics(torch.nn.functional.normalize(directions, dim=-1))[:, : rest.shape[1]]
    return total + (basis[..., None] * rest).sum(1)


def rotate_sh(rest: Tensor, rotation: Tensor) -> Tensor:
    """Coefficients of the function that is turned along: f'(d) = f(rotation^T d).

    rest: [G, K, 3] with K = 0, 3, 8 or 15. rotation: [3, 3], proper. A turned band stays within its band; its
    matrix follows from values of the functions at enough directions.
    """
    directions = _spread(32).to(rest.device)
    basis = harmonics(directions)
    turned = harmonics(directions @ rotation.to(directions))
    parts = [rest[:, :0]]
    for first, end in BANDS.values():
        if end <= rest.shape[1]:
            matrix = torch.linalg.lstsq(basis[:, first:end], turned[:, first:end]).solution
            parts.append(torch.einsum("ij,gjc->gic", matrix.to(rest), rest[:, first:end]))
    return torch.cat(parts, dim=1)


def _spread(count: int) -> Tensor:
    """Directions spread over the sphere (golden spiral), [count, 3] float64."""
    index = torch.arange(count, dtype=torch.float64) + 0.5
    z = 1 - 2 * index / count
    angle = pi * (1 + sqrt(5)) * index
    radius = (1 - z * z).sqrt()
    return torch.stack([radius * angle.cos(), radius * angle.sin(), z], dim=-1)
