"""Depth maps as pictures to look at."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geometry.lifting import depth_scale

_TAIL = 0.02  # share of the pixels, at either end, that may lie beyond the colours


def depth_picture(depth: Tensor) -> NDArray[np.uint8]:
    """Colour a z-depth map [H, W] -> [H, W, 3] uint8: near is red, far is blue, unknown (not above 0) black.

    Colours are even in 1 / depth between its 2nd and 98th percentile, so that pictures of different scenes
    look alike whatever their unit; the numbers themselves belong into a .npy beside the picture.
    """
    from matplotlib import colormaps

    known = torch.isfinite(depth) & (depth > 0)
    picture = np.zeros((*depth.shape, 3), dtype=np.uint8)
    if not known.any():
        return picture
    disparity = 1 / depth[known].double()
    low, high = (depth_scale(disparity, share) for share in (_TAIL, 1 - _TAIL))
    even = ((disparity - low) / max(high - low, 1e-12)).clamp(0, 1)
    picture[known.cpu().numpy()] = colormaps["turbo"](even.cpu().numpy(), bytes=True)[:, :3]
    return picture
