"""Dense depth of one view from its neighbours: a multi-view plane sweep with patch correlation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from geometry.stereo.semi_global import aggregate
from geometry.views import Views

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
_CLOSE = 1e-6  # depth in a source, relative to that in the reference, below which a point is behind it


@dataclass(frozen=True)
class SweepOptions:
    """How depth is searched.

    planes: number of depth hypotheses. patch: side of the correlation window in pixels, odd. best: how many
    source views count per pixel and plane: those that match best, so that views in which the point is hidden
    do not. step_penalty, jump_penalty: of `aggregate`, in units of the cost. noise: standard deviation of the
    images' noise; patches with less contrast count as plain. chunk: planes worked on at a time; small ones
    stay in a processor's cache, large ones fill a GPU.
    """

    planes: int = 96
    patch: int = 7
    best: int = 3
    step_penalty: float = 0.2
    jump_penalty: float = 1.0
    noise: float = 0.002
    chunk: int = 4


def inverse_depth_planes(near: float, far: float, count: int) -> Tensor:
    """[count] float64 depths from near to far, evenly spaced in inverse depth (about evenly in the images).

    Raises ValueError unless 0 < near < far and count >= 3.
    """
    if not 0 < near < far or count < 3:
        raise ValueError(f"need 0 < near < far and at least 3 planes, got {near}, {far}, {count}")
    return 1 / torch.linspace(1 / near, 1 / far, count, dtype=torch.float64)


def sweep(
    reference: Views, sources: Sequence[Views], near: float, far: float, options: SweepOptions
) -> Tensor:
    """z-depth [H, W] float32 of a reference view.

    reference: a single view; sources: at least one single view, of any size, on the same device. near, far:
    depth range searched. Every pixel gets a depth; `fusion.count_agreeing` tells which to trust.
    Raises ValueError for an empty range or no sources.
    """
    planes = inverse_depth_planes(near, far, options.planes).to(reference.images.device)
    cost = matching_cost(reference, sources, planes, options)
    smooth = aggregate(cost, options.step_penalty, options.jump_penalty)
    position = _refine(smooth, smooth.argmin(0)).double()
    first, last = 1 / planes[0], 1 / planes[-1]
    return (1 / (first + (last - first) * position / (len(planes) - 1))).float()


def matching_cost(
    reference: Views, sources: Sequence[Views], planes: Tensor, options: SweepOptions
) -> Tensor:
    """[D, H, W] float32 cost of each plane parallel to the image: the mean of the `best` lowest 1 - NCC.

    planes: [D] depths. NCC is the zero-mean normalised cross-correlation of luma over patch x patch windows,
    blind to exposure and contrast; the cost lies in [0, 2]. Where no source sees the point it is 1, that of
    no correlation. Raises ValueError when there are no sources.
    """
    if not sources:
        raise ValueError("a plane sweep needs at least one source view")
    target = _Window.of(_luma(reference)[None, None], options)
    prepared = [_Source.of(reference, source) for source in sources]
    kept = min(options.best, len(sources))
    chunks = []
    for depths in planes.split(options.chunk):
        costs = torch.stack([_pair_cost(target, source, depths, options) for source in prepared])
        lowest = costs.topk(kept, dim=0, largest=False).values  # [k, d, H, W]
        seen = lowest.isfinite()
        mean = torch.where(seen, lowest, 0).sum(0) / seen.sum(0).clamp(min=1)
        chunks.append(torch.where(seen.any(0), mean, 1.0))
    return torch.cat(chunks)


@dataclass
class _Window:
    """Images [N, 1, H, W] with the mean and variance of their windows."""

    image: Tensor
    mean: Tensor
    variance: Tensor

    @classmethod
    def of(cls, image: Tensor, options: SweepOptions) -> _Window:
        mean = _box(image, options.patch)
        variance = (_box(image * image, options.patch) - mean * mean).clamp(min=0)
        return cls(image, mean, variance + options.noise**2)


def _box(image: Tensor, size: int) -> Tensor:
    """Mean over size x size windows of [N, 1, H, W]; the border is repeated outwards.

    Shifted sums: exact where running sums would cancel, and several times faster than pooling on a CPU.
    """
    half = size // 2
    height, width = image.shape[-2:]
    padded = torch.nn.functional.pad(image, (half, half, half, half), mode="replicate")
    rows = padded[..., :height, :].clone()
    for k in range(1, size):
        rows += padded[..., k : k + height, :]
    total = rows[..., :width].clone()
    for k in range(1, size):
        total += rows[..., k : k + width]
    return total / size**2


def _luma(view: Views) -> Tensor:
    """[H, W] luma, shifted to mean zero so that variances lose no digits."""
    luma = (view.images * view.images.new_tensor(_LUMA)[:, None, None]).sum(0)
    return luma - luma.mean()


@dataclass
class _Source:
    """A source image [1, 1, h, w], and where the reference's pixels fall in it.

    A point at depth z of reference pixel p projects to rays[:, p] + shift / z, in homogeneous coordinates
    that run from -1 to 1 over the source's width and height. rays: [3, H, W]; shift: [3].
    """

    image: Tensor
    rays: Tensor
    shift: Tensor

    @classmethod
    def of(cls, reference: Views, source: Views) -> _Source:
        camera, other = reference.cameras.to(torch.float64), source.cameras.to(torch.float64)
        unit = torch.tensor([[2 / other.width, 0, -1], [0, 2 / other.height, -1], [0, 0, 1]]).to(other.K)
        relative = other.w2c @ camera.c2w
        pixels = torch.nn.functional.pad(camera.pixel_centers(), (0, 1), value=1.0)  # [H, W, 3]
        rotation = unit @ other.K @ relative[:3, :3] @ torch.linalg.inv(camera.K)
        rays = (pixels @ rotation.T).permute(2, 0, 1).float().contiguous()
        return cls(_luma(source)[None, None], rays, (unit @ other.K @ relative[:3, 3]).float())

    def grid(self, depths: Tensor) -> tuple[Tensor, Tensor]:
        """Sampling positions [d, H, W, 2] at depths [d], and which lie before the source and inside it."""
        offset = self.shift[:, None] / depths.float()  # [3, d]
        z = self.rays[2] + offset[2, :, None, None]
        front = z > _CLOSE
        scale = 1 / z.clamp_(min=_CLOSE)
        x = (self.rays[0] + offset[0, :, None, None]).mul_(scale)
        y = (self.rays[1] + offset[1, :, None, None]).mul_(scale)
        return torch.stack([x, y], -1), front & (x.abs() <= 1) & (y.abs() <= 1)


def _pair_cost(target: _Window, source: _Source, depths: Tensor, options: SweepOptions) -> Tensor:
    """[d, H, W] 1 - NCC of one source at each depth; infinite where the plane falls outside the source."""
    grid, inside = source.grid(depths)
    image = source.image.expand(len(depths), -1, -1, -1)
    warped = torch.nn.functional.grid_sample(image, grid, padding_mode="border", align_corners=False)
    window = _Window.of(warped, options)
    covariance = _box(target.image * warped, options.patch) - target.mean * window.mean
    correlation = covariance / (target.variance * window.variance).sqrt()
    return torch.where(inside, 1 - correlation[:, 0], torch.inf).clamp(min=0)


def _refine(cost: Tensor, index: Tensor) -> Tensor:
    """[H, W] positions between planes: vertices of the parabolas through the minima `index` of [D, H, W]."""
    inner = index.clamp(1, len(cost) - 2)
    left, middle, right = (cost.gather(0, (inner + k)[None])[0] for k in (-1, 0, 1))
    curvature = left - 2 * middle + right
    offset = torch.where(curvature > 1e-6, (left - right) / (2 * curvature.clamp(min=1e-6)), 0)
    return torch.where(index == inner, index + offset.clamp(-0.5, 0.5), index.to(cost.dtype))
