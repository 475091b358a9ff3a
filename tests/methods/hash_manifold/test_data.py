"""Draws of pixels: keyed, only those that see the surface, from the photos that were asked for."""

from dataclasses import fields

import pytest
import torch

from common.errors import UserError
from dataloader import toy
from dataloader.scene import Scene
from dataloader.surface_rays import CastRays
from geometry.meshes import Mesh
from geometry.rasterize import Rasterizer
from methods.hash_manifold.data import PixelSample, PixelSamples
from methods.hash_manifold.surface import Surface


@pytest.fixture(scope="module")
def room() -> Scene:
    return toy.make_scene(3, n_views=6, height=24, width=32)


def pixel_samples(scene: Scene, mesh: Mesh | None = None, rays: int = 200, views: int = 0) -> PixelSamples:
    mesh = mesh or scene.mesh()
    source = CastRays(scene, range(len(scene)), mesh)
    return PixelSamples(source, source.cameras, Surface(mesh), rays, views)


def some_faces(scene: Scene, share: float) -> Mesh:
    mesh = scene.mesh()
    return Mesh(mesh.vertices, mesh.faces[: int(share * len(mesh.faces))])


def equal(a: PixelSample, b: PixelSample) -> bool:
    return all(torch.equal(getattr(a, item.name), getattr(b, item.name)) for item in fields(PixelSample))


def test_a_draw_is_a_function_of_its_seed(room: Scene) -> None:
    samples = pixel_samples(room)
    assert equal(samples.draw(0, 5), samples.draw(9, 5))
    assert not equal(samples.draw(0, 5), samples.draw(0, 6))


def test_all_pixels_see_the_surface_even_where_most_do_not(room: Scene) -> None:
    samples = pixel_samples(room, some_faces(room, 0.2))
    drawn = samples.draw(0, 1)
    assert (drawn.face >= 0).all()
    assert drawn.face.shape == (200, 1)


def test_photos_are_drawn_from_alike(room: Scene) -> None:
    counts = pixel_samples(room, rays=6000).draw(0, 2).photo.bincount(minlength=6)
    assert counts.min() > 850
    assert counts.sum() == 6000


def test_views_gives_so_many_rays_of_so_many_photos(room: Scene) -> None:
    drawn = pixel_samples(room, rays=50, views=4).draw(0, 3)
    assert drawn.photo.bincount()[drawn.photo.unique()].tolist() == [50] * 4
    everything = pixel_samples(room, rays=50, views=32).draw(0, 3)
    assert everything.photo.bincount().tolist() == [50] * 6


def test_colours_and_cameras_belong_to_the_pixels(room: Scene) -> None:
    """Project each surface point into its photo: the pixel there has the drawn colour."""
    samples = pixel_samples(room)
    drawn = samples.draw(0, 4)
    surface = Surface(room.mesh())
    points = surface.points(drawn.face, drawn.barycentric)[:, 0].double() + surface.center
    for photo, record in enumerate(room.records):
        rows = drawn.photo == photo
        pixels, _ = record.camera.project(points[rows])
        assert ((pixels - 0.5) - (pixels - 0.5).round()).abs().max() < 1e-3
        x, y = (pixels - 0.5).round().long().unbind(-1)
        assert torch.equal(drawn.color[rows], torch.from_numpy(record.load())[y, x])
        torch.testing.assert_close(
            drawn.eye[rows].double(),
            (record.camera.center - surface.center).expand(int(rows.sum()), 3),
            atol=1e-6,
            rtol=0,
        )


def test_collate_joins(room: Scene) -> None:
    samples = pixel_samples(room, rays=20)
    joined = samples.collate([samples.draw(0, 1), samples.draw(0, 2)])
    assert joined.face.shape == (40, 1)
    assert torch.equal(joined.color[20:], samples.draw(0, 2).color)


def test_fewer_pixels_than_rays_is_said_once(room: Scene, caplog: pytest.LogCaptureFixture) -> None:
    pixel_samples(room, rays=10_000)
    assert [record.getMessage() for record in caplog.records] == [
        "the training photos offer 4608 pixels, model.rays asks for 10000: pixels repeat within a step"
    ]


def test_a_mesh_that_no_photo_sees_is_named(room: Scene) -> None:
    mesh = room.mesh()
    away = Mesh(mesh.vertices * 1e-9 + 1e5, mesh.faces)
    with pytest.raises(UserError, match="none of the 6 views sees the mesh, which lies within"):
        pixel_samples(room, away)


def unseen_by(scene: Scene, index: int) -> Mesh:
    """The scene's mesh without the faces that one view sees, or comes to see through the holes."""
    mesh, camera = scene.mesh(), scene.records[index].camera
    while (seen := Rasterizer(mesh).rasterize(camera).face.unique())[-1] >= 0:
        kept = torch.ones(len(mesh.faces), dtype=torch.bool)
        kept[seen[seen >= 0]] = False
        mesh = Mesh(mesh.vertices, mesh.faces[kept])
    return mesh


def test_a_photo_that_sees_nothing_is_named_and_left_out(
    room: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    drawn = pixel_samples(room, unseen_by(room, 2)).draw(0, 0)
    assert sorted(drawn.photo.unique().tolist()) == [0, 1, 3, 4, 5]
    assert "view 0002 is left out: none of 768 pixels tried sees the mesh" in caplog.text
