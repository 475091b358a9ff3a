"""Networks from settings, and their starting values."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from methods.lvsm.attention import Block
from methods.lvsm.config import LvsmConfig, TransformerConfig
from methods.lvsm.network import EncoderDecoder, FullDecoder, MaskedDecoder, Network

_DEVIATION = 0.02  # of starting weights


def build_network(
    config: LvsmConfig, channels: int = 3, ray_channels: int = 6, sigmoid: bool = True
) -> Network:
    """The transformer that the settings ask for, with starting values. channels: of images or latents."""
    t = config.transformer
    common: dict[str, Any] = {
        "channels": channels,
        "ray_channels": ray_channels,
        "patch": t.patch,
        "width": t.width,
        "sigmoid": sigmoid,
        "two_norms": t.two_norms,
        "bias": t.bias,
        "checkpoint_every": t.checkpoint_every,
    }

    def block() -> Block:
        return Block(
            t.width,
            t.heads,
            t.head_dim,
            t.mlp,
            t.qk_norm,
            t.bias,
            t.activation,
            t.pre_norm,
            t.head_dim**-0.5 if t.scaled_softmax else None,
            t.l2_tokens,
        )

    network: Network
    if t.kind == "masked":
        network = MaskedDecoder(block, t.layers, **common)
    elif t.kind == "full":
        network = FullDecoder(block, t.layers, config.render.approximate, **common)
    else:
        network = EncoderDecoder(block, t.layers, t.decoder_layers, t.latents, **common)
    start(network, t)
    return network


@torch.no_grad()
def start(network: Network, config: TransformerConfig) -> None:
    """Give starting values to weights whose rule differs from torch's own.

    unofficial: Xavier for attention, Kaiming for MLPs. scaled, depth_scaled: normal of 0.02, in blocks
    divided by sqrt(2 L) with the number L of blocks, or by sqrt(2 (i + 1)) in block i (specs/lvsm 2.2, 2.4).
    """
    if config.initialisation == "unofficial":
        for block in _blocks(network):
            for layer in (block.attention.qkv, block.attention.out):
                nn.init.xavier_normal_(layer.weight)
            for layer in (block.mlp1, block.mlp2):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        return
    for layer in (network.source_tokens, network.target_tokens, network.output):
        _normal(layer, _DEVIATION)
    for stack in (child for child in network.children() if isinstance(child, nn.ModuleList)):
        for i, module in enumerate(stack):
            depth = i + 1 if config.initialisation == "depth_scaled" else len(stack)
            for layer in (m for m in module.modules() if isinstance(m, nn.Linear)):
                _normal(layer, _DEVIATION / math.sqrt(2 * depth))
    if isinstance(network, EncoderDecoder):
        nn.init.trunc_normal_(network.latents, std=_DEVIATION)


def _blocks(network: Network) -> list[Block]:
    return [module for module in network.modules() if isinstance(module, Block)]


def _normal(layer: nn.Linear, deviation: float) -> None:
    nn.init.normal_(layer.weight, std=deviation)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
