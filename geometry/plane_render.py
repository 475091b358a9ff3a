"""Multi-plane images seen from elsewhere, and plane sweeps of photos: the fast ways to do what
`geometry.planes` does.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Literal, get_args

import torch
from torch import Tensor

from common.errors import UserError
from geometry import planes as twins
from geometry.cameras import Cameras
from geometry.planes import Beyond, Composite, PlaneImage, Sampling

Backend = Literal["auto", "twin", "compiled", "triton"]


def render_planes(planes: PlaneImage, cameras: Cameras, backend: Backend = "auto") -> Composite:
    """A multi-plane image [] or [B] seen from cameras [N] or [B, N], of any size.

    Differentiable by the layers; the cameras and depths are taken as constants. Homographies are computed in
    float64. backend: see `composite_planes`. Raises ValueError for shapes that do not fit.
    """
    batch = planes.depths.shape[:-1]
    if len(batch) > 1 or cameras.shape[:-1] != batch or len(cameras.shape) != len(batch) + 1:
        raise ValueError(f"planes {tuple(batch)} cannot be seen from cameras {tuple(cameras.shape)}")
    device, double = planes.layers.device, torch.float64
    with torch.no_grad():
        depths = planes.depths.to(double)
        maps = twins.plane_homographies(planes.camera.to(device, double), cameras.to(device, double), depths)
        rows = twins.disparity_rows(maps, depths)
    batched = bool(batch)
    made = composite_planes(
        planes.layers if batched else planes.layers[None],
        maps if batched else maps[None],
        rows if batched else rows[None],
        cameras.height,
        cameras.width,
        planes.premultiplied,
        planes.backdrop,
        backend,
    )
    return made if batched else Composite(made.color[0], made.alpha[0], made.disparity[0])


def composite_planes(
    layers: Tensor,
    homographies: Tensor,
    rows: Tensor,
    height: int,
    width: int,
    premultiplied: bool = False,
    backdrop: bool = False,
    backend: Backend = "auto",
) -> Composite:
    """As `geometry.planes.composite`: layers [B, D, H, W, 4] seen from N cameras of height x width each.

    homographies: [B, N, D, 3, 3]. rows: [B, N, D, 3]; float64 for accurate positions. Results are float32, or
    float64 for layers of that; float16 and bfloat16 layers are read as they are and summed in float32.

    backend: 'twin' (plain PyTorch; keeps every warped plane in memory), 'compiled' (CPU kernels), 'triton'
    (CUDA kernels), 'auto': compiled on the CPU, triton on CUDA, else the twin. The kernels keep nothing of
    the size of all warped planes and are differentiable once, by the layers. Compiled ones give the same bits
    for any number of threads; the gradient of Triton's is summed in any order. Raises ValueError for shapes
    that do not fit and UserError for a backend that cannot run here.
    """
    b, d = layers.shape[:2]
    if layers.shape[4:] != (4,) or homographies.shape[2:] != (d, 3, 3) or len(homographies) != b:
        raise ValueError(
            f"need layers [B, D, H, W, 4] and homographies [B, N, D, 3, 3], got {tuple(layers.shape)}, "
            f"{tuple(homographies.shape)}"
        )
    if rows.shape != homographies.shape[:-1]:
        raise ValueError(f"rows are {tuple(rows.shape)}, not {tuple(homographies.shape[:-1])}")
    if layers.dtype not in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
        raise ValueError(f"layers are {layers.dtype}: use a floating type")
    chosen = choose_backend(backend, layers.device)
    if chosen == "twin":
        wide = layers if layers.dtype == torch.float64 else layers.float()
        return twins.composite(wide, homographies, rows, height, width, premultiplied, backdrop)
    made = _kernels(chosen)(layers, homographies, rows, height, width, premultiplied, backdrop)
    return Composite(*made.split([3, 1, 1], 2))


def _kernels(backend: Backend) -> Callable[..., Tensor]:
    """What makes one tensor [B, N, 5, h, w] of what `composite_planes` is given."""
    if backend == "compiled":
        from geometry import plane_compiled

        return plane_compiled.composite
    from geometry import plane_triton

    return plane_triton.composite


def choose_backend(backend: Backend, device: torch.device) -> Backend:
    """The backend to use: one that is there and takes tensors on this device."""
    if backend not in get_args(Backend):
        raise ValueError(f"unknown backend {backend!r}: choose from {', '.join(get_args(Backend))}")
    if backend == "auto":
        has_triton = device.type == "cuda" and find_spec("triton") is not None
        return "compiled" if device.type == "cpu" else "triton" if has_triton else "twin"
    if backend == "compiled" and device.type != "cpu":
        raise UserError(f"planes: 'compiled' runs on the CPU, not on {device}: choose 'auto'")
    if backend == "triton" and find_spec("triton") is None:
        raise UserError("planes: 'triton' is not installed (it comes with PyTorch): choose 'auto'")
    if backend == "triton" and device.type != "cuda":
        raise UserError(f"planes: 'triton' needs a CUDA device, not {device}: choose 'auto'")
    return backend


def sweep_photos(
    images: Tensor,
    sources: Cameras,
    reference: Cameras,
    depths: Tensor,
    sampling: Sampling = "consistent",
    beyond: Beyond = "flag",
    *,
    backend: Backend = "auto",
) -> Tensor:
    """As `geometry.planes.sweep`: the volume [..., V, C, D, H, W] of photos [..., V, C, h, w].

    Homographies are computed in float64. backend: 'twin', 'compiled' (float32 photos on the CPU, no gradient)
    or 'auto': compiled where it can be, else the twin. Raises UserError for one that cannot run here.
    """
    device = images.device
    sources, reference = (camera.to(device, torch.float64) for camera in (sources, reference))
    depths = depths.to(device, torch.float64)
    fits = images.dtype == torch.float32 and not images.requires_grad
    if backend == "twin" or (backend == "auto" and not (device.type == "cpu" and fits)):
        return twins.sweep(images, sources, reference, depths, sampling, beyond)
    if backend == "triton" or not fits:
        raise UserError(
            f"plane sweep: {backend!r} takes float32 photos that need no gradient, on the CPU: choose 'auto'"
        )
    choose_backend(backend, device)
    from geometry import plane_compiled

    maps, middle = twins.sweep_homographies(reference, sources, depths), 0.5
    if sampling == "original":  # from 0 at the first pixel's middle to w - 1 at the last's
        w, h = sources.width, sources.height
        maps = torch.diag(maps.new_tensor([(w - 1) / w, (h - 1) / h, 1])) @ maps
        middle = 0.0
    flat, maps, shape = images.flatten(0, -4), maps.flatten(0, -4), (reference.height, reference.width)
    volume = plane_compiled.sweep(flat, maps, shape, middle, twins.OUT_OF_VIEW, beyond == "edge")
    return volume.unflatten(0, images.shape[:-3])
