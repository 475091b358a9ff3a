"""The transformers of LVSM: tokens of source views and of target rays -> target images (specs/lvsm 2)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from methods.lvsm.attention import Block, KeysValues

_EPS = 1e-5
MakeBlock = Callable[[], Block]


@dataclass
class Encoded:
    """What the source views of B scenes determine.

    layers: keys and values of every layer that looks at the sources, where they do not depend on the target.
    tokens: [B, M, width], where a layer's do: source tokens, or learned latents.
    """

    layers: list[KeysValues] | None = None
    tokens: Tensor | None = None


def patches(maps: Tensor, size: int) -> Tensor:
    """[..., C, H, W] -> [..., (H / size) (W / size), C size^2]: rows of patches, each channel by channel.

    Raises ValueError where the size of the maps is no multiple of `size`.
    """
    height, width = maps.shape[-2:]
    if height % size or width % size:
        raise ValueError(f"maps of {width}x{height} cannot be cut into patches of {size}")
    cut = maps.unflatten(-1, (-1, size)).unflatten(-3, (-1, size))  # [..., C, h, size, w, size]
    *batch, channels, rows, _, columns, _ = cut.shape
    n = len(batch)
    order = (*range(n), n + 1, n + 3, n, n + 2, n + 4)
    return cut.permute(order).reshape(*batch, rows * columns, channels * size * size)


def from_patches(tokens: Tensor, size: int, height: int, width: int) -> Tensor:
    """The inverse of `patches`: [..., N, C size^2] -> [..., C, height, width]."""
    *batch, _, values = tokens.shape
    n, channels = len(batch), values // size**2
    cut = tokens.reshape(*batch, height // size, width // size, channels, size, size)
    order = (*range(n), n + 2, n, n + 3, n + 1, n + 4)
    return cut.permute(order).reshape(*batch, channels, height, width)


class Network(nn.Module, ABC):
    """What the transformers share: tokens from maps, and maps from tokens.

    channels, ray_channels: of the images and of the ray maps. patch: side of a patch in pixels. width: of
    tokens. sigmoid: end in [0, 1]. two_norms: a norm before the one of the output layer. bias: of all layers.
    checkpoint_every: blocks between activations that are kept for the backward pass; 0 keeps all.
    """

    def __init__(
        self,
        channels: int,
        ray_channels: int,
        patch: int,
        width: int,
        sigmoid: bool = True,
        two_norms: bool = False,
        bias: bool = False,
        checkpoint_every: int = 0,
    ) -> None:
        super().__init__()
        self.patch, self.sigmoid, self.checkpoint_every = patch, sigmoid, checkpoint_every
        self.source_tokens = nn.Linear((channels + ray_channels) * patch**2, width, bias=bias)
        self.target_tokens = nn.Linear(ray_channels * patch**2, width, bias=bias)
        self.norm_in = nn.LayerNorm(width, _EPS, bias=bias)
        self.norm_last = nn.LayerNorm(width, _EPS, bias=bias) if two_norms else nn.Identity()
        self.norm_out = nn.LayerNorm(width, _EPS, bias=bias)
        self.output = nn.Linear(width, channels * patch**2, bias=bias)

    def tokenize_sources(self, images: Tensor, rays: Tensor) -> Tensor:
        """images [B, S, C, H, W], rays [B, S, R, H, W] -> tokens [B, S n, width], view after view."""
        return self.source_tokens(patches(torch.cat([images, rays], dim=2), self.patch)).flatten(1, 2)

    def tokenize_targets(self, rays: Tensor) -> Tensor:
        """rays [B, T, R, H, W] -> tokens [B T, n, width]."""
        return self.target_tokens(patches(rays, self.patch)).flatten(0, 1)

    def images(self, tokens: Tensor, rays: Tensor) -> Tensor:
        """Target tokens [B T, n, width] -> [B, T, C, H, W] of the size of rays [B, T, R, H, W]."""
        values = self.output(self.norm_out(self.norm_last(tokens))).unflatten(0, rays.shape[:2])
        maps = from_patches(values, self.patch, *rays.shape[-2:])
        maps = maps.to(torch.promote_types(maps.dtype, torch.float32))
        return maps.sigmoid() if self.sigmoid else maps

    @abstractmethod
    def encode(self, images: Tensor, rays: Tensor) -> Encoded:
        """Source images [B, S, C, H, W] and rays [B, S, R, H, W] -> what they determine."""

    @abstractmethod
    def decode(self, encoded: Encoded, rays: Tensor) -> Tensor:
        """Rays of the targets [B, T, R, H, W] -> images [B, T, C, H, W]."""

    def forward(self, images: Tensor, rays: Tensor, target_rays: Tensor) -> Tensor:
        """Sources and rays of the targets -> images of the targets [B, T, C, H, W]."""
        return self.decode(self.encode(images, rays), target_rays)

    def run(self, blocks: nn.ModuleList, x: Tensor) -> Tensor:
        """Tokens through blocks in which all see all."""
        every = self.checkpoint_every
        if not (every and self.training and torch.is_grad_enabled()):
            return _through(_listed(blocks), x)
        for start in range(0, len(blocks), every):
            x = checkpoint(_through, _listed(blocks)[start : start + every], x, use_reentrant=False)
        return x

    def compile_blocks(self) -> None:
        """Compile every block from its first use on (they share one compilation per shape)."""
        for block in self.modules():
            if isinstance(block, Block):
                block.compile()

    def remember(self, blocks: nn.ModuleList, x: Tensor) -> list[KeysValues]:
        """The keys and values that tokens [B, N, width] show in every block, seeing each other only."""
        *before, last = _listed(blocks)
        layers = []
        for block in before:
            x, shown = self.step(block, x)
            layers.append(shown)
        return [*layers, last(x, only_show=True)[1]]

    def look(self, blocks: nn.ModuleList, x: Tensor, layers: list[KeysValues]) -> Tensor:
        """Tokens [B T, n, width] through blocks in which they see themselves and what B scenes showed."""
        targets = len(x) // len(layers[0].keys)
        for block, memory in zip(_listed(blocks), layers, strict=True):
            x, _ = self.step(block, x, memory.repeated(targets))
        return x

    def step(self, block: Block, x: Tensor, memory: KeysValues | None = None) -> tuple[Tensor, KeysValues]:
        """Tokens through one block, and the keys and values they showed."""
        if self.checkpoint_every and self.training and torch.is_grad_enabled():
            return checkpoint(block, x, memory, use_reentrant=False)
        return block(x, memory)


def _listed(blocks: nn.ModuleList) -> list[Block]:
    return cast(list[Block], list(blocks))


def _through(blocks: list[Block], x: Tensor) -> Tensor:
    for block in blocks:
        x = block(x)[0]
    return x


class MaskedDecoder(Network):
    """Sources see sources; a target sees the sources and itself. So sources are encoded once, exactly.

    Source: the unofficial code (specs/lvsm 2.2), whose mask this is without a mask.
    """

    def __init__(self, block: MakeBlock, layers: int, **common: Any) -> None:
        super().__init__(**common)
        self.blocks = nn.ModuleList(block() for _ in range(layers))

    def encode(self, images: Tensor, rays: Tensor) -> Encoded:
        return Encoded(self.remember(self.blocks, self.norm_in(self.tokenize_sources(images, rays))))

    def decode(self, encoded: Encoded, rays: Tensor) -> Tensor:
        assert encoded.layers is not None
        x = self.norm_in(self.tokenize_targets(rays))
        return self.images(self.look(self.blocks, x, encoded.layers), rays)


class FullDecoder(Network):
    """Every target with all sources in one sequence in which all see all (the official decoder-only model).

    approximate: let the sources see sources only, so that they are encoded once; the result differs.
    Source: specs/lvsm 2.4.
    """

    def __init__(self, block: MakeBlock, layers: int, approximate: bool = False, **common: Any) -> None:
        super().__init__(**common)
        self.approximate = approximate
        self.blocks = nn.ModuleList(block() for _ in range(layers))

    def encode(self, images: Tensor, rays: Tensor) -> Encoded:
        sources = self.tokenize_sources(images, rays)
        if self.approximate:
            return Encoded(self.remember(self.blocks, self.norm_in(sources)))
        return Encoded(tokens=sources)

    def decode(self, encoded: Encoded, rays: Tensor) -> Tensor:
        targets = self.tokenize_targets(rays)
        if encoded.layers is not None:
            return self.images(self.look(self.blocks, self.norm_in(targets), encoded.layers), rays)
        assert encoded.tokens is not None
        sources = encoded.tokens.repeat_interleave(rays.shape[1], dim=0)
        x = self.run(self.blocks, self.norm_in(torch.cat([sources, targets], dim=1)))
        return self.images(x[:, -targets.shape[1] :], rays)


class EncoderDecoder(Network):
    """Sources -> learned latent tokens, once; every target with the latents in one sequence.

    latents: number of latent tokens. Source: the official encoder-decoder model (specs/lvsm 2.5).
    """

    def __init__(
        self, block: MakeBlock, layers: int, decoder_layers: int, latents: int, **common: Any
    ) -> None:
        super().__init__(**common)
        self.latents = nn.Parameter(torch.zeros(latents, common["width"]))
        self.encoder = nn.ModuleList(block() for _ in range(layers))
        self.decoder = nn.ModuleList(block() for _ in range(decoder_layers))

    def encode(self, images: Tensor, rays: Tensor) -> Encoded:
        sources = self.tokenize_sources(images, rays)
        latents = self.latents.to(sources.dtype).expand(len(sources), -1, -1)
        x = self.run(self.encoder, torch.cat([latents, sources], dim=1))
        return Encoded(tokens=x[:, : len(self.latents)])

    def decode(self, encoded: Encoded, rays: Tensor) -> Tensor:
        assert encoded.tokens is not None
        latents = encoded.tokens.repeat_interleave(rays.shape[1], dim=0)
        targets = self.tokenize_targets(rays)
        x = self.run(self.decoder, self.norm_in(torch.cat([targets, latents], dim=1)))
        return self.images(x[:, : targets.shape[1]], rays)
