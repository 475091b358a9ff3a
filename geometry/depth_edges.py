"""Edges of depth maps: masks grown and shrunk, gaps filled, and smeared edges snapped to one of their sides.

specs/scene_lifting 3.3 and 3.4.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from torch import Tensor

_CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], dtype=bool)
_NEIGHBOURS = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx]


def _disk(radius: int) -> np.ndarray:
    """[2r + 1, 2r + 1] bool, the pixels at most `radius` from the middle."""
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    return x * x + y * y <= radius * radius


def erode(mask: Tensor, footprint: Literal["cross"] | int) -> Tensor:
    """A mask [H, W] bool without the pixels from which the footprint reaches outside it.

    footprint: 'cross', a pixel and its four neighbours, or the radius of a disk in pixels. What lies beyond
    the image counts as set, so that the image's border takes nothing away.
    """
    from scipy.ndimage import binary_erosion

    structure = _CROSS if footprint == "cross" else _disk(int(footprint))
    eroded = binary_erosion(mask.cpu().numpy().astype(bool), structure, border_value=1)
    return torch.from_numpy(eroded).to(mask.device)


def dilate_isotropic(mask: Tensor, radius: float) -> Tensor:
    """All pixels at most `radius` pixels from a set one, by Euclidean distance; mask: [H, W] bool."""
    from scipy.ndimage import distance_transform_edt

    pixels = mask.cpu().numpy().astype(bool)
    if not pixels.any():
        return mask.bool().clone()
    return torch.from_numpy(distance_transform_edt(~pixels) <= radius).to(mask.device)


def fill_from_known(values: Tensor, known: Tensor, erosion: int = 0) -> Tensor:
    """Give unknown pixels a value, layer by layer away from the known ones.

    A pixel's layer is its city-block distance to the known pixels; it takes the largest value among those of
    its eight neighbours that lie in lower layers (NaN only if all are NaN), so that at the edges of a depth
    map the background wins. Channels are filled one by one.

    values: [H, W] or [H, W, C]. known: [H, W] bool, first eroded by a disk of `erosion` pixels. Returns the
    values unchanged when nothing is known. Time is linear in the number of pixels.
    """
    from scipy.ndimage import distance_transform_cdt

    known = erode(known, erosion) if erosion else known.bool()
    if not known.any() or known.all():
        return values.clone()
    layer = distance_transform_cdt(~known.cpu().numpy(), metric="taxicab")
    filled = values.detach().cpu().numpy().copy()
    rows, columns = _by_layer(layer)
    ends = np.cumsum(np.bincount(layer[layer > 0]))
    for begin, end in pairwise(ends):
        row, column = rows[begin:end], columns[begin:end]
        filled[row, column] = _largest_below(filled, layer, row, column)
    return torch.from_numpy(filled).to(values.device)


def _by_layer(layer: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the unknown pixels, lower layers first."""
    rows, columns = layer.nonzero()
    order = np.argsort(layer[rows, columns], kind="stable")
    return rows[order], columns[order]


def _largest_below(values: np.ndarray, layer: np.ndarray, row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """The largest value around each of the given pixels, all of one layer, in the layers below it."""
    height, width = layer.shape
    own = layer[row, column]
    largest = np.full((len(row), *values.shape[2:]), np.nan, values.dtype)
    for dy, dx in _NEIGHBOURS:
        y, x = row + dy, column + dx
        inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
        y, x = np.where(inside, y, row), np.where(inside, x, column)  # a pixel is never below itself
        below = np.flatnonzero(layer[y, x] < own)
        largest[below] = np.fmax(largest[below], values[y[below], x[below]])
    return largest


def snap_edges(depth: Tensor, threshold: int = 12, erosion: int = 3) -> Tensor:
    """Give the slopes that a network draws across depth edges the depth of the farther side.

    The depth map [H, W] is stretched to the grey levels 0 to 255; pixels that span `threshold` levels or more
    (`depth_steps`), and those within `erosion` pixels of them, are filled from the others by
    `fill_from_known`. A constant map is returned as it is.
    """
    keep = depth_steps(depth) < threshold
    return fill_from_known(depth, keep, erosion)


def depth_steps(depth: Tensor) -> Tensor:
    """Grey levels (of 256) that a pixel of a depth map [H, W] and its four neighbours span, [H, W] uint8."""
    from scipy.ndimage import maximum_filter, minimum_filter

    values = depth.detach().cpu().numpy()
    low, high = values.min(), values.max()
    if not high > low:
        return torch.zeros_like(depth, dtype=torch.uint8)
    levels = np.round((values - low) / (high - low) * 255).astype(np.uint8)
    span = maximum_filter(levels, footprint=_CROSS, mode="nearest") - minimum_filter(
        levels, footprint=_CROSS, mode="nearest"
    )
    return torch.from_numpy(span).to(depth.device)
