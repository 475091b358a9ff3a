"""Scale and offset that bring one depth map to another: closed form, robust, or as Invisible Stitch finds
them (specs/scene_lifting 6).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from geometry.cameras import Cameras

_ROUNDS = 50  # reweightings of the robust fit; a few bring all but the last digits
_SETTLED = 1e-12  # relative change of the fit below which it has converged
# the original's descent (specs/scene_lifting 6)
_RATE, _STEPS, _GAIN, _PATIENCE = 1e-2, 100, 1e-5, 10


@dataclass(frozen=True)
class DepthFit:
    """depth -> scale * depth + offset; the offset in units of the depth."""

    scale: float
    offset: float

    def __call__(self, depth: Tensor) -> Tensor:
        """The aligned depth, of any shape."""
        return self.scale * depth + self.offset


def fit_least_squares(
    depth: Tensor, target: Tensor, known: Tensor, weights: Tensor | None = None
) -> DepthFit:
    """The fit with the smallest (weighted) sum of squared errors over the known pixels, in closed form.

    depth, target: of one shape. known: bool, likewise. weights: positive, likewise. A depth that is the same
    at all known pixels is shifted only. Raises ValueError when no pixel is known.
    """
    x, y = _chosen(depth, target, known)
    weight = torch.ones_like(x) if weights is None else weights[known].double()
    return _weighted_line(x, y, weight)


def fit_robust(depth: Tensor, target: Tensor, known: Tensor) -> DepthFit:
    """The fit with the smallest sum of absolute errors over the known pixels; arguments as above.

    Iteratively reweighted least squares from the closed form: deterministic, and few wrong pixels hardly
    move it. Raises ValueError when no pixel is known.
    """
    x, y = _chosen(depth, target, known)
    fit = _weighted_line(x, y, torch.ones_like(x))
    least = 1e-9 * float(y.abs().max().clamp(min=1e-300))  # errors below count alike
    for _ in range(_ROUNDS):
        before, errors = fit, (fit(x) - y).abs()
        fit = _weighted_line(x, y, 1 / errors.clamp(min=least))
        change = max(abs(fit.scale - before.scale), abs(fit.offset - before.offset))
        if change <= _SETTLED * max(abs(fit.scale), abs(fit.offset)):
            break
    return fit


def _chosen(depth: Tensor, target: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    if not known.any():
        raise ValueError("no known pixel to align depth to")
    return depth[known].double(), target[known].double()


def _weighted_line(x: Tensor, y: Tensor, weight: Tensor) -> DepthFit:
    """The weighted least-squares line through points x, y [N] float64."""
    total = weight.sum()
    middle, goal = (weight * x).sum() / total, (weight * y).sum() / total
    spread = (weight * (x - middle) ** 2).sum() / total
    constant = spread <= (1e-12 * middle.abs().clamp(min=1e-150)) ** 2
    scale = 1.0 if constant else float((weight * (x - middle) * (y - goal)).sum() / total / spread)
    return DepthFit(scale, float(goal - scale * middle))


def fit_descent(depth: Tensor, target: Tensor, known: Tensor, camera: Cameras, offset: float) -> DepthFit:
    """The original's fit: gradient descent on the mean absolute difference of unprojected world points.

    Adam at a rate of 0.01 from scale 1 and the given offset, up to 100 steps; it gives up after more than 10
    steps in a row that gain less than 1e-5 (specs/scene_lifting 6). depth, target: [H, W] z-depth. known:
    [H, W] bool. camera: single. Where no pixel is known, it stays where it starts.
    """
    # points of equal rays differ by the difference in depth times the ray, wherever the camera stands
    rays = camera.rays(unit=False)[1].to(depth.dtype)[known].abs().mean(-1)  # [P]
    x, y = depth[known], target[known]
    scale, shift = (
        torch.tensor(value, dtype=depth.dtype, device=depth.device, requires_grad=True)
        for value in (1.0, offset)
    )
    optimizer = torch.optim.Adam([scale, shift], lr=_RATE)
    best, idle = torch.inf, 0
    with torch.enable_grad():
        for _ in range(_STEPS):
            loss = ((scale * x + shift - y).abs() * rays).mean()
            idle = idle + 1 if best - loss.item() < _GAIN else 0
            if idle > _PATIENCE:
                break
            best = min(best, loss.item())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return DepthFit(scale.item(), shift.item())
