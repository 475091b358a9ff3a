"""Transformer blocks whose keys and values can be kept, so that other tokens may look at them later."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, normalize, relu, scaled_dot_product_attention

QKNormKind = Literal["none", "l2", "layer", "rms"]
Activation = Literal["gelu", "relu"]

_EPS = 1e-5


@dataclass
class KeysValues:
    """What a layer's attention looks at: keys and values [B, heads, N, head_dim]."""

    keys: Tensor
    values: Tensor

    def repeated(self, times: int) -> KeysValues:
        """The same for `times` groups of tokens per batch element: [B * times, ...]."""
        if times == 1:
            return self
        shape = (self.keys.shape[0], times, *self.keys.shape[1:])
        return KeysValues(*(x[:, None].expand(shape).flatten(0, 1) for x in (self.keys, self.values)))

    def followed_by(self, other: KeysValues) -> KeysValues:
        """These tokens and then those."""
        return KeysValues(
            torch.cat([self.keys, other.keys], dim=2), torch.cat([self.values, other.values], dim=2)
        )


class HeadScale(nn.Module):
    """Queries and keys of unit length, with a learned temperature per head (Henry et al. 2020).

    tokens: length of the sequences N that it is started for, as log2(N^2 - N).
    """

    def __init__(self, heads: int, tokens: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((heads,), math.log2(max(tokens * tokens - tokens, 2))))

    def forward(self, queries: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        """[B, heads, N, head_dim] each; the temperature goes to the queries."""
        return normalize(queries, dim=-1) * self.weight[:, None, None], normalize(keys, dim=-1)


class PairedNorm(nn.Module):
    """A norm of the queries and one of the keys, each shared by all heads. rms: else LayerNorm."""

    def __init__(self, head_dim: int, rms: bool, bias: bool) -> None:
        super().__init__()

        def norm() -> nn.Module:
            return nn.RMSNorm(head_dim, _EPS) if rms else nn.LayerNorm(head_dim, _EPS, bias=bias)

        self.queries, self.keys = norm(), norm()

    def forward(self, queries: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        """[B, heads, N, head_dim] each, normalised in float32 and given back in their own type."""
        exact = torch.promote_types(queries.dtype, torch.float32)
        return self.queries(queries.to(exact)).to(queries.dtype), self.keys(keys.to(exact)).to(keys.dtype)


class Attention(nn.Module):
    """Multi-head attention over its own tokens and, where some are given, over remembered ones before them.

    width: of the tokens. heads * head_dim may differ from it. bias: of the projections. softmax_scale: factor
    on the logits; None is head_dim^-0.5, or 1 with 'l2'. tokens: as in `HeadScale`.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        head_dim: int,
        qk_norm: QKNormKind = "rms",
        bias: bool = False,
        softmax_scale: float | None = None,
        tokens: int = 2,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.scale = 1.0 if softmax_scale is None and qk_norm == "l2" else softmax_scale
        self.qkv = nn.Linear(width, 3 * heads * head_dim, bias=bias)
        self.out = nn.Linear(heads * head_dim, width, bias=bias)
        self.norm: nn.Module | None = None
        if qk_norm == "l2":
            self.norm = HeadScale(heads, tokens)
        elif qk_norm != "none":
            self.norm = PairedNorm(head_dim, qk_norm == "rms", bias)

    def project(self, x: Tensor) -> tuple[Tensor, KeysValues]:
        """[B, N, width] -> queries [B, heads, N, head_dim], keys and values."""
        queries, keys, values = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        if self.norm is not None:
            queries, keys = self.norm(queries, keys)
        return queries, KeysValues(keys, values)

    def attend(self, queries: Tensor, seen: KeysValues, mask: Tensor | None = None) -> Tensor:
        """[B, heads, N, head_dim] looking at `seen` -> [B, N, width]. mask: [N, M] bool, True may look."""
        keys, values = seen.keys.to(queries.dtype), seen.values.to(queries.dtype)
        x = scaled_dot_product_attention(queries, keys, values, mask, scale=self.scale)
        return self.out(x.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """One transformer layer.

    mlp: hidden width. pre_norm: norms before attention and MLP (else after their sums). Other arguments as in
    `Attention`.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        head_dim: int,
        mlp: int,
        qk_norm: QKNormKind = "rms",
        bias: bool = False,
        activation: Activation = "gelu",
        pre_norm: bool = True,
        softmax_scale: float | None = None,
        tokens: int = 2,
    ) -> None:
        super().__init__()
        self.pre_norm = pre_norm
        self.activation = gelu if activation == "gelu" else relu
        self.norm1 = nn.LayerNorm(width, _EPS, bias=bias)
        self.attention = Attention(width, heads, head_dim, qk_norm, bias, softmax_scale, tokens)
        self.norm2 = nn.LayerNorm(width, _EPS, bias=bias)
        self.mlp1 = nn.Linear(width, mlp, bias=bias)
        self.mlp2 = nn.Linear(mlp, width, bias=bias)

    def forward(
        self,
        x: Tensor,
        memory: KeysValues | None = None,
        mask: Tensor | None = None,
        only_show: bool = False,
    ) -> tuple[Tensor, KeysValues]:
        """Tokens [B, N, width] -> the same after this layer, and the keys and values they showed.

        memory: remembered tokens of this layer that all tokens see besides each other. mask: as in `attend`.
        only_show: what becomes of the tokens is of no interest; they are returned as they came.
        """
        if only_show:
            return x, self.attention.project(self._before(self.norm1, x))[1]
        queries, own = self.attention.project(self._before(self.norm1, x))
        seen = own if memory is None else memory.followed_by(own)
        x = self._after(self.norm1, x + self.attention.attend(queries, seen, mask))
        hidden = self.activation(self.mlp1(self._before(self.norm2, x)))
        return self._after(self.norm2, x + self.mlp2(hidden)), own

    def _before(self, norm: nn.Module, x: Tensor) -> Tensor:
        return norm(x) if self.pre_norm else x

    def _after(self, norm: nn.Module, x: Tensor) -> Tensor:
        return x if self.pre_norm else norm(x)
