"""Colours of rays given as Pluecker coordinates, to look at."""

from __future__ import annotations

from torch import Tensor

_LOWEST, _RANGE = 0.1, 0.8  # of the hue's channels: no direction is black or white
_DIMMEST = 0.1  # brightness of a vector of no length
_TINY = 1e-12


def ray_colors(vectors: Tensor) -> Tensor:
    """Directions or moments of rays [..., 3, H, W] as RGB [..., 3, H, W] in [0, 1].

    Channels show the unit vector's components, 0.1 for -1 to 0.9 for 1; brightness its length, 0.1 for none
    to 1 for the longest vector of all that are given. A vector of no length is dark grey.
    """
    length = vectors.norm(dim=-3, keepdim=True)  # [..., 1, H, W]
    hue = _LOWEST + _RANGE * (vectors / length.clamp(min=_TINY) + 1) / 2
    return hue * (_DIMMEST + (1 - _DIMMEST) * length / length.max().clamp(min=_TINY))
