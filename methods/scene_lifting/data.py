"""Training samples of depth completion: a photo, its depth, and what is given of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass
class DepthSample:
    """A training batch.

    image: [B, 3, H, W] in [0, 1]. depth: [B, 1, H, W]. masked_depth: [B, 1, H, W], what is given of it, 0
    elsewhere. valid: [B, 1, H, W] {0, 1}, where the depth counts.
    """

    image: Tensor
    depth: Tensor
    masked_depth: Tensor
    valid: Tensor

    def to(self, device: torch.device) -> DepthSample:
        return replace(self, **{name: value.to(device) for name, value in vars(self).items()})
