"""Monocular disparity maps brought to the units of a structure-from-motion model.

A network's disparity is right up to scale and shift, so that 1 / z = scale * disparity + shift for the depths
z of the sparse points that the photo sees. Their fit withstands outliers: least median of squares over random
pairs of points (Rousseeuw 1984), then iteratively reweighted least squares (Tukey's biweight).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.errors import UserError

MIN_POINTS = 10  # seen by a photo
NEAREST, FARTHEST = 1e-3, 1e3  # to which depths are clamped, units of the model (specs/warp_diffusion 4.3)
_DRAWS = 500  # pairs of points: with half of the points wrong, all are spoilt with probability 1e-62
_REFINEMENTS = 20
_MAD = 1.4826  # median absolute deviation -> standard deviation, for normal errors
_TUKEY = 4.685  # standard deviations beyond which a point counts no more (95 % efficiency)


@dataclass(frozen=True)
class DisparityFit:
    """1 / z = scale * disparity + shift. inliers: fraction of the points that the fit relies on. points: how
    many there were.
    """

    scale: float
    shift: float
    inliers: float
    points: int

    def depth(self, disparity: NDArray[np.floating]) -> NDArray[np.float32]:
        """Z-depth of disparities, in units of the model, clamped to [0.001, 1000]; sky is at 1000."""
        inverse = self.scale * disparity.astype(np.float64) + self.shift
        return (1 / np.clip(inverse, 1 / FARTHEST, 1 / NEAREST)).astype(np.float32)


def fit_disparity(
    disparity: NDArray[np.floating], depth: NDArray[np.floating], name: str, seed: int = 0
) -> DisparityFit:
    """Fit scale and shift to disparities [T] and depths [T] of sparse points; deterministic.

    name: of the photo, for messages. Raises UserError when too few points have finite disparity and positive
    depth, when all disparities are equal, or when nearness falls with disparity.
    """
    usable = np.isfinite(disparity) & np.isfinite(depth) & (depth > 0)
    x, y = disparity[usable].astype(np.float64), 1 / depth[usable].astype(np.float64)
    if len(x) < MIN_POINTS:
        raise UserError(f"{name} sees {len(x)} sparse points, aligning its depth takes {MIN_POINTS}")
    if np.ptp(x) == 0:
        raise UserError(f"{name}: the disparity is the same at all sparse points: is it the right map?")
    scale, shift = _least_median(x, y, np.random.default_rng(seed))
    weights = np.ones_like(x)
    for _ in range(_REFINEMENTS):
        weights = _tukey(y - scale * x - shift)
        if np.ptp(x[weights > 0]) == 0:
            break
        scale, shift = np.polyfit(x, y, 1, w=np.sqrt(weights))
    if scale <= 0:
        raise UserError(
            f"{name}: depth falls where disparity does (scale {scale:.3g}): give disparity, "
            "large where near, and check that map and photo belong together"
        )
    return DisparityFit(float(scale), float(shift), float((weights > 0).mean()), len(x))


def _least_median(
    x: NDArray[np.float64], y: NDArray[np.float64], rng: np.random.Generator
) -> tuple[float, float]:
    """The line through two of the points with the smallest median of squared errors."""
    first, second = rng.integers(0, len(x), (2, _DRAWS))
    run = x[second] - x[first]
    first, second, run = first[run != 0], second[run != 0], run[run != 0]
    if not len(run):  # almost all disparities are equal
        return float(np.polyfit(x, y, 1)[0]), float(np.polyfit(x, y, 1)[1])
    slopes = (y[second] - y[first]) / run
    shifts = y[first] - slopes * x[first]
    sample = rng.permutation(len(x))[:2000]  # the median of so many is as good as that of all
    errors = np.median(np.abs(y[sample] - slopes[:, None] * x[sample] - shifts[:, None]), axis=1)
    best = int(errors.argmin())
    return float(slopes[best]), float(shifts[best])


def _tukey(error: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights in [0, 1] of errors, 0 for outliers."""
    spread = _MAD * float(np.median(np.abs(error)))
    reach = _TUKEY * max(spread, 1e-12 * float(np.abs(error).max()) + 1e-300)
    return np.square(np.clip(1 - np.square(error / reach), 0, None))


def sample_map(values: NDArray[np.floating], xy: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bilinear samples [T] of a map [h, w] at positions [T, 2] in [0, 1] of width and height; NaN outside."""
    height, width = values.shape
    inside = ((xy >= 0) & (xy <= 1)).all(1)
    x = np.clip(xy[:, 0] * width - 0.5, 0, width - 1)
    y = np.clip(xy[:, 1] * height - 0.5, 0, height - 1)
    left, top = x.astype(int), y.astype(int)
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    fx, fy = x - left, y - top
    upper = values[top, left] * (1 - fx) + values[top, right] * fx
    lower = values[bottom, left] * (1 - fx) + values[bottom, right] * fx
    return np.where(inside, upper * (1 - fy) + lower * fy, np.nan)
