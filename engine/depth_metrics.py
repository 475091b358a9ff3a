"""Depth scores of the scene-lifting benchmarks: of hidden pixels, and the original's validation metrics."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from engine.metrics import check_mask

Crop = Literal["none", "eigen", "garg", "eigen_kitti"]

# rows and columns that count: in pixels of 480x640, or as fractions of the height and the width
_EIGEN = (45, 471, 41, 601)
_FRACTIONS = {
    "garg": (0.40810811, 0.99189189, 0.03594771, 0.96405229),  # Garg et al. 2016
    "eigen_kitti": (0.3324324, 0.91351351, 0.0359477, 0.96405229),  # Eigen et al. 2014
}


def hidden_scores(depth: Tensor, target: Tensor, hidden: Tensor) -> dict[str, float]:
    """Errors of a completed depth on the pixels that nothing was known of.

    depth, target: [1, 1, H, W] z-depth; 0 in `depth` means no answer and is scored as such, 0 in `target`
    may not be hidden. hidden: [1, 1, H, W] {0, 1}. Returns mae and rmse in the depth's unit, abs_rel, delta1
    (share within a factor of 1.25) and answered (share with a positive depth). Raises ValueError when there
    is no hidden pixel, or one of unknown depth.
    """
    chosen = check_mask(hidden) > 0
    predicted, true = depth[chosen].double(), target[chosen].double()
    if true.numel() == 0:
        raise ValueError("no hidden pixel to score depth on")
    if true.min() <= 0:
        raise ValueError("a hidden pixel has no true depth")
    error = (predicted - true).abs()
    within = (predicted > true / 1.25) & (predicted < 1.25 * true)
    scores = {
        "mae": error.mean(),
        "rmse": (error**2).mean().sqrt(),
        "abs_rel": (error / true).mean(),
        "delta1": within.double().mean(),
        "answered": (predicted > 0).double().mean(),
    }
    return {name: float(value) for name, value in scores.items()}


def crop_mask(height: int, width: int, crop: Crop) -> Tensor:
    """[H, W] bool, the pixels that an evaluation crop keeps."""
    mask = torch.zeros(height, width, dtype=torch.bool)
    if crop == "none":
        return ~mask
    if crop == "eigen":
        top, bottom, left, right = _EIGEN
    else:
        shares = _FRACTIONS[crop]
        top, bottom = (int(share * height) for share in shares[:2])
        left, right = (int(share * width) for share in shares[2:])
    mask[top:bottom, left:right] = True
    return mask


def validation_scores(
    depth: Tensor, target: Tensor, crop: Crop = "none", nearest: float = 1e-3, farthest: float = 10.0
) -> dict[str, float]:
    """The depth metrics that the original validates with (specs/scene_lifting 5; Eigen et al. 2014).

    depth: [1, 1, h, w] in any size, resized to the target's (bilinear, corners aligned). target: [1, 1, H,
    W]. Predictions are clamped to [nearest, farthest], infinite ones count as the farthest, nan as the
    nearest; pixels count whose true depth lies strictly between the two, inside the crop. Returns a1, a2, a3
    (shares within a factor of 1.25^k), abs_rel, sq_rel, rmse, rmse_log, log_10 and silog (x 100). Raises
    ValueError when no pixel counts.
    """
    if depth.shape[-2:] != target.shape[-2:]:
        depth = torch.nn.functional.interpolate(depth, target.shape[-2:], mode="bilinear", align_corners=True)
    depth = depth.nan_to_num(nan=nearest, posinf=farthest, neginf=nearest).clamp(nearest, farthest)
    counts = (target > nearest) & (target < farthest)
    counts &= crop_mask(target.shape[-2], target.shape[-1], crop).to(target.device)
    if not counts.any():
        raise ValueError("no pixel to score depth on")
    predicted, true = depth[counts].double(), target[counts].double()
    ratio, difference = torch.maximum(predicted / true, true / predicted), predicted - true
    logs = predicted.log() - true.log()
    scores = {
        **{f"a{k}": (ratio < 1.25**k).double().mean() for k in (1, 2, 3)},
        "abs_rel": (difference.abs() / true).mean(),
        "sq_rel": (difference**2 / true).mean(),
        "rmse": (difference**2).mean().sqrt(),
        "rmse_log": (logs**2).mean().sqrt(),
        "log_10": (predicted.log10() - true.log10()).abs().mean(),
        "silog": 100 * ((logs**2).mean() - logs.mean() ** 2).clamp(min=0).sqrt(),
    }
    return {name: float(value) for name, value in scores.items()}
