"""Depth maps of many views into one surface: cross-checked, fused in a signed distance field, closed."""

from __future__ import annotations

from collections.abc import Sequence
from math import log2
from typing import Any

import numpy as np
import torch
from torch import Tensor

from geometry.cameras import Cameras
from geometry.meshes import Mesh
from geometry.views import Views

_BLOCK = 8  # voxels along the side of a block of the sparse volume
_MAX_OCTREE_DEPTH = 12


def count_agreeing(
    camera: Cameras,
    depth: Tensor,
    others: Sequence[tuple[Cameras, Tensor]],
    max_pixels: float = 2.0,
    max_relative: float = 0.02,
) -> Tensor:
    """How many other depth maps agree with each pixel's depth.

    A pixel is carried into another view, takes the depth found there and is carried back: the views agree
    when it comes back within max_pixels and within max_relative of its depth (Yao et al. 2018, MVSNet,
    section 4.2; Schönberger et al. 2016, section 4.6).

    camera: single; depth: [H, W] z-depth, 0 unknown. others: single cameras of any size with their depths.
    Returns [H, W] int64, 0 where the depth is unknown.
    """
    points = camera.unproject(depth.double()).reshape(-1, 3)
    start = camera.pixel_centers().reshape(-1, 2)
    known = depth.reshape(-1) > 0
    count = torch.zeros_like(known, dtype=torch.int64)
    for other, other_depth in others:
        back, back_depth = _return_trip(camera, points, other, other_depth)
        near = (back - start).norm(dim=-1) < max_pixels
        same = (back_depth / depth.reshape(-1).double() - 1).abs() < max_relative
        count += known & near & same
    return count.reshape(depth.shape)


def _return_trip(camera: Cameras, points: Tensor, other: Cameras, depth: Tensor) -> tuple[Tensor, Tensor]:
    """Where points [P, 3] land in `camera` when they take the depth that `other` sees at their place.

    Returns pixels [P, 2] and depth [P], not finite where the other view sees nothing.
    """
    pixels, z = other.project(points)
    size = pixels.new_tensor([other.width, other.height])
    inside = (z > 0) & (pixels >= 0).all(-1) & (pixels < size).all(-1)
    x, y = torch.where(inside[:, None], pixels, 0).long().unbind(-1)
    found = torch.where(inside, depth[y, x].double(), 0)
    scale = torch.where(found > 0, found / z, torch.nan)  # along the ray from the other centre
    return camera.project(other.center + (points - other.center) * scale[:, None])


def fit_voxel(points: Tensor, voxel: float, max_blocks: int) -> float:
    """The voxel size, made coarser until the surface through points [P, 3] fits in max_blocks blocks.

    So memory stays bounded where a scene reaches far: about 6 kB per block.
    """
    while len(torch.unique((points / (voxel * _BLOCK)).floor().long(), dim=0)) > max_blocks:
        voxel *= 1.25
    return voxel


def fuse_depths(views: Sequence[Views], voxel: float, truncation: float) -> Mesh:
    """Fuse depth maps in a truncated signed distance field (Curless and Levoy 1996) and extract its surface.

    views: single views with depth (0 unknown), of any size. voxel, truncation: world units. Returns a mesh
    with float64 vertices, float32 colours and normals' side towards the cameras. Raises ValueError when no
    depth is known.
    """
    import open3d as o3d

    volume = o3d.t.geometry.VoxelBlockGrid(
        attr_names=("tsdf", "weight", "color"),
        attr_dtypes=(o3d.core.float32, o3d.core.uint16, o3d.core.uint16),
        attr_channels=[o3d.core.SizeVector([channels]) for channels in (1, 1, 3)],
        voxel_size=voxel,
        block_resolution=_BLOCK,
        block_count=4096,  # grows as needed
        device=o3d.core.Device("CPU:0"),
    )
    seen = False
    for view in views:
        assert view.depth is not None
        if bool((view.depth > 0).any()):
            _integrate(volume, view, truncation / voxel)
            seen = True
    if not seen:
        raise ValueError("no view has a known depth to fuse")
    return _in_order(_from_open3d(volume.extract_triangle_mesh(weight_threshold=1.0).to_legacy()))


def _integrate(volume: Any, view: Views, truncation: float) -> None:
    """Add one view to the volume. truncation: in voxels."""
    import open3d as o3d

    assert view.depth is not None
    # this volume takes the pixel a point falls into (it truncates), so the corner convention is its own
    K, w2c = _tensor(view.cameras.K.double()), _tensor(view.cameras.w2c.double())
    depth = o3d.t.geometry.Image(_tensor(view.depth[0].float()))
    color = o3d.t.geometry.Image(_tensor(view.images.permute(1, 2, 0).float()))
    far = float(view.depth.max()) * 1.01
    blocks = volume.compute_unique_block_coordinates(depth, K, w2c, 1.0, far, truncation)
    volume.integrate(blocks, depth, color, K, K, w2c, 1.0, far, truncation)


def _tensor(values: Tensor) -> Any:
    import open3d as o3d

    return o3d.core.Tensor.from_numpy(np.ascontiguousarray(values.cpu().numpy()))


def _in_order(mesh: Mesh) -> Mesh:
    """The same mesh with sorted vertices and faces: the volume's threads list them in any order."""
    order = torch.from_numpy(np.lexsort(mesh.vertices.numpy().T))
    faces = order.argsort()[mesh.faces]
    turn = faces.argmin(1)[:, None] + torch.arange(3)
    faces = faces.gather(1, turn % 3)  # the lowest corner first; the side stays the same
    faces = faces[torch.from_numpy(np.lexsort(faces.numpy().T))]
    return Mesh(mesh.vertices[order], faces, None if mesh.colors is None else mesh.colors[order])


def close_gaps(mesh: Mesh, voxel: float, reach: float) -> Mesh:
    """Close the holes of a fused surface: screened Poisson reconstruction (Kazhdan and Hoppe 2013) from its
    vertices, kept within `reach` (world units) of them.

    voxel: the detail to keep, world units (cells of 0.7 to 1.4 times that). Returns a mesh with colours.
    """
    import open3d as o3d

    surface = _to_open3d(mesh)
    surface.compute_vertex_normals()
    cloud = o3d.geometry.PointCloud(surface.vertices)
    cloud.normals, cloud.colors = surface.vertex_normals, surface.vertex_colors
    extent = float(np.max(cloud.get_max_bound() - cloud.get_min_bound()))
    depth = min(_MAX_OCTREE_DEPTH, max(5, round(log2(1.1 * extent / voxel))))
    closed, _ = o3d.geometry.TriangleMesh.create_from_point_cloud_poisson(cloud, depth=depth, n_threads=1)
    distance = o3d.geometry.PointCloud(closed.vertices).compute_point_cloud_distance(cloud)
    closed.remove_vertices_by_mask((np.asarray(distance) > reach).tolist())
    return _from_open3d(closed)


def drop_small_pieces(mesh: Mesh, min_fraction: float) -> Mesh:
    """Remove connected pieces with less than this fraction of the triangles."""
    surface = _to_open3d(mesh)
    piece, sizes, _ = surface.cluster_connected_triangles()
    size = np.asarray(sizes)[np.asarray(piece)]
    surface.remove_triangles_by_mask((size < min_fraction * len(size)).tolist())
    surface.remove_unreferenced_vertices()
    return _from_open3d(surface)


def _to_open3d(mesh: Mesh) -> Any:
    import open3d as o3d

    surface = o3d.geometry.TriangleMesh(
        o3d.utility.Vector3dVector(mesh.vertices.double().numpy()),
        o3d.utility.Vector3iVector(mesh.faces.int().numpy()),
    )
    if mesh.colors is not None:
        surface.vertex_colors = o3d.utility.Vector3dVector(mesh.colors.double().numpy())
    return surface


def _from_open3d(surface: Any) -> Mesh:
    colors = np.asarray(surface.vertex_colors)
    return Mesh(
        torch.from_numpy(np.array(surface.vertices, dtype=np.float64)),
        torch.from_numpy(np.array(surface.triangles, dtype=np.int64)),
        colors=torch.from_numpy(colors.astype(np.float32).clip(0, 1)) if len(colors) else None,
    )
