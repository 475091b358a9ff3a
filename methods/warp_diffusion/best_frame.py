"""Which of several samples of one view to show, and where on its square canvas the picture lies.

The rules of the MegaScenes videos (Tung et al. 2024; specs/warp_diffusion 3.1 and 6.3), and beside each the
original's own arithmetic, under a name that says so, for comparison with its published pictures.
"""

from __future__ import annotations

import torch
from torch import Tensor


def best_frame(frames: Tensor, warp: Tensor, coverage: Tensor | None = None) -> int:
    """The sample that agrees best with the warp where the warp shows something.

    frames: [S, 3, H, W], the samples of one view. warp: [3, H, W] in the same unit. coverage: [1, H, W] {0,
    1}, where to compare; None takes the pixels where any channel of the warp is not 0 (its background is
    black). Returns an index into S: the first of the smallest `frame_errors`. Where nothing is covered every
    sample is as good, and 0 is returned.
    """
    return int(frame_errors(frames, warp, coverage).argmin())


def frame_errors(frames: Tensor, warp: Tensor, coverage: Tensor | None = None) -> Tensor:
    """Mean squared difference of each sample to the warp over covered pixels and channels, [S] float64.

    Arguments as in `best_frame`; 0 where nothing is covered. Raises ValueError for unequal shapes.
    """
    covered = _covered(frames, warp, coverage)
    difference = frames.double()[..., covered] - warp.double()[..., covered]
    return _mean(difference.square())


def wrapped_best_frame(frames: Tensor, warp: Tensor) -> int:
    """The original's choice: as `best_frame`, by `wrapped_frame_errors`.

    On the published videos it is the true minimum for 11 of 39 views (specs/warp_diffusion 6.3).
    """
    return int(wrapped_frame_errors(frames, warp).argmin())


def wrapped_frame_errors(frames: Tensor, warp: Tensor) -> Tensor:
    """`frame_errors` as the original computes them: in 8 bits, where differences and squares wrap modulo 256.

    frames: [S, 3, H, W] uint8. warp: [3, H, W] uint8. Returns [S] float64. Raises ValueError for other types
    or unequal shapes.
    """
    if frames.dtype != torch.uint8 or warp.dtype != torch.uint8:
        raise ValueError(f"8-bit images are needed, got {frames.dtype} and {warp.dtype}")
    covered = _covered(frames, warp, None)
    difference = frames[..., covered] - warp[..., covered]
    return _mean((difference * difference).double())


def content_crop(height: int, width: int, canvas: int = 256) -> tuple[slice, slice]:
    """Rows and columns of a square canvas that hold a picture of that size, pasted centred.

    Undoes `dataloader.images.resize_with_padding`. Raises ValueError for a picture larger than the canvas.
    """
    _check_fits(height, width, canvas)
    top, left = (canvas - height) // 2, (canvas - width) // 2
    return slice(top, top + height), slice(left, left + width)


def original_content_crop(height: int, width: int, canvas: int = 256) -> tuple[slice, slice]:
    """`content_crop` as the original does it: for odd padding one row (or column) short, and shifted by one.

    It drops ceil(padding / 2) rows at both ends (columns of an upright picture), and keeps the other
    direction whole (specs/warp_diffusion 3.1). Raises ValueError as `content_crop`.
    """
    _check_fits(height, width, canvas)
    margin = -(-(canvas - min(height, width)) // 2)
    cut, whole = slice(margin, canvas - margin), slice(0, canvas)
    return (whole, cut) if width < height else (cut, whole)


def _check_fits(height: int, width: int, canvas: int) -> None:
    if max(height, width) > canvas:
        raise ValueError(f"a picture of {width}x{height} does not fit a canvas of {canvas}x{canvas}")


def _covered(frames: Tensor, warp: Tensor, coverage: Tensor | None) -> Tensor:
    """Where to compare, [H, W] bool."""
    if frames.shape[1:] != warp.shape:
        raise ValueError(f"frames are {tuple(frames.shape)}, the warp is {tuple(warp.shape)}")
    if coverage is None:
        return (warp != 0).any(0)
    if coverage.shape != (1, *warp.shape[1:]):
        raise ValueError(f"the coverage is {tuple(coverage.shape)}, the warp is {tuple(warp.shape)}")
    return coverage[0] > 0


def _mean(squares: Tensor) -> Tensor:
    """[S, 3, P] -> [S]; 0 for P = 0."""
    return squares.mean((1, 2)) if squares.numel() else squares.new_zeros(len(squares))
