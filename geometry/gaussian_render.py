"""3D Gaussians seen by a camera: elliptical weighted averages, blended front to back.

Zwicker et al. 2001 and Kerbl et al. 2023, with the antialiasing of Yu et al. 2024 (Mip-Splatting) and the
constants of specs/scene_lifting 3.5.
"""

from __future__ import annotations

import importlib.util
from typing import Literal, get_args

import torch
from torch import Tensor

from common.errors import UserError
from geometry.cameras import Cameras
from geometry.gaussian_projection import (
    BLUR,
    MAX_ALPHA,
    MIN_ALPHA,
    NEAR,
    OPAQUE,
    TILE,
    Projected,
    project_gaussians,
    tile_lists,
)
from geometry.gaussians import Gaussians
from geometry.views import Rendering

Backend = Literal["auto", "torch", "numba", "gsplat"]
_AT_ONCE = 1 << 22  # (pixel, Gaussian) pairs blended together


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
