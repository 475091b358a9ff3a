"""The two-line warp of the MegaScenes README, under its names: photo and depth -> mesh -> image from a new
camera.

    mesh = unproject_depth("mesh.ply", img, depth, K, c2w, add_faces=True)
    warped, _ = render_view(h, w, K, c2w_target, mesh)

Arrays are NumPy: images [H, W, 3] in [0, 1], K [3, 3] or [4, 4] in pixels, C2W [4, 4] with OpenCV axes. New
code calls `geometry.lifting` and `geometry.rasterize`. Unlike the original, nothing is cut off at far planes
(ray casting has none), and vertices of unknown depth take their triangles with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from geometry.cameras import Cameras
from geometry.lifting import lift_depth, lift_points
from geometry.mesh_files import write_mesh
from geometry.meshes import Mesh, join_meshes
from geometry.rasterize import Rasterizer, render_vertex_colors

Array = NDArray[Any]


def unproject_depth(
    out_ply: str | PathLike[str] | None,
    rgb: Array,
    depth: Array,
    K: ArrayLike,
    C2W: ArrayLike,
    scale_factor: float = 1.0,
    add_faces: bool = False,
    prune_edge_faces: bool = True,
    prune_angle: float = 70.0,
) -> Mesh:
    """Lift a photo to a coloured mesh in the world frame; to a mesh without faces unless `add_faces`.

    out_ply: file to write, or None. rgb: [H, W, 3] in [0, 1]; colours are cut to 8 bits. depth: [H, W]
    z-depth. scale_factor: resize photo (pixel area) and depth (nearest) first. prune_edge_faces: tear out
    faces seen at more than `prune_angle` degrees.
    """
    camera = _camera(K, C2W, *rgb.shape[:2])
    if not np.isclose(scale_factor, 1.0):
        rgb, depth = _resize(rgb, depth, scale_factor)
        camera = camera.resize(*rgb.shape[:2])
    bytes_ = np.clip(rgb * 255.0, 0.0, 255.0).astype(np.uint8)
    colors, depths = torch.from_numpy(bytes_).float() / 255, torch.from_numpy(np.array(depth))
    if add_faces:
        mesh = lift_depth(depths, camera, colors, prune_angle if prune_edge_faces else None)
    else:
        mesh = lift_points(depths, camera, colors)
    if out_ply is not None:
        write_mesh(mesh, Path(out_ply))
    return mesh


def render_view(
    H: int, W: int, K: ArrayLike, C2W: ArrayLike, mesh: Mesh, ref_C2W: ArrayLike | None = None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Render a coloured mesh, unlit, without back faces, with 4x multisampling (specs/warp_diffusion 3.7).

    Returns the colour [H, W, 3] in [0, 1], multiples of 1/255, and z-depth [H, W], both 0 where nothing is
    hit; with `ref_C2W`, z in that camera's frame instead.
    """
    color, depth = render_multiviews(H, W, K, [C2W], mesh, ref_C2W)
    return color[0], depth[0]


def render_multiviews(
    H: int,
    W: int,
    K: ArrayLike,
    C2Ws: Sequence[ArrayLike] | Array,
    meshes: Mesh | list[Mesh],
    ref_C2W: ArrayLike | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """As `render_view` for poses [N]: colours [N, H, W, 3] and depths [N, H, W]. Several meshes hide each
    other.
    """
    poses = torch.from_numpy(np.stack([np.asarray(pose, dtype=np.float64) for pose in C2Ws]))
    cameras = _camera(K, np.eye(4), H, W).with_poses(poses)
    surface = Rasterizer(join_meshes(meshes) if isinstance(meshes, list) else meshes)
    picture = render_vertex_colors(surface, cameras, eight_bit=True)
    assert picture.depth is not None
    color, depth = picture.image.movedim(1, -1).numpy(), picture.depth[:, 0].numpy()
    if ref_C2W is not None:
        to_reference = np.linalg.inv(np.asarray(ref_C2W, dtype=np.float64)) @ poses.numpy()
        pairs = zip(depth, to_reference, strict=True)
        depth = np.stack([depth2pcd(z, K, pose)[..., 2] * (z > 0) for z, pose in pairs])
    return np.ascontiguousarray(color), depth


def depth2pcd(depth: Array, K: ArrayLike, C2W: ArrayLike) -> NDArray[np.float32]:
    """Lift z-depth [H, W] through the pixel centres to points [H, W, 3]."""
    camera = _camera(K, C2W, *depth.shape)
    return camera.unproject(torch.from_numpy(np.asarray(depth, dtype=np.float64))).float().numpy()


def _camera(K: ArrayLike, C2W: ArrayLike, height: int, width: int) -> Cameras:
    intrinsics, pose = (torch.from_numpy(np.array(matrix, dtype=np.float64)) for matrix in (K, C2W))
    return Cameras(intrinsics[:3, :3], pose, height, width)


def _resize(rgb: Array, depth: Array, factor: float) -> tuple[Array, Array]:
    import cv2

    size = (int(rgb.shape[1] * factor), int(rgb.shape[0] * factor))
    small = cv2.resize(np.asarray(rgb), size, interpolation=cv2.INTER_AREA)
    return small, cv2.resize(np.asarray(depth), size, interpolation=cv2.INTER_NEAREST)
