"""Dense depth of an image, of which some depth is known, at the image's size (specs/scene_lifting 2.1)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from methods.scene_lifting.network import network_inputs


def complete_depth(network: nn.Module, image: Tensor, sparse: Tensor, unit: float = 1.0) -> Tensor:
    """Dense z-depth [H, W] of an image, as scenes are made of.

    The image and its mirror image are completed in one batch, each in a margin that is cropped away again:
    mirrored for colours, empty for depth. network: `network.DepthCompletion`. image: [3, H, W] in [0, 1].
    sparse: [H, W] z-depth, 0 where unknown. unit: world units that the network counts as one.
    """
    height, width = sparse.shape
    rows, columns = int(math.sqrt(height / 2) * 3), int(math.sqrt(width / 2) * 3)
    inputs = network_inputs(image[None], sparse[None, None].to(image), unit)
    margin = (columns, columns, rows, rows)
    colors = torch.nn.functional.pad(inputs[:, :3], margin, mode="reflect")
    padded = torch.cat([colors, torch.nn.functional.pad(inputs[:, 3:], margin)], dim=1)
    depth = network(torch.cat([padded, padded.flip(-1)]))
    depth = torch.nn.functional.interpolate(
        depth.float(), padded.shape[-2:], mode="bicubic", align_corners=False
    )
    depth = depth[:, 0, rows : rows + height, columns : columns + width]
    return (depth[0] + depth[1].flip(-1)) / 2 * unit


def predict_at_size(network: nn.Module, inputs: Tensor) -> Tensor:
    """Depth [B, 1, H, W] at the size of the network's inputs [B, 5, H, W], as the benchmark has it."""
    size = inputs.shape[-2:]
    return torch.nn.functional.interpolate(network(inputs).float(), size, mode="bilinear", align_corners=True)
