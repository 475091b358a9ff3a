"""Depth maps cross-checked, fused, closed: against rooms with exact depth."""

from dataclasses import replace

import pytest
import torch

from dataloader.toy import make_boxes, make_cameras, render
from geometry.meshes import Mesh
from geometry.rasterize import Rasterizer, render_vertex_colors
from geometry.stereo.fusion import close_gaps, count_agreeing, drop_small_pieces, fit_voxel, fuse_depths
from geometry.views import Views

VOXEL = 0.06


@pytest.fixture(scope="module")
def room() -> list[Views]:
    boxes = make_boxes(3, 3)
    views = render(boxes, make_cameras(3, 6, 96, 128, boxes))
    return [views[i] for i in range(len(views))]


@pytest.fixture(scope="module")
def fused(room: list[Views]) -> Mesh:
    return fuse_depths(room, VOXEL, 4 * VOXEL)


def agreeing(room: list[Views], depth: torch.Tensor) -> torch.Tensor:
    return count_agreeing(
        room[2].cameras, depth, [(room[i].cameras, room[i].depth[0]) for i in (0, 1, 3, 4, 5)]
    )


def test_exact_depths_agree(room: list[Views]) -> None:
    count = agreeing(room, room[2].depth[0])
    assert (count >= 2).float().mean() > 0.9
    assert count.max() == 5


@pytest.mark.parametrize("factor", [0.9, 1.08])
def test_wrong_depths_do_not_agree(room: list[Views], factor: float) -> None:
    assert (agreeing(room, room[2].depth[0] * factor) >= 2).float().mean() < 0.02


def test_unknown_depths_agree_with_nothing(room: list[Views]) -> None:
    depth = room[2].depth[0].clone()
    depth[:40] = 0
    assert not agreeing(room, depth)[:40].any()
    empty = [(view.cameras, torch.zeros(96, 128)) for view in room]
    assert not count_agreeing(room[2].cameras, depth, empty).any()
    behind = room[0].cameras
    behind = replace(behind, c2w=behind.c2w @ torch.diag(torch.tensor([-1.0, 1, -1, 1]).double()))
    assert not count_agreeing(room[2].cameras, depth, [(behind, room[0].depth[0])]).any()


def test_the_fused_surface_lies_where_the_depths_say(room: list[Views], fused: Mesh) -> None:
    """A shift of half a pixel would make the error six times as large."""
    rasterizer = Rasterizer(fused)
    for view in room:
        found = rasterizer.depth(view.cameras)[0]
        seen = found > 0
        assert seen.float().mean() > 0.75
        error = (found / view.depth[0] - 1).abs()[seen]
        assert error.median() < 0.001
        assert error.quantile(0.8) < 0.003


def test_the_surface_faces_the_cameras_and_has_their_colours(room: list[Views], fused: Mesh) -> None:
    view = room[2]
    both, front = (
        render_vertex_colors(fused, view.cameras, multisample=False, cull_backfaces=cull)
        for cull in (False, True)
    )
    assert front.covered().mean() > 0.99 * both.covered().mean()
    difference = (front.image - view.images).abs().mean(0)[front.covered()[0] > 0]
    assert difference.median() < 0.03


def test_fusing_again_gives_the_same_mesh(room: list[Views], fused: Mesh) -> None:
    again = fuse_depths(room, VOXEL, 4 * VOXEL)
    assert torch.equal(again.vertices, fused.vertices)
    assert torch.equal(again.faces, fused.faces)
    closed, twice = (close_gaps(mesh, VOXEL, 0.2) for mesh in (fused, again))
    assert torch.equal(closed.vertices, twice.vertices)
    assert torch.equal(closed.faces, twice.faces)


def test_views_without_depth_are_refused(room: list[Views]) -> None:
    with pytest.raises(ValueError, match="depth"):
        fuse_depths([replace(room[0], depth=torch.zeros(1, 96, 128))], VOXEL, 4 * VOXEL)


def sheet(n: int = 40, hole: int = 0) -> Mesh:
    """A square of side 2 in z = 0 with a square hole in the middle, facing +z."""
    ticks = torch.linspace(-1, 1, n + 1, dtype=torch.float64)
    x, y = torch.meshgrid(ticks, ticks, indexing="xy")
    index = torch.arange((n + 1) ** 2).reshape(n + 1, n + 1)
    corners = torch.stack([index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]], -1)
    keep = torch.ones(n, n, dtype=torch.bool)
    keep[(n - hole) // 2 : (n + hole) // 2, (n - hole) // 2 : (n + hole) // 2] = False
    a, b, c, d = corners[keep].unbind(-1)
    faces = torch.cat([torch.stack([a, b, c], -1), torch.stack([a, c, d], -1)])
    vertices = torch.stack([x, y, torch.zeros_like(x)], -1).reshape(-1, 3)
    used, faces = faces.unique(return_inverse=True)
    return Mesh(vertices[used], faces, colors=torch.full((len(used), 3), 0.25))


def area(mesh: Mesh) -> float:
    a, b, c = (mesh.vertices[mesh.faces[:, k]] for k in range(3))
    return float(torch.linalg.cross(b - a, c - a).norm(dim=1).sum() / 2)


def test_gaps_are_closed_and_nothing_is_added_far_away() -> None:
    pierced = sheet(hole=8)
    assert area(pierced) == pytest.approx(4 - 0.16)
    closed = close_gaps(pierced, 0.05, reach=0.25)
    assert area(closed) == pytest.approx(4, abs=0.9)  # Poisson runs a little over the edge
    inside = closed.vertices[(closed.vertices[:, :2].abs() < 0.15).all(1)]
    assert len(inside) > 10
    assert inside[:, 2].abs().max() < 0.03
    nearest = torch.cdist(closed.vertices, pierced.vertices).min(1).values
    assert nearest.max() <= 0.25
    assert closed.colors is not None
    assert torch.allclose(closed.colors, torch.tensor(0.25), atol=0.02)


def test_small_pieces_are_dropped() -> None:
    large, small = sheet(20), sheet(3)
    both = Mesh(
        torch.cat([large.vertices, small.vertices + 5]),
        torch.cat([large.faces, small.faces + len(large.vertices)]),
    )
    assert len(drop_small_pieces(both, 0.01).faces) == len(both.faces)
    kept = drop_small_pieces(both, 0.1)
    assert len(kept.faces) == len(large.faces)
    assert kept.vertices.max() <= 1


def test_the_voxel_grows_until_the_surface_fits() -> None:
    points = torch.rand(5000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 10
    assert fit_voxel(points, 1.0, 100) == 1.0
    voxel = fit_voxel(points, 0.01, 100)
    assert len(torch.unique((points / (8 * voxel)).floor(), dim=0)) <= 100
    assert len(torch.unique((points / (8 * voxel / 1.25)).floor(), dim=0)) > 100
