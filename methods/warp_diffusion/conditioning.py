"""What the network is told about a view: a token, and channels beside the noisy latents (2.4, 5.3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor


@dataclass
class Condition:
    """Of N views. token: [N, 1, D] cross-attention context. channels: [N, C, h, w] beside the latents."""

    token: Tensor
    channels: Tensor

    def __len__(self) -> int:
        return len(self.token)

    def __getitem__(self, index: slice | Tensor) -> Condition:
        return Condition(self.token[index], self.channels[index])

    def null(self) -> Condition:
        """The absence of a condition, for classifier-free guidance: all zeros."""
        return Condition(torch.zeros_like(self.token), torch.zeros_like(self.channels))

    def joined(self, other: Condition) -> Condition:
        """These views, then the other ones."""
        return Condition(torch.cat([self.token, other.token]), torch.cat([self.channels, other.channels]))


@dataclass
class Dropped:
    """What training hides of N samples: [N] bool each.

    embedding: the image embedding, before the projection. token: all of the token. source: the source's
    latents. warp: the warp's channels.
    """

    embedding: Tensor
    token: Tensor
    source: Tensor
    warp: Tensor


def draw_dropped(uniform: Tensor, kind: Literal["joint", "original"]) -> Dropped:
    """Decide what is hidden, by one uniform number per sample [N].

    A third of 15 % each: only the token's side, both, only the channels' side. 'original' hides the image
    embedding and the source's latents, never pose and warp, although sampling's null condition has none of
    the four. 'joint' hides exactly what the null condition lacks.
    """
    first, second = uniform < 0.10, (uniform >= 0.05) & (uniform < 0.15)
    never = torch.zeros_like(first)
    if kind == "original":
        return Dropped(embedding=first, token=never, source=second, warp=never)
    return Dropped(embedding=never, token=first, source=second, warp=second)


def hide(values: Tensor, hidden: Tensor) -> Tensor:
    """Values [N, ...], zero where hidden [N] is true."""
    return values * (~hidden).to(values.dtype).reshape(-1, *(1,) * (values.ndim - 1))
