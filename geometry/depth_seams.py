"""A predicted depth map made to agree with the depth that is known, without a step where the latter ends.

The ratio of known to predicted depth is carried into the unknown pixels by a smooth (harmonic) field, as
seamless cloning does with colours (Perez et al. 2003, "Poisson Image Editing", equation 4), in log-depth:
there a network's wrong scale is a constant, and no correction can make a depth negative.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from geometry.depth_edges import dilate_isotropic

_CYCLES, _SWEEPS = 60, 3  # multigrid cycles at most, and relaxations before and after each coarser level
_PRECISION = 1e-4  # of the values' range: a cycle that changes less is the last
_DAMPING = 0.8  # of Jacobi's steps, the factor that smooths best in two dimensions
_RIM = 2.0  # pixels of known depth beside the unknown ones that tell the correction
_WINDOW = 3  # pixels to each side over which a rim pixel's ratio is the median
_SPREADS = 3.0  # robust standard deviations from the median ratio within which ratios are believed
_SLACK = 0.1  # log ratio added to that, so that an exact network's small errors are not clipped


def honour_depth(predicted: Tensor, known: Tensor, reach: float = math.inf) -> Tensor:
    """Keep the known depth, and bend the predicted one to meet it.

    predicted: [H, W] z-depth, positive. known: [H, W] z-depth, 0 where unknown. The unknown pixels get the
    predicted depth times a factor that is harmonic between the rims of the known pixels and free at the
    image's border; on a rim it is the local median ratio of known to predicted depth, clipped at three robust
    standard deviations over all rims, so that a few wrong pixels do not drag what lies beside them along.
    reach: pixels from the known ones at which what the rim says has faded to 1 / e, along half a Gaussian;
    far inside large holes the prediction is then only scaled, by the median ratio over all known pixels.
    Returns [H, W]; the prediction itself where nothing is known.
    """
    there = known > 0
    if there.all() or not there.any():
        return torch.where(there, known, predicted)
    ratio = torch.where(there, known, predicted).log() - predicted.log()
    rim = there & dilate_isotropic(~there, _RIM)
    factor = harmonic(_robust(ratio, there, rim), rim)
    if math.isfinite(reach):
        far = ratio[there].median()
        factor = far + (factor - far) * torch.exp(-((_distances(there) / reach) ** 2))
    return torch.where(there, known, predicted * factor.exp())


def _distances(there: Tensor) -> Tensor:
    """Distance [H, W] of every pixel to the nearest one of a mask, in pixels."""
    from scipy.ndimage import distance_transform_edt

    return torch.from_numpy(distance_transform_edt(~there.cpu().numpy())).to(there.device, torch.float32)


def harmonic(values: Tensor, known: Tensor) -> Tensor:
    """Fill the unknown pixels so that each is the mean of its neighbours; time is linear in the pixels.

    values: [H, W] float. known: [H, W] bool, those kept. Pixels at the image's border are the mean of the
    neighbours that they have, so that nothing pulls there. Solved by multigrid cycles (Briggs et al. 2000, "A
    Multigrid Tutorial"), to about a thousandth of the values' range. Unchanged if nothing is known.
    """
    if not known.any() or known.all():
        return values.clone()
    filled = torch.where(known, values, values[known].mean())
    low, high = values[known].min(), values[known].max()
    for _ in range(_CYCLES):
        change = _cycle(-_laplace(filled), known)
        filled = filled + change
        if change.abs().max() <= _PRECISION * (high - low):
            break
    return torch.where(known, values, filled.clamp(low, high))  # as every harmonic function is


def _laplace(x: Tensor) -> Tensor:
    """Sum of the differences of each pixel [H, W] to the neighbours that it has."""
    total = torch.zeros_like(x)
    down, right = x[1:] - x[:-1], x[:, 1:] - x[:, :-1]
    total[1:] += down
    total[:-1] -= down
    total[:, 1:] += right
    total[:, :-1] -= right
    return total


def _cycle(residual: Tensor, fixed: Tensor) -> Tensor:
    """About the x with _laplace(x) = residual that is 0 where fixed: smooth, correct at half size, smooth."""
    height, width = residual.shape
    residual = residual.masked_fill(fixed, 0.0)
    x = _smooth(torch.zeros_like(residual), residual, fixed)
    if max(height, width) > 2:
        left = (residual - _laplace(x)).masked_fill(fixed, 0.0)
        small, anchored = _halved(left), _halved(fixed.to(x)) > 0
        rough = interpolate(_cycle(small, anchored)[None, None], scale_factor=2, mode="bilinear")[0, 0]
        x = x + rough[:height, :width].masked_fill(fixed, 0.0)
    return _smooth(x, residual, fixed)


def _halved(x: Tensor) -> Tensor:
    """Sums over 2x2 pixels: [H, W] -> [ceil(H / 2), ceil(W / 2)]."""
    total = x[::2, ::2].clone()
    total[: x.shape[0] // 2] += x[1::2, ::2]
    total[:, : x.shape[1] // 2] += x[::2, 1::2]
    total[: x.shape[0] // 2, : x.shape[1] // 2] += x[1::2, 1::2]
    return total


def _smooth(x: Tensor, residual: Tensor, fixed: Tensor) -> Tensor:
    """A few damped Jacobi steps."""
    for _ in range(_SWEEPS):
        x = x + (_DAMPING / 4) * (residual - _laplace(x)).masked_fill(fixed, 0.0)
    return x


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
