"""3D Gaussians seen by a camera: elliptical weighted averages, blended front to back.

Zwicker et al. 2001 and Kerbl et al. 2023, with the antialiasing of Yu et al. 2024 (Mip-Splatting) and the
constants of specs/scene_lifting 3.5.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from common.errors import UserError
from geometry.cameras import Cameras
from geometry.gaussians import Gaussians
from geometry.views import Rendering

Backend = Literal["auto", "torch", "numba", "gsplat"]
TILE = 16  # pixels a side: Gaussians are looked up by tiles
NEAR = 0.01  # depth units: nothing nearer is drawn
BLUR = 0.3  # squared pixels, added to every Gaussian's extent
MIN_ALPHA, MAX_ALPHA = 1 / 255, 0.999
OPAQUE = 1e-4  # what may still shine through when blending ends
_MARGIN = 1.3  # of the field of view, within which perspective is linearised where a Gaussian is
_AT_ONCE = 1 << 22  # (pixel, Gaussian) pairs blended together


@dataclass
class Projected:
    """Gaussians in an image. Those that are not seen have radius 0.

    xy: [G, 2] pixels. z: [G] depth. conics: [G, 3], a, b, c of the inverse covariance [[a, b], [b, c]].
    opacities: [G], with what antialiasing takes away. radius: [G] whole pixels, three standard deviations.
    """

    xy: Tensor
    z: Tensor
    conics: Tensor
    opacities: Tensor
    radius: Tensor


def render_gaussians(
    gaussians: Gaussians,
    camera: Cameras,
    w2c: Tensor | None = None,
    view_from: Tensor | None = None,
    backend: Backend = "auto",
) -> Rendering:
    """Render Gaussians for a single camera on black; differentiable in all of their parameters.

    w2c: [4, 4], in place of the camera's own pose where that is to be differentiated. view_from: [3], the
    point of the world that colours are seen from; default: the camera's centre. backend: torch runs anywhere;
    numba is the same, compiled, on the CPU; gsplat needs that library and CUDA, and differs from them in the
    last digits; auto takes gsplat on CUDA where it is installed, numba on the CPU and else torch.
    Returns image [3, H, W], not clamped above, depth [1, H, W] (mean depth of what is seen, 0 where nothing
    is) and opacity [1, H, W]. Raises ValueError for a batch of cameras or an unknown backend and UserError
    for one that is not there.
    """
    if camera.shape:
        raise ValueError(f"render_gaussians takes a single camera, got a batch {tuple(camera.shape)}")
    chosen = _choose(backend, gaussians.means.device)
    camera = camera.to(gaussians.means.device, gaussians.means.dtype)
    pose = camera.w2c if w2c is None else w2c
    origin = -pose[:3, :3].T @ pose[:3, 3] if view_from is None else view_from
    colors = gaussians.colors(origin)
    if chosen == "gsplat":
        total, opacity = _gsplat(gaussians, colors, camera, pose)
    else:
        projected = project_gaussians(gaussians, camera, pose)
        values = torch.cat([colors, projected.z[:, None]], dim=1)
        total, opacity = _rasterize(projected, values, camera, chosen)
    depth = torch.where(opacity > 0, total[..., 3] / opacity.clamp(min=1e-8), 0)
    return Rendering(total[..., :3].permute(2, 0, 1), depth[None], opacity[None])


def _choose(backend: str, device: torch.device) -> str:
    """The backend to use: one that is there and takes tensors on this device."""
    if backend not in get_args(Backend):
        raise ValueError(f"unknown backend {backend!r}: choose from {', '.join(get_args(Backend))}")
    found = importlib.util.find_spec("gsplat") is not None
    if backend == "auto":
        return "numba" if device.type == "cpu" else "gsplat" if found and device.type == "cuda" else "torch"
    if backend == "gsplat" and not found:
        raise UserError(
            "the Gaussian backend 'gsplat' needs the gsplat library: install it, or choose 'auto'"
        )
    if backend == "gsplat" and device.type != "cuda":
        raise UserError(f"the Gaussian backend 'gsplat' needs CUDA, not {device.type}: choose 'auto'")
    if backend == "numba" and device.type != "cpu":
        raise UserError(f"the Gaussian backend 'numba' runs on the CPU, not on {device.type}: choose 'auto'")
    return backend


def project_gaussians(gaussians: Gaussians, camera: Cameras, w2c: Tensor) -> Projected:
    """Project Gaussians into the image of a single camera at pose w2c [4, 4]."""
    local = gaussians.means @ w2c[:3, :3].T + w2c[:3, 3]
    seen = local[:, 2] > NEAR
    x, y, z = torch.where(seen[:, None], local, local.new_tensor([0.0, 0.0, 1.0])).unbind(-1)
    fx, fy, cx, cy = camera.K[0, 0], camera.K[1, 1], camera.K[0, 2], camera.K[1, 2]
    xx, xy, yy = _image_covariances(gaussians.covariances(), torch.stack([x, y, z], -1), camera, w2c).unbind(
        -1
    )
    sharp = xx * yy - xy * xy
    xx, yy = xx + BLUR, yy + BLUR
    blurred = xx * yy - xy * xy
    compensation = (sharp / blurred).clamp(min=1e-12).sqrt()
    with torch.no_grad():
        middle = (xx + yy) / 2
        radius = (3 * (middle + (middle**2 - blurred).clamp(min=0.1).sqrt()).sqrt()).ceil()
    return Projected(
        xy=torch.stack([fx * x / z + cx, fy * y / z + cy], dim=-1),
        z=z,
        conics=torch.stack([yy, -xy, xx], dim=-1) / blurred[:, None],
        opacities=gaussians.opacity_logits[:, 0].sigmoid() * compensation,
        radius=torch.where(seen, radius, 0),
    )


def _image_covariances(covariances: Tensor, local: Tensor, camera: Cameras, w2c: Tensor) -> Tensor:
    """xx, xy, yy [G, 3] of covariances [G, 3, 3] (world) around camera-space positions [G, 3], in pixels.

    Perspective is linearised at the position, or at the border of a slightly wider field of view.
    """
    x, y, z = local.unbind(-1)
    fx, fy, cx, cy = camera.K[0, 0], camera.K[1, 1], camera.K[0, 2], camera.K[1, 2]
    limit_x = _MARGIN * torch.maximum(cx, camera.width - cx) / fx
    limit_y = _MARGIN * torch.maximum(cy, camera.height - cy) / fy
    slope_x = torch.minimum(torch.maximum(x / z, -limit_x), limit_x)
    slope_y = torch.minimum(torch.maximum(y / z, -limit_y), limit_y)
    zero = torch.zeros_like(z)
    jacobian = torch.stack(
        [
            torch.stack([fx / z, zero, -fx * slope_x / z], dim=-1),
            torch.stack([zero, fy / z, -fy * slope_y / z], dim=-1),
        ],
        dim=-2,
    )  # [G, 2, 3]
    onto = jacobian @ w2c[:3, :3]
    # Projecting the axes of a Gaussian would be shorter, but gradients of symmetric matrices are exactly
    # symmetric, so that the rotation of a round Gaussian has none. Adam would blow rounding errors up.
    image = onto @ covariances @ onto.transpose(-1, -2)
    return torch.stack([image[:, 0, 0], image[:, 0, 1], image[:, 1, 1]], dim=-1)


@torch.no_grad()
def tile_lists(projected: Projected, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Which Gaussians each tile has to look at, nearest first.

    Tiles are counted row by row. Returns indices [N] of Gaussians, tile after tile, and where each tile's
    begin, [T + 1].
    """
    tiles = projected.xy.new_tensor([-(-width // TILE), -(-height // TILE)])
    order = projected.z.argsort(stable=True)
    order = order[projected.radius[order] > 0]
    center, reach = projected.xy[order] / TILE, projected.radius[order, None] / TILE
    first = torch.minimum((center - reach).trunc().clamp(min=0), tiles).long()
    end = torch.minimum((center + reach + 1).trunc().clamp(min=0), tiles).long()
    span = (end - first).clamp(min=0)
    count = span.prod(-1)
    item = torch.repeat_interleave(torch.arange(len(order), device=count.device), count)
    inner = torch.arange(len(item), device=count.device) - (count.cumsum(0) - count)[item]
    column = first[item, 0] + inner % span[item, 0]
    row = first[item, 1] + torch.div(inner, span[item, 0], rounding_mode="floor")
    tile, by_tile = (row * int(tiles[0]) + column).sort(stable=True)
    sizes = torch.bincount(tile, minlength=int(tiles.prod()))
    return order[item[by_tile]], torch.nn.functional.pad(sizes.cumsum(0), (1, 0))


def _rasterize(projected: Projected, values: Tensor, camera: Cameras, backend: str) -> tuple[Tensor, Tensor]:
    """Blend values [G, C]; returns [H, W, C] and opacity [H, W]."""
    lists = tile_lists(projected, camera.height, camera.width)
    if backend == "numba":
        from geometry.gaussian_blend import Blend

        shape = (camera.height, camera.width)
        parts = (projected.xy, projected.conics, projected.opacities, values)
        total, through = Blend.apply(*parts, *lists, shape)
        return total, 1 - through
    return _blend_tiles(projected, values, *lists, camera.height, camera.width)


def _blend_tiles(
    projected: Projected, values: Tensor, indices: Tensor, starts: Tensor, height: int, width: int
) -> tuple[Tensor, Tensor]:
    """As `_rasterize`, some tiles of similar load at a time, each padded to the longest list among them."""
    across, down = -(-width // TILE), -(-height // TILE)
    load = starts[1:] - starts[:-1]
    totals = values.new_zeros(down * across, TILE * TILE, values.shape[1] + 1)
    heavy_first = load.argsort(descending=True)
    heavy_first = heavy_first[load[heavy_first] > 0]
    begin = 0
    while begin < len(heavy_first):
        longest = int(load[heavy_first[begin]])
        group = heavy_first[begin : begin + max(1, _AT_ONCE // (longest * TILE * TILE))]
        place = torch.arange(longest, device=load.device).expand(len(group), -1)
        filled = place < load[group, None]
        which = indices[(starts[group, None] + place).clamp(max=len(indices) - 1)]  # [T, K]
        corner = torch.stack([group % across, group // across], dim=-1) * TILE
        totals = totals.index_copy(0, group, _blend(projected, values, which, filled, corner))
        begin += len(group)
    image = totals.reshape(down, across, TILE, TILE, -1).transpose(1, 2)
    image = image.reshape(down * TILE, across * TILE, -1)[:height, :width]
    return image[..., :-1], image[..., -1]


def _blend(projected: Projected, values: Tensor, which: Tensor, filled: Tensor, corner: Tensor) -> Tensor:
    """Values and opacity [T, TILE^2, C + 1] of tiles that look at Gaussians which [T, K] (filled: real ones).

    corner: [T, 2], the tiles' first pixels (x, y).
    """
    inside = torch.arange(TILE * TILE, device=which.device)
    offset = torch.stack([inside % TILE, inside // TILE], dim=-1) + 0.5
    pixels = corner[:, None].to(values) + offset.to(values)  # [T, TILE^2, 2]
    dx, dy = (projected.xy[which][:, None] - pixels[:, :, None]).unbind(-1)  # [T, TILE^2, K]
    a, b, c = projected.conics[which][:, None].unbind(-1)  # [T, 1, K]
    power = 0.5 * (a * dx * dx + c * dy * dy) + b * dx * dy
    alpha = (projected.opacities[which][:, None] * torch.exp(-power)).clamp(max=MAX_ALPHA)
    alpha = torch.where((alpha >= MIN_ALPHA) & (power >= 0) & filled[:, None], alpha, 0)
    after = (1 - alpha).cumprod(-1)
    before = torch.cat([torch.ones_like(after[..., :1]), after[..., :-1]], dim=-1)
    weight = torch.where(after > OPAQUE, alpha * before, 0)
    return torch.cat([weight @ values[which], weight.sum(-1, keepdim=True)], dim=-1)


def _gsplat(gaussians: Gaussians, colors: Tensor, camera: Cameras, w2c: Tensor) -> tuple[Tensor, Tensor]:
    """Colour and depth times opacity [H, W, 4], and opacity [H, W], by the library gsplat (1.x)."""
    from gsplat import rasterization

    total, opacity, _ = rasterization(
        means=gaussians.means,
        quats=gaussians.quaternions,
        scales=gaussians.log_scales.exp(),
        opacities=gaussians.opacity_logits[:, 0].sigmoid(),
        colors=colors,
        viewmats=w2c[None],
        Ks=camera.K[None],
        width=camera.width,
        height=camera.height,
        near_plane=NEAR,
        eps2d=BLUR,
        rasterize_mode="antialiased",
        render_mode="RGB+D",
        packed=False,
    )
    return total[0], opacity[0, ..., 0]
