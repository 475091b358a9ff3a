"""From the decoder's linear light to display values, and how photos and renders are counted in 8 bits.

The original's conventions (specs/hash_manifold 2.1 step 6, 3.7) are options: photos are uint8 / 256, the
transfer is widened by a thousandth so that black and white are reached, and 8 bits are floor(256 v).
"""

from __future__ import annotations

import torch
from torch import Tensor

_LINEAR_END = 0.0031308  # of the sRGB curve's straight piece


def srgb(linear: Tensor) -> Tensor:
    """Linear light, any shape -> display values by the sRGB curve (IEC 61966-2-1, rational form)."""
    curved = (211 * linear.clamp(min=1e-7) ** (5 / 12) - 11) / 200
    return torch.where(linear <= _LINEAR_END, 323 / 25 * linear, curved)


def display(linear: Tensor, widen: bool = False) -> Tensor:
    """Linear light -> display values in [0, 1]; widen: in [-0.001, 1.001], as the original trains."""
    shown = srgb(linear).clamp(0, 1)
    return 1.002 * shown - 0.001 if widen else shown


def quantize_original(images: Tensor) -> Tensor:
    """Display values -> uint8 as the original writes them: floor(clip(256 v, 0, 255)), v in [0, 1]."""
    return (256 * images.clamp(0, 1)).clamp(0, 255).floor().to(torch.uint8)


def photo_values(photos: Tensor, levels: int = 255) -> Tensor:
    """uint8 photos -> float32 values; levels: 255, or the original's 256 (white is 0.996)."""
    return photos.float() / levels
