"""Depth maps lifted to surfaces and points, and the scale of depth maps of unknown unit.

The rules are those of the MegaScenes warps (Tung et al. 2024; specs/warp_diffusion 3.5 and 3.6).
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from geometry.cameras import Cameras
from geometry.meshes import Mesh

_EPSILON = 1e-8  # keeps the normalisation of degenerate triangles finite, as in the original


def disparity_to_depth(disparity: Tensor, minimum: float = 1e-3) -> Tensor:
    """Depth = 1 / disparity, any shape; disparities below `minimum` (sky) count as `minimum`."""
    return 1 / disparity.clamp(min=minimum)


def resize_disparity(disparity: Tensor, height: int, width: int) -> Tensor:
    """Bicubic resize (pixel areas aligned, no antialiasing) of a disparity map [H, W] to [height, width]."""
    size = (height, width)
    return torch.nn.functional.interpolate(
        disparity[None, None], size=size, mode="bicubic", align_corners=False
    )[0, 0]


def depth_scale(depth: Tensor, quantile: float = 0.2) -> float:
    """The unit of a depth map [H, W]: its 20th percentile, linear between ranks.

    Raises ValueError for an empty map.
    """
    ranked = depth.flatten().sort().values  # torch.quantile refuses maps above 2^24 pixels
    if not len(ranked):
        raise ValueError("an empty depth map has no scale")
    rank = quantile * (len(ranked) - 1)
    low, high = ranked[math.floor(rank)].item(), ranked[math.ceil(rank)].item()
    return low + (high - low) * (rank - math.floor(rank))


def normalise_depth(depth: Tensor, far: float = 100.0) -> Tensor:
    """Depth [H, W] in units of its own `depth_scale`, clipped to [0, far]."""
    return (depth / depth_scale(depth)).clamp(0, far)


def lift_depth(
    depth: Tensor, camera: Cameras, colors: Tensor | None = None, max_angle: float | None = 70.0
) -> Mesh:
    """Lift a z-depth map to a triangle mesh in the world frame of `camera.c2w`.

    One vertex per pixel centre, in raster order; two triangles per cell of four pixels, counter-clockwise
    seen from the camera: all lower-left ones (v, v + W, v + W + 1) first, then all upper-right ones (v, v + W
    + 1, v + 1). Pixels whose depth is not positive and finite carry no vertex; vertices of no triangle are
    dropped (specs/warp_diffusion 3.6).

    depth: [H, W], world units. camera: a single camera of that size. colors: [H, W, 3] in [0, 1].
    max_angle: degrees; triangles seen from the camera at a more grazing angle are torn out; None keeps all.
    Returns vertices of the dtype of `camera.c2w`, and float32 colors. Raises ValueError for wrong shapes.
    """
    local, known = _unproject(depth, camera)
    keep = _cells(known)
    if max_angle is not None:
        keep &= _facing(local.float()) > math.cos(math.radians(max_angle))
    faces = _grid_faces(depth)[keep.flatten()]
    used = torch.zeros(depth.numel(), dtype=torch.bool, device=depth.device)
    used[faces.flatten()] = True
    renumbered = used.cumsum(0) - 1
    vertices = _to_world(local.flatten(1)[:, used].T, camera)
    return Mesh(vertices, renumbered[faces], colors=_pick(colors, depth, used))


def lift_points(depth: Tensor, camera: Cameras, colors: Tensor | None = None) -> Mesh:
    """The point cloud of a z-depth map: as `lift_depth`, but a vertex for every known depth and no faces."""
    local, known = _unproject(depth, camera)
    known = known.flatten()
    vertices = _to_world(local.flatten(1)[:, known].T, camera)
    faces = torch.empty(0, 3, dtype=torch.int64, device=depth.device)
    return Mesh(vertices, faces, colors=_pick(colors, depth, known))


def _unproject(depth: Tensor, camera: Cameras) -> tuple[Tensor, Tensor]:
    """Camera-space points [3, H, W] in float64 and where the depth is known [H, W]."""
    if camera.shape:
        raise ValueError(f"one camera is needed, got a batch of shape {tuple(camera.shape)}")
    exact = camera.to(depth.device, torch.float64)
    still = replace(exact, c2w=torch.eye(4, dtype=torch.float64, device=depth.device))
    known = torch.isfinite(depth) & (depth > 0)
    return still.unproject(depth.double()).permute(2, 0, 1), known


def _to_world(points: Tensor, camera: Cameras) -> Tensor:
    """Camera-space points [P, 3] float64 -> world, in the camera's dtype."""
    pose = camera.c2w.to(points)
    return (points @ pose[:3, :3].T + pose[:3, 3]).to(camera.c2w.dtype)


def _pick(colors: Tensor | None, depth: Tensor, used: Tensor) -> Tensor | None:
    if colors is None:
        return None
    if colors.shape != (*depth.shape, 3):
        raise ValueError(f"colors are {tuple(colors.shape)}, the depth map is {tuple(depth.shape)}")
    return colors.reshape(-1, 3)[used].to(depth.device, torch.float32)


def _corners(grid: Tensor) -> tuple[tuple[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]:
    """Values [..., H, W] at the corners of the lower-left and of the upper-right triangles, each [..., H-1,
    W-1].
    """
    top_left, bottom_left = grid[..., :-1, :-1], grid[..., 1:, :-1]
    bottom_right, top_right = grid[..., 1:, 1:], grid[..., :-1, 1:]
    return (top_left, bottom_left, bottom_right), (top_left, bottom_right, top_right)


def _cells(known: Tensor) -> Tensor:
    """Triangles [2, H-1, W-1] whose three corners are known."""
    return torch.stack([a & b & c for a, b, c in _corners(known)])


def _grid_faces(depth: Tensor) -> Tensor:
    """[2 (H-1) (W-1), 3] vertex indices of all triangles of a map [H, W], lower-left ones first."""
    index = torch.arange(depth.numel(), device=depth.device).reshape(depth.shape)
    return torch.cat([torch.stack(triangle, dim=-1).reshape(-1, 3) for triangle in _corners(index)])


def _facing(points: Tensor) -> Tensor:
    """Cosine between normal and direction to the camera, [2, H-1, W-1] float64, of points [3, H, W].

    Evaluated in float32 and in the original's order of operations, so that the same triangles survive.
    """
    cosines = []
    for a, b, c in _corners(points):
        normal = _unit(_cross(b - a, c - b))
        towards = _unit(-((a + b + c) / 3.0))
        cosines.append(_dot(normal, towards).double())
    return torch.stack(cosines)


def _cross(a: Tensor, b: Tensor) -> Tensor:
    """Cross product along the first axis, each product rounded on its own (no fused multiply-add)."""
    x, y, z = a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]
    return torch.stack([x, y, z])


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _unit(vector: Tensor) -> Tensor:
    return vector / (_dot(vector, vector).sqrt() + _EPSILON)
