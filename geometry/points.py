"""Coloured points seen by a camera: every point is a small disc that faces it.

Point rasterisation as the scenes of specs/scene_lifting 3.3 and the benchmarks of its section 6 need it.
"""

from __future__ import annotations

import importlib.util
import math
from typing import Literal, get_args

import torch
from torch import Tensor

from common.errors import UserError
from geometry.cameras import Cameras
from geometry.views import Rendering

Weights = Literal["hard", "soft", "legacy"]
Backend = Literal["auto", "torch", "numba", "pytorch3d"]
_AT_ONCE = 1 << 22  # (point, pixel) pairs held in memory together


def ndc_radius(radius: float, camera: Cameras) -> float:
    """A radius in PyTorch3D's normalised coordinates, whose short side spans [-1, 1], in pixels."""
    return radius * min(camera.height, camera.width) / 2


@torch.no_grad()
def splat(
    points: Tensor,
    colors: Tensor | None,
    camera: Cameras,
    radius: float = 1.0,
    weights: Weights = "hard",
    per_pixel: int = 16,
    backend: Backend = "auto",
) -> Rendering:
    """Render points [P, 3] (world) with colours [P, C] for a single camera.

    A point in front of the camera hits the pixels whose centres lie closer than `radius` pixels to its
    projection. hard: the nearest point wins, of equally near ones the first. soft: a point weighs
    1 - d^2 / radius^2, and the nearest `per_pixel` ones are composited front to back and divided by the sum
    of their weights. legacy: as soft without that division, so that pixels with weak hits are dark and too
    near (the original's benchmark, specs/scene_lifting 6).

    backend: torch runs anywhere; numba is faster and needs points on the CPU; pytorch3d needs that library;
    auto takes pytorch3d on CUDA where it is installed, numba on the CPU and else torch. All agree, but that
    pytorch3d does not promise an order of equally near points.
    Returns image [C, H, W] (three channels of zeros without colours), depth [1, H, W] (0: nothing hits) and
    opacity [1, H, W] {0, 1}, all float32 on the points' device. Raises ValueError for a batch of cameras, a
    radius that is not positive or an unknown word, and UserError for a backend that is not there.
    """
    _check(camera, radius, weights, per_pixel)
    chosen = _choose(backend, points.device)
    x, y, z, index = _project(points, camera, radius)
    values = z[:, None] if colors is None else torch.cat([colors[index].to(z), z[:, None]], dim=1)
    shape = (camera.height, camera.width)
    if weights == "hard":
        total = _take_nearest(_nearest(x, y, z, radius, shape, chosen), values)
    else:
        # Stable: of equally near points the first comes first.
        order = z.argsort(stable=True)
        total = _composite(x[order], y[order], z[order], values[order], radius, shape, per_pixel, chosen)
    hit = total[:, -1] > 0
    if weights == "soft":
        total = torch.where(hit[:, None], total / total[:, -1:], total)
    maps = total.T.reshape(-1, *shape).float()
    image = maps.new_zeros(3, *shape) if colors is None else maps[:-2]
    return Rendering(image, maps[-2:-1], hit.reshape(1, *shape).float())


def _check(camera: Cameras, radius: float, weights: str, per_pixel: int) -> None:
    if camera.shape:
        raise ValueError(f"splat takes a single camera, got a batch {tuple(camera.shape)}")
    if not radius > 0 or not math.isfinite(radius):
        raise ValueError(f"the radius of a point must be a positive number of pixels, not {radius}")
    if weights not in get_args(Weights):
        raise ValueError(f"unknown weights {weights!r}: choose from {', '.join(get_args(Weights))}")
    if per_pixel < 1:
        raise ValueError(f"per_pixel is {per_pixel}: at least 1")


def _choose(backend: str, device: torch.device) -> str:
    """The backend to use: one that is there and takes tensors on this device."""
    if backend not in get_args(Backend):
        raise ValueError(f"unknown backend {backend!r}: choose from {', '.join(get_args(Backend))}")
    found = importlib.util.find_spec("pytorch3d") is not None
    if backend == "auto":
        return (
            "numba" if device.type == "cpu" else "pytorch3d" if found and device.type == "cuda" else "torch"
        )
    if backend == "pytorch3d" and not found:
        raise UserError("the point backend 'pytorch3d' needs PyTorch3D: install it, or choose 'auto'")
    if backend == "numba" and device.type != "cpu":
        raise UserError(f"the point backend 'numba' runs on the CPU, not on {device.type}: choose 'auto'")
    return backend


def _project(points: Tensor, camera: Cameras, radius: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pixels x and y (float64), z-depth (float32) and index of the points that may be seen, each [Q]."""
    dtype = torch.promote_types(points.dtype, camera.c2w.dtype)
    pixels, z = camera.to(points.device, dtype).project(points.to(dtype))
    size = pixels.new_tensor([camera.width, camera.height])
    seen = (z.float() > 0) & ((pixels > -radius) & (pixels < size + radius)).all(-1)
    index = seen.nonzero()[:, 0]
    x, y = pixels[index].double().unbind(-1)
    return x.contiguous(), y.contiguous(), z[index].float(), index


def _take_nearest(winner: Tensor, values: Tensor) -> Tensor:
    """Values of the winners [H W] (-1: none) and whether there is one, [H W, C + 1] float64."""
    padded = torch.cat([values, values.new_zeros(1, values.shape[1])]).double()
    return torch.cat([padded[winner], (winner >= 0).double()[:, None]], dim=1)


def _nearest(x: Tensor, y: Tensor, z: Tensor, radius: float, shape: tuple[int, int], backend: str) -> Tensor:
    """Which of the points [Q] is the nearest in each pixel, [H W], -1 where none hits."""
    if backend == "numba":
        from geometry.points_jit import nearest

        return torch.from_numpy(nearest(x.numpy(), y.numpy(), z.numpy(), radius, *shape))
    if backend == "pytorch3d":
        return _pytorch3d_hits(x, y, z, radius, shape, 1)[0][:, 0]
    # Positive floats sort like their bits: (z, index) fits one integer, which is smallest at the winner.
    key = (z.view(torch.int32).long() << 32) | torch.arange(len(z), device=z.device)
    none = torch.iinfo(torch.int64).max
    best = torch.full((shape[0] * shape[1],), none, dtype=torch.int64, device=z.device)
    for part in torch.arange(len(z), device=z.device).split(_AT_ONCE):
        for at, which in _hits(x[part], y[part], radius, (0, shape[0]), shape[1]):
            best.scatter_reduce_(0, at, key[part][which], "amin")
    return torch.where(best == none, -1, best & 0xFFFFFFFF)


def _hits(x: Tensor, y: Tensor, radius: float, rows: tuple[int, int], width: int):
    """Yield pairs of (pixel, point) indices, at most one pair per point at a time.

    Pixels are counted row by row from rows[0] on; only those of rows[0] ... rows[1] are given.
    """
    reach = math.ceil(2 * radius)  # so many pixel centres fit in less than a diameter
    left = (x - 0.5 - radius).floor().long() + 1
    top = (y - 0.5 - radius).floor().long() + 1
    for dy in range(reach):
        row = top + dy
        squared = (y - (row + 0.5)) ** 2
        inside = (row >= rows[0]) & (row < rows[1])
        for dx in range(reach):
            column = left + dx
            hit = inside & (column >= 0) & (column < width)
            hit &= (x - (column + 0.5)) ** 2 + squared < radius**2
            which = hit.nonzero()[:, 0]
            yield (row[which] - rows[0]) * width + column[which], which


def _composite(
    x: Tensor,
    y: Tensor,
    z: Tensor,
    values: Tensor,
    radius: float,
    shape: tuple[int, int],
    per_pixel: int,
    backend: str,
) -> Tensor:
    """Weighted sums of values [Q, C] and of the weights, [H W, C + 1] float64; nearest points come first."""
    if backend == "numba":
        from geometry.points_jit import composite

        return torch.from_numpy(composite(x.numpy(), y.numpy(), values.numpy(), radius, *shape, per_pixel))
    if backend == "pytorch3d":
        hits = _pytorch3d_hits(x, y, z, radius, shape, per_pixel)
        return _blend(*hits, values)
    parts = []
    for rows in _bands(y, radius, shape, per_pixel):
        near = ((y > rows[0] - radius) & (y < rows[1] + radius)).nonzero()[:, 0]
        indices, squared = _first_hits(x[near], y[near], radius, rows, shape[1], per_pixel)
        indices = torch.where(indices < 0, -1, torch.cat([near, near.new_zeros(1)])[indices])
        parts.append(_blend(indices, squared / radius**2, values))
    return torch.cat(parts)


def _bands(y: Tensor, radius: float, shape: tuple[int, int], per_pixel: int) -> list[tuple[int, int]]:
    """Ranges of rows with so few hits that they can be handled at once (single rows if need be)."""
    height, width = shape
    rows = torch.bincount(y.floor().long().clamp(0, height - 1), minlength=height).cpu()
    load = rows * math.ceil(2 * radius) ** 2 + width * per_pixel
    bands, first, held = [], 0, 0
    for row, cost in enumerate(load.tolist()):
        if held + cost > _AT_ONCE and row > first:
            bands.append((first, row))
            first, held = row, 0
        held += cost
    return [*bands, (first, height)]


def _first_hits(
    x: Tensor, y: Tensor, radius: float, rows: tuple[int, int], width: int, per_pixel: int
) -> tuple[Tensor, Tensor]:
    """Indices [N, per_pixel] of the first points that hit each pixel of the rows (-1: no more), and squared
    distances.
    """
    pairs = [at * len(x) + which for at, which in _hits(x, y, radius, rows, width)]
    hits = torch.cat(pairs).sort().values  # by pixel, then by the points' order
    pixel, point = hits // max(len(x), 1), hits % max(len(x), 1)
    number = (rows[1] - rows[0]) * width
    start = torch.bincount(pixel, minlength=number).cumsum(0).roll(1)
    start[0] = 0
    place = torch.arange(len(pixel), device=x.device) - start[pixel]
    keep = place < per_pixel
    pixel, point, place = pixel[keep], point[keep], place[keep]
    indices = point.new_full((number, per_pixel), -1)
    squared = x.new_zeros(number, per_pixel)
    column, row = pixel % width, pixel // width + rows[0]
    indices[pixel, place] = point
    squared[pixel, place] = (x[point] - (column + 0.5)) ** 2 + (y[point] - (row + 0.5)) ** 2
    return indices, squared


def _blend(indices: Tensor, share: Tensor, values: Tensor) -> Tensor:
    """Front-to-back sums of values [Q, C] over indices [N, K] (-1: none) and of the weights, [N, C + 1].

    share: [N, K], squared distance over squared radius.
    """
    alpha = torch.where(indices < 0, 0.0, 1 - share.double())
    through = (1 - alpha).cumprod(1).roll(1, 1)
    through[:, 0] = 1
    weight = alpha * through  # [N, K]
    padded = torch.cat([values, values.new_zeros(1, values.shape[1])])
    total = weight.new_zeros(len(indices), values.shape[1] + 1)
    for k in range(indices.shape[1]):
        total[:, :-1] += weight[:, k, None] * padded[indices[:, k]]
    total[:, -1] = weight.sum(1)
    return total


def _pytorch3d_hits(
    x: Tensor, y: Tensor, z: Tensor, radius: float, shape: tuple[int, int], per_pixel: int
) -> tuple[Tensor, Tensor]:
    """Indices [H W, per_pixel] of the nearest points (-1: no more) and squared distances over radius^2."""
    from pytorch3d.renderer.points import rasterize_points
    from pytorch3d.structures import Pointclouds

    height, width = shape
    half = min(shape) / 2  # pixels per unit of its coordinates, whose x points left and y up
    cloud = torch.stack([(width / 2 - x) / half, (height / 2 - y) / half, z.double()], dim=-1).float()
    indices, _, squared = rasterize_points(
        Pointclouds(points=[cloud]), image_size=shape, radius=radius / half, points_per_pixel=per_pixel
    )
    return indices.reshape(-1, per_pixel).long(), squared.reshape(-1, per_pixel) * (half / radius) ** 2
