"""Two-view geometry: where a pixel of one camera can lie in another (Hartley & Zisserman, chapter 9)."""

from __future__ import annotations

import torch
from torch import Tensor

from geometry.cameras import Cameras


def fundamental_matrix(first: Cameras, second: Cameras) -> Tensor:
    """[..., 3, 3] F with q^T F p = 0 for pixels p of `first` and q of `second` (homogeneous) of one point.

    F is zero where both cameras share their centre.
    """
    relative = second.w2c @ first.c2w
    rotation, (x, y, z) = relative[..., :3, :3], relative[..., :3, 3].unbind(-1)
    zero = torch.zeros_like(x)
    rows = [zero, -z, y, z, zero, -x, -y, x, zero]
    cross = torch.stack(rows, dim=-1).reshape(*x.shape, 3, 3)
    inverse = torch.linalg.inv(second.K).transpose(-1, -2)
    return inverse @ cross @ rotation @ torch.linalg.inv(first.K)


def epipolar_lines(fundamental: Tensor, pixels: Tensor) -> Tensor:
    """Lines (a, b, c) [..., N, 3] in the second image of pixels [..., N, 2] of the first: a x + b y + c = 0.

    (a, b) has length 1, so that a x + b y + c is a distance in pixels.
    """
    homogeneous = torch.cat([pixels, torch.ones_like(pixels[..., :1])], dim=-1)
    lines = homogeneous @ fundamental.transpose(-1, -2)
    return lines / lines[..., :2].norm(dim=-1, keepdim=True)


def epipolar_distances(fundamental: Tensor, pixels: Tensor, matches: Tensor) -> Tensor:
    """[..., N] distances in pixels of `matches` [..., N, 2] in the second image from the epipolar lines of
    `pixels` [..., N, 2] in the first.
    """
    lines = epipolar_lines(fundamental, pixels)
    return ((lines[..., :2] * matches).sum(-1) + lines[..., 2]).abs()
