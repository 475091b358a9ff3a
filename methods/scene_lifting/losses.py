"""What depth completion is trained on (specs/scene_lifting 5)."""

from __future__ import annotations

import torch
from torch import Tensor

from methods.scene_lifting.config import LossConfig

_ALPHA = 1e-7  # keeps the logarithm of a depth of 0 finite
_BETA = 0.15  # weight of the mean's square beside the variance


def losses(
    predicted: Tensor, depth: Tensor, valid: Tensor, masked_depth: Tensor, weights: LossConfig
) -> dict[str, Tensor]:
    """The terms that have a weight, and their weighted sum 'loss'.

    predicted: [B, 1, h, w], resized to the others' size (bilinear, corners aligned). depth: [B, 1, H, W]
    true. valid: [B, 1, H, W] {0, 1}, where it counts. masked_depth: [B, 1, H, W], what the network was given
    of it, 0 elsewhere.
    """
    predicted = resize(predicted, depth.shape[-2:])
    mask = valid > 0
    terms = {
        "silog": (weights.silog, lambda: silog(predicted, depth, mask)),
        "sparse": (weights.sparse, lambda: sparse_error(predicted, depth, masked_depth != 0)),
        "gradient": (weights.gradient, lambda: gradient_error(predicted, depth, mask)),
        "invariant": (weights.invariant, lambda: invariant_error(predicted, depth, mask)),
    }
    found = {name: term() for name, (weight, term) in terms.items() if weight}
    total = sum((terms[name][0] * value for name, value in found.items()), predicted.new_zeros(()))
    return {"loss": total, **found}


def resize(depth: Tensor, size: tuple[int, ...]) -> Tensor:
    """Depth [B, 1, h, w] at another size: bilinear, corners aligned, as in the network."""
    return torch.nn.functional.interpolate(depth, size, mode="bilinear", align_corners=True)


def silog(predicted: Tensor, depth: Tensor, mask: Tensor) -> Tensor:
    """Scale-invariant logarithmic error over all masked pixels of a batch (Eigen et al. 2014; ZoeDepth).

    10 sqrt(Var(g) + 0.15 Mean(g)^2), g = log predicted - log depth; unbiased variance.
    """
    logs = torch.log(predicted[mask] + _ALPHA) - torch.log(depth[mask] + _ALPHA)
    return 10 * torch.sqrt(logs.var() + _BETA * logs.mean() ** 2)


def sparse_error(predicted: Tensor, depth: Tensor, given: Tensor) -> Tensor:
    """Squared error where depth was given, averaged over ALL pixels; in squared units of depth."""
    return (given * (predicted - depth) ** 2).mean()


def gradient_error(predicted: Tensor, depth: Tensor, mask: Tensor) -> Tensor:
    """Mean absolute difference of squared gradient lengths plus that of gradient angles."""
    inner = mask[..., 1:, 1:] & mask[..., 1:, :-1] & mask[..., :-1, 1:]
    (ours, our_angle), (true, true_angle) = _gradient(predicted), _gradient(depth)
    return (ours - true)[inner].abs().mean() + (our_angle - true_angle)[inner].abs().mean()


def _gradient(depth: Tensor) -> tuple[Tensor, Tensor]:
    """Squared length and angle of the forward differences, one row and column smaller."""
    across = depth[..., 1:, 1:] - depth[..., 1:, :-1]
    down = depth[..., 1:, 1:] - depth[..., :-1, 1:]
    return across**2 + down**2, torch.atan(down / (across + 1e-10))


def scale_and_shift(predicted: Tensor, depth: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Per image, the scale [B] and shift [B] that bring predictions [B, 1, H, W] closest to the depth.

    Least squares over the mask; both 0 where it has no two different values.
    """
    weight, x, y = (t.to(predicted.dtype).flatten(1) for t in (mask, predicted, depth))
    xx, xs, ones = (weight * x * x).sum(1), (weight * x).sum(1), weight.sum(1)
    xy, ys = (weight * x * y).sum(1), (weight * y).sum(1)
    determinant = xx * ones - xs * xs
    known = determinant > 0
    divisor = torch.where(known, determinant, torch.ones_like(determinant))
    scale = torch.where(known, (ones * xy - xs * ys) / divisor, torch.zeros_like(xx))
    shift = torch.where(known, (xx * ys - xs * xy) / divisor, torch.zeros_like(xx))
    return scale, shift


def invariant_error(predicted: Tensor, depth: Tensor, mask: Tensor) -> Tensor:
    """Mean absolute error over the mask once each image is scaled and shifted to its true depth."""
    scale, shift = scale_and_shift(predicted, depth, mask)
    aligned = scale[:, None, None, None] * predicted + shift[:, None, None, None]
    return (aligned - depth)[mask].abs().mean()
