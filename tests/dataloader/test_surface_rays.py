"""Rays cast on demand: the same as rasterising whole views, for photos of any size."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from common.errors import UserError
from dataloader.scene import Scene
from dataloader.surface_rays import CastRays, SurfaceRays
from geometry.meshes import Mesh
from geometry.rasterize import Rasterizer

SIZES = [(12, 16), (9, 20), (12, 16), (14, 10)]


def tetrahedron() -> Mesh:
    """A shape around the origin that fills part of the small scenes' photos."""
    corners = torch.tensor([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], dtype=torch.float64)
    return Mesh(corners, torch.tensor([[0, 1, 2], [0, 2, 3], [0, 3, 1], [1, 3, 2]]))


@pytest.fixture
def scene(posed_scene: Callable[..., Scene]) -> Scene:
    """Four photos of different sizes of a tetrahedron."""
    made = posed_scene(4, seed=3, size=SIZES, off_center=1.5)
    made.surface = tetrahedron()
    return made


def all_rays(source: CastRays) -> SurfaceRays:
    view = torch.repeat_interleave(torch.arange(len(source.sizes)), source.sizes)
    return source.take(view, torch.cat([torch.arange(n) for n in source.sizes.tolist()]))


@pytest.mark.parametrize("supersample", [1, 2, 3])
def test_every_pixel_is_what_the_rasteriser_sees(scene: Scene, supersample: int) -> None:
    source = CastRays(scene, [3, 0, 1], scene.mesh(), supersample)
    rays = all_rays(source)
    assert source.sizes.tolist() == [140, 192, 180]
    for position, index in enumerate([3, 0, 1]):
        camera = scene.records[index].camera
        large = camera.resize(supersample * camera.height, supersample * camera.width)
        seen = Rasterizer(scene.mesh()).rasterize(large)
        mine = rays.view == position
        shape = (camera.height, camera.width, supersample, supersample)
        face = rays.face[mine].reshape(shape).permute(0, 2, 1, 3).reshape(large.height, large.width)
        same = face == seen.face[0]
        assert same.float().mean() > 0.999  # a ray along an edge may choose either side
        weights = rays.barycentric[mine].reshape(*shape, 3).permute(0, 2, 1, 3, 4).reshape(*face.shape, 3)
        torch.testing.assert_close(weights[same], seen.barycentric[0][same], rtol=0, atol=1e-5)
        photo = torch.from_numpy(scene.records[index].load().reshape(-1, 3))
        assert torch.equal(rays.color[mine], photo)


def test_missed_sub_samples_hold_nothing(scene: Scene) -> None:
    rays = all_rays(CastRays(scene, range(4), scene.mesh(), 2))
    missed = ~rays.covered
    assert missed.all(-1).any()
    assert (missed.any(-1) & ~missed.all(-1)).any()
    assert (rays.face[missed] == -1).all()
    assert (rays.barycentric[missed] == 0).all()
    torch.testing.assert_close(rays.barycentric.sum(-1), rays.covered.float())


def test_positions_project_to_their_sub_samples(scene: Scene) -> None:
    source = CastRays(scene, range(4), scene.mesh(), 2)
    view, row = torch.tensor([2, 0, 1, 0]), torch.tensor([100, 88, 70, 107])
    rays = source.take(view, row)
    assert rays.view.tolist() == [2, 0, 1, 0]
    points = rays.interpolate(scene.mesh().faces, scene.mesh().vertices)
    for i in range(4):
        camera = scene.records[int(view[i])].camera
        pixels, _ = camera.project(points[i])
        corner = torch.tensor([row[i] % camera.width, row[i] // camera.width])
        offsets = torch.tensor([[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]])
        hit = rays.covered[i]
        assert hit.any()
        torch.testing.assert_close(pixels[hit], (corner + offsets).double()[hit], rtol=0, atol=1e-4)


def test_large_coordinates_keep_their_precision(scene: Scene) -> None:
    far = torch.tensor([5e5, 5e6, 300.0], dtype=torch.float64)
    near = all_rays(CastRays(scene, range(4), scene.mesh()))
    for record in scene.records:
        record.camera.c2w[:3, 3] += far
    mesh = Mesh(scene.mesh().vertices + far, scene.mesh().faces)
    moved = all_rays(CastRays(scene, range(4), mesh))
    assert (moved.face == near.face).float().mean() > 0.995
    same = moved.face == near.face
    torch.testing.assert_close(moved.barycentric[same], near.barycentric[same], rtol=0, atol=1e-4)


def test_larger_photos_are_reduced(scene: Scene) -> None:
    source = CastRays(scene, range(4), scene.mesh(), max_size=10)
    assert source.shapes.tolist() == [[8, 10], [4, 10], [8, 10], [10, 7]]


@pytest.mark.parametrize(
    ("indices", "message"), [([], "no view was chosen"), ([0, 4], "no view 4"), ([-1], "-1")]
)
def test_views_that_do_not_exist(scene: Scene, indices: list[int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        CastRays(scene, indices, scene.mesh())


def test_an_empty_draw(scene: Scene) -> None:
    none = torch.zeros(0, dtype=torch.int64)
    rays = CastRays(scene, [0], scene.mesh(), 2).take(none, none)
    assert rays.face.shape == (0, 4)
    assert rays.barycentric.shape == (0, 4, 3)
