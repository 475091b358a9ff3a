"""The warp under the names of the MegaScenes README."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from dataloader.util_3dphoto import depth2pcd, render_multiviews, render_view, unproject_depth
from geometry.mesh_files import read_mesh
from geometry.meshes import Mesh

H, W = 20, 30
K = np.array([[25.0, 0, 15.0], [0, 25.0, 10.0], [0, 0, 1]])


def photo(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A smooth 8-bit photo in [0, 1] and a smooth depth map."""
    y, x = np.mgrid[:H, :W]
    waves = np.stack([np.sin(x / 5 + seed), np.cos(y / 4), np.sin((x + y) / 6)], axis=-1)
    image = np.round(127.5 * (waves + 1)) / 255
    return image, (3 + 0.3 * np.sin(x / 7) + 0.2 * np.cos(y / 5)).astype(np.float32)


def shifted(x: float) -> np.ndarray:
    pose = np.eye(4)
    pose[0, 3] = x
    return pose


def test_the_two_lines_of_the_readme(tmp_path: Path) -> None:
    image, depth = photo()
    pose = shifted(0.2)
    mesh = unproject_depth(
        tmp_path / "mesh.ply", image, depth, K, pose, scale_factor=1.0, add_faces=True, prune_edge_faces=True
    )
    warped, z = render_view(H, W, K, pose, mesh)
    assert warped.dtype == z.dtype == np.float32
    assert warped.shape == (H, W, 3)
    inner = np.s_[1:-1, 1:-1]
    assert np.abs(warped - image)[inner].max() <= 1 / 255 + 1e-6  # the photo itself, at its own camera
    assert np.abs(z - depth)[inner].max() < 0.05  # depth is that of the first sub-sample
    written = read_mesh(tmp_path / "mesh.ply")
    assert torch.equal(written.faces, mesh.faces)
    torch.testing.assert_close(written.vertices, mesh.vertices, rtol=1e-6, atol=1e-6)
    assert b"property uchar alpha" in (tmp_path / "mesh.ply").read_bytes()[:500]


def test_colours_are_cut_to_eight_bits() -> None:
    image = np.full((H, W, 3), 0.9999)
    image[0] = 1.7
    mesh = unproject_depth(None, image, np.ones((H, W), np.float32), K, np.eye(4))
    assert mesh.colors is not None
    assert (255 * mesh.colors).round().unique().tolist() == [254, 255]


def test_without_faces_it_is_a_point_cloud_of_positive_depth() -> None:
    image, depth = photo()
    depth[3, 4:9] = 0
    cloud = unproject_depth(None, image, depth, K, shifted(1.0))
    assert len(cloud.faces) == 0
    assert len(cloud.vertices) == H * W - 5
    expected = depth2pcd(depth, K, shifted(1.0))[depth > 0]
    np.testing.assert_allclose(cloud.vertices.numpy(), expected, rtol=1e-5)


def test_half_the_size_has_a_quarter_of_the_vertices_over_the_same_field_of_view() -> None:
    image, _ = photo()
    flat = np.full((H, W), 2.0, np.float32)
    small = unproject_depth(None, image, flat, K, np.eye(4), scale_factor=0.5, add_faces=True)
    assert len(small.vertices) == H * W // 4
    corner = torch.tensor([(1 - 15.0) / 25 * 2, (1 - 10.0) / 25 * 2, 2.0], dtype=torch.float64)
    torch.testing.assert_close(small.vertices[0], corner)


def test_pruning_can_be_turned_off_and_up() -> None:
    image, depth = photo()
    depth[:, 15:] += 4  # a step
    counts = [
        len(unproject_depth(None, image, depth, K, np.eye(4), add_faces=True, **options).faces)
        for options in ({"prune_edge_faces": False}, {}, {"prune_angle": 30.0})
    ]
    assert counts[0] == 2 * (H - 1) * (W - 1)
    assert counts[0] > counts[1] > counts[2] > 0


def test_several_views_are_those_rendered_one_by_one() -> None:
    mesh = unproject_depth(None, *photo(), K, np.eye(4), add_faces=True)
    poses = [shifted(x) for x in (-0.3, 0.0, 0.4)]
    colors, depths = render_multiviews(H, W, K, poses, mesh)
    assert colors.shape == (3, H, W, 3)
    for i, pose in enumerate(poses):
        color, depth = render_view(H, W, K, pose, mesh)
        np.testing.assert_array_equal(colors[i], color)
        np.testing.assert_array_equal(depths[i], depth)


def test_meshes_of_a_list_hide_each_other() -> None:
    image, _ = photo()
    near, far = (
        unproject_depth(
            None, np.full_like(image, grey), np.full((H, W), z, np.float32), K, np.eye(4), add_faces=True
        )
        for grey, z in ((0.2, 1.0), (0.8, 5.0))
    )
    colors, depths = render_multiviews(H, W, K, [shifted(0.6)], [far, near])
    assert set(np.unique(np.round(depths))) >= {1.0, 5.0}
    near_pixels = (depths[0] > 0.5) & (depths[0] < 2) & (colors[0, ..., 0] > 0.15)
    assert near_pixels.any()
    assert np.median(colors[0][near_pixels]) == pytest.approx(51 / 255)
    with pytest.raises(ValueError, match="vertex colours"):
        render_multiviews(H, W, K, [np.eye(4)], [near, Mesh(far.vertices, far.faces)])


def test_depth_in_the_reference_frame() -> None:
    image, _ = photo()
    mesh = unproject_depth(None, image, np.full((H, W), 4.0, np.float32), K, np.eye(4), add_faces=True)
    turned = np.eye(4)
    angle = 0.3
    turned[:3, :3] = [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
    _, own = render_view(H, W, K, turned, mesh)
    _, reference = render_view(H, W, K, turned, mesh, ref_C2W=np.eye(4))
    hit = own > 0
    assert 0.3 < hit.mean() < 1
    assert np.ptp(own[hit]) > 0.5
    np.testing.assert_allclose(reference[hit], 4.0, atol=0.1)  # within the shift of the first sub-sample
    assert (reference[~hit] == 0).all()


def test_four_by_four_intrinsics_are_accepted() -> None:
    wide = np.eye(4)
    wide[:3, :3] = K
    mesh = unproject_depth(None, *photo(), wide, np.eye(4), add_faces=True)
    np.testing.assert_array_equal(
        render_view(H, W, wide, shifted(0.1), mesh)[0], render_view(H, W, K, shifted(0.1), mesh)[0]
    )
