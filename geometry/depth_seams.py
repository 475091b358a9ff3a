"""A predicted depth map made to agree with the depth that is known, without a step where the latter ends.

The ratio of known to predicted depth is carried into the unknown pixels by a smooth (harmonic) field, as
seamless cloning does with colours (Perez et al. 2003, "Poisson Image Editing", equation 4), in log-depth:
there a network's wrong scale is a constant, and no correction can make a depth negative.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, pad

from geometry.depth_edges import dilate_isotropic

_SWEEPS = 24  # relaxations per level; each level starts from a solution at half its size
_RIM = 2.0  # pixels of known depth beside the unknown ones that tell the correction
_WINDOW = 3  # pixels to each side over which a rim pixel's ratio is the median
_SPREADS = 3.0  # robust standard deviations from the median ratio within which ratios are believed
_SLACK = 0.1  # log ratio added to that, so that an exact network's small errors are not clipped


def honour_depth(predicted: Tensor, known: Tensor) -> Tensor:
    """Keep the known depth, and bend the predicted one to meet it.

    predicted: [H, W] z-depth, positive. known: [H, W] z-depth, 0 where unknown. The unknown pixels get the
    predicted depth times a factor that is harmonic between the rims of the known pixels and free at the
    image's border; on a rim it is the local median ratio of known to predicted depth, clipped at three robust
    standard deviations over all rims, so that a few wrong pixels do not drag what lies beside them along.
    Returns [H, W]; the prediction itself where nothing is known.
    """
    there = known > 0
    if there.all() or not there.any():
        return torch.where(there, known, predicted)
    ratio = torch.where(there, known, predicted).log() - predicted.log()
    rim = there & dilate_isotropic(~there, _RIM)
    factor = harmonic(_robust(ratio, there, rim), rim)
    return torch.where(there, known, predicted * factor.exp())


def harmonic(values: Tensor, known: Tensor) -> Tensor:
    """Fill the unknown pixels so that each is the mean of its four neighbours; time is linear in the pixels.

    values: [H, W] float. known: [H, W] bool, those kept. At the image's border the missing neighbours count
    as equal to the pixel (no slope across the border). Solved from a coarse image to the full one (cascadic
    multigrid), which leaves errors of about a hundredth of the values' range. Unchanged if none is known.
    """
    if not known.any() or known.all():
        return values.clone()
    return _relax(values, known)


def _relax(values: Tensor, known: Tensor) -> Tensor:
    """`harmonic` where at least one pixel is known."""
    height, width = values.shape
    if max(height, width) > 2:
        coarse, there = _halve(values, known)
        start = interpolate(_relax(coarse, there)[None, None], size=(height, width), mode="bilinear")[0, 0]
    else:
        start = values[known].mean().expand(height, width)
    filled = torch.where(known, values, start)
    for _ in range(_SWEEPS):
        ring = pad(filled[None, None], (1, 1, 1, 1), mode="replicate")[0, 0]
        mean = (ring[:-2, 1:-1] + ring[2:, 1:-1] + ring[1:-1, :-2] + ring[1:-1, 2:]) / 4
        filled = torch.where(known, values, mean)
    return filled


def _halve(values: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Half the image: means of the known among each 2x2 pixels, and whether there is any."""
    weight = known.to(values)[None, None]
    odd = (0, values.shape[1] % 2, 0, values.shape[0] % 2)
    total = avg_pool2d(pad(values[None, None] * weight, odd), 2)[0, 0]
    weight = avg_pool2d(pad(weight, odd), 2)[0, 0]
    return torch.where(weight > 0, total / weight.clamp(min=1e-9), 0.0), weight > 0


def _robust(ratio: Tensor, there: Tensor, rim: Tensor) -> Tensor:
    """Ratios [H, W] on the rim: local medians over known pixels, clipped at what is usual on all rims."""
    row, column = rim.nonzero(as_tuple=True)
    side = 2 * _WINDOW + 1
    blank = torch.where(there, ratio, torch.nan)
    framed = pad(blank[None, None], (_WINDOW,) * 4, value=torch.nan)[0, 0]
    window = framed.unfold(0, side, 1).unfold(1, side, 1)[row, column]  # [R, side, side]
    local = window.flatten(1).nanmedian(1).values
    middle = local.median()
    reach = _SPREADS * 1.4826 * (local - middle).abs().median() + _SLACK
    robust = torch.zeros_like(ratio)
    robust[row, column] = local.clamp(middle - reach, middle + reach)
    return robust
