"""Where the target camera stands relative to the source, as the numbers that the diffusion models were
trained with (specs/warp_diffusion 3.2).

All functions take cameras [...] of one batch shape, work in float64 and return float32.
"""

from __future__ import annotations

import torch
from torch import Tensor

from geometry.cameras import Cameras

SMALLEST_SCALE = 1e-7  # of MegaScenes: smaller scales count as this
ZERONVS_SMALLEST_SCALE = 1e-2
_ZERONVS_REACH = 10.0  # translations far beyond this many units of scale are squashed
_ZERONVS_BOUND = 5.0  # what they are squashed to


def diagonal_fov(cameras: Cameras) -> Tensor:
    """[...] radians (float64) that the image diagonal spans: 2 atan(sqrt(w^2 + h^2) / (2 fx)).

    It does not change when the image is resized.
    """
    diagonal = (cameras.height**2 + cameras.width**2) ** 0.5
    return 2 * torch.atan(diagonal / (2 * cameras.focal[..., 0].double()))


def relative_pose(source: Cameras, target: Cameras, scale: Tensor | float) -> Tensor:
    """[..., 19] of MegaScenes: the 16 entries of inv(source c2w) @ target c2w, row by row, with translations
    in units of `scale`, then field of view of the target, its sine and its cosine.

    scale: [...] world units, the 20th percentile of the source's depth; at least 1e-7.
    """
    transform = _between(source, target)
    transform[..., :3, 3] /= _scale(scale, transform, SMALLEST_SCALE)[..., None]
    return _with_fov(transform, target)


def zeronvs_pose(source: Cameras, target: Cameras, scale: Tensor | float) -> Tensor:
    """[..., 19] as ZeroNVS itself was trained: as `relative_pose`, but translations t (in units of `scale`,
    at least 0.01) are squashed to 5 tanh(t / 10), about half of t where t is small.

    Translations that are not a number count as 0, infinite ones as 10.
    """
    transform = _between(source, target)
    moved = transform[..., :3, 3] / _scale(scale, transform, ZERONVS_SMALLEST_SCALE)[..., None]
    moved = moved.nan_to_num(0.0, posinf=_ZERONVS_REACH, neginf=-_ZERONVS_REACH)
    transform[..., :3, 3] = _ZERONVS_BOUND * torch.tanh(moved / _ZERONVS_REACH)
    return _with_fov(transform, target)


def zero123_pose(source: Cameras, target: Cameras, scale: Tensor | float) -> Tensor:
    """[..., 4] of Zero-1-to-3: differences of the camera centres' spherical coordinates about the world's
    origin: polar angle from z, sine and cosine of the azimuth, and radius in units of `scale`.

    Unlike the others it depends on where the world's origin is.
    """
    polar, azimuth, radius = (
        there - here for here, there in zip(_spherical(source.center), _spherical(target.center), strict=True)
    )
    radius = radius / _scale(scale, target.c2w, SMALLEST_SCALE)
    return torch.stack([polar, azimuth.sin(), azimuth.cos(), radius], dim=-1).float()


def _between(source: Cameras, target: Cameras) -> Tensor:
    """The target's pose [..., 4, 4] in the frame of the source, float64."""
    return target.to(torch.float64).relative_to(source.to(torch.float64)).c2w


def _scale(scale: Tensor | float, like: Tensor, smallest: float) -> Tensor:
    return torch.as_tensor(scale, dtype=torch.float64, device=like.device).clamp(min=smallest)


def _with_fov(transform: Tensor, target: Cameras) -> Tensor:
    """[..., 19] float32 from poses [..., 4, 4] and the cameras whose field of view is told."""
    fov = diagonal_fov(target)
    angles = torch.stack([fov, fov.sin(), fov.cos()], dim=-1)
    return torch.cat([transform.flatten(-2), angles], dim=-1).float()


def _spherical(center: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Polar angle, azimuth and radius, each [...] float64, of points [..., 3]."""
    x, y, z = center.double().unbind(-1)
    return torch.atan2(torch.hypot(x, y), z), torch.atan2(y, x), center.double().norm(dim=-1)
