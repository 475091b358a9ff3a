"""Warping: known surfaces, visibility, and the stereo photo."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from geometry.cameras import Cameras, pinhole, stack_cameras
from geometry.meshes import Mesh
from geometry.rasterize import Rasterizer
from geometry.views import Views
from geometry.warp import fill_nearest, locate, sample_views, warp

HEIGHT, WIDTH, FOCAL = 24, 36, 30.0


def camera_at(x: float, y: float = 0.0, z: float = 0.0) -> Cameras:
    """A camera of the test size looking along +z from (x, y, z)."""
    c2w = torch.eye(4, dtype=torch.float64)
    c2w[:3, 3] = torch.tensor([x, y, z], dtype=torch.float64)
    return pinhole(FOCAL, HEIGHT, WIDTH, c2w)


def rectangle(z: float, left: float, right: float, top: float = -50.0, bottom: float = 50.0) -> Mesh:
    """An upright rectangle that faces the cameras."""
    x, y = [left, left, right, right], [top, bottom, bottom, top]
    corners = torch.tensor([x, y, [z] * 4], dtype=torch.float64).T
    return Mesh(corners, torch.tensor([[0, 1, 2], [0, 2, 3]]))


def joined(*meshes: Mesh) -> Mesh:
    offsets = torch.tensor([0, *[len(mesh.vertices) for mesh in meshes]]).cumsum(0)
    faces = torch.cat([mesh.faces + offset for mesh, offset in zip(meshes, offsets, strict=False)])
    return Mesh(torch.cat([mesh.vertices for mesh in meshes]), faces)


def painted(points: Tensor) -> Tensor:
    """A colour field [..., 3] that bilinear interpolation reproduces on a plane parallel to the image."""
    x, y, z = points.unbind(-1)
    return torch.stack([0.5 + 0.02 * x, 0.5 + 0.02 * y, z / 10], dim=-1)


def photograph(mesh: Mesh, cameras: Cameras) -> Views:
    """Views [J] of a mesh painted by `painted`, with their depth; white where there is no surface."""
    depth = Rasterizer(mesh).depth(cameras)  # [J, 1, H, W]
    colors = painted(cameras.unproject(depth[:, 0].double())).movedim(-1, 1)
    return Views(torch.where(depth > 0, colors, 1.0).float(), cameras, depth=depth)


@given(st.floats(-1, 1), st.floats(-1, 1), st.floats(-0.5, 0.5))
@settings(max_examples=15, deadline=None)
def test_a_lifted_plane_is_repainted_wherever_it_is_seen_from(x: float, y: float, z: float) -> None:
    plane = rectangle(4.0, -50, 50)
    source = photograph(plane, stack_cameras([camera_at(0)]))
    target = camera_at(x, y, z)
    truth = photograph(plane, stack_cameras([target])).images[0]
    warped = warp(source, target)
    assert warped.opacity is not None
    full = (warped.opacity[0] == 1).expand(3, -1, -1)
    assert full.float().mean() > 0.4
    torch.testing.assert_close(warped.image[full], truth[full], rtol=0, atol=1e-4)


def test_a_depth_step_is_torn_and_leaves_a_hole() -> None:
    scene = joined(rectangle(2.0, -50, 0), rectangle(6.0, -50, 50))
    source = photograph(scene, stack_cameras([camera_at(0)]))
    warped = warp(source[0], camera_at(0.6))  # the camera moves right: background comes into view at the edge
    assert warped.opacity is not None
    assert warped.depth is not None
    hole = warped.opacity[0, HEIGHT // 2] == 0
    edge = 18 - FOCAL * 0.6 / 2  # where the near rectangle now ends
    columns = hole.nonzero()[:, 0] + 0.5
    inner = columns[columns < 32]  # the right border is out of the source's view
    assert inner.min() > edge - 1
    assert inner.max() < 18 - FOCAL * 0.6 / 6 + 1
    assert len(inner) > 4


def test_untorn_lifting_bridges_the_step() -> None:
    scene = joined(rectangle(2.0, -50, 0), rectangle(6.0, -50, 50))
    source = photograph(scene, stack_cameras([camera_at(0)]))
    warped = warp(source, camera_at(0.6), max_angle=None)
    assert warped.opacity is not None
    assert (warped.opacity[0, HEIGHT // 2, 2:30] == 1).all()


def test_a_mesh_takes_the_colours_of_the_views_that_see_it() -> None:
    scene = joined(rectangle(2.0, -1, 1, -1, 1), rectangle(6.0, -50, 50))
    sources = photograph(scene, stack_cameras([camera_at(-1.5), camera_at(1.5)]))
    targets = stack_cameras([camera_at(0), camera_at(0.2, 0.1)])
    truth = photograph(scene, targets).images
    warped = warp(sources, targets, scene)
    assert warped.opacity is not None
    seen = (warped.opacity == 1).expand(-1, 3, -1, -1)
    assert seen.float().mean() > 0.65  # the rest is outside both photos, or hidden in them
    error = (warped.image - truth).abs()[seen]
    assert error.quantile(0.97) < 1e-3  # the rest mixes with what lies beside a silhouette
    assert error.max() < 0.05
    assert (warped.image[~seen] == 0).all()


def test_hidden_points_are_not_seen() -> None:
    near, far = rectangle(2.0, -1, 1, -1, 1), rectangle(6.0, -50, 50)
    sources = photograph(joined(near, far), stack_cameras([camera_at(0), camera_at(30)]))
    assert sources.depth is not None
    points = torch.tensor([[0, 0, 6.0], [0, 0, 2.0], [3.05, 0, 6.0], [3.4, 0, 6.0], [0, 0, -3.0]]).double()
    colors, visible = sample_views(points, sources, sources.depth)
    # behind the near rectangle, on it, just outside its shadow (that ends at 3), outside it, behind the view
    assert visible.tolist() == [[False, True, False, True, False], [False] * 5]
    torch.testing.assert_close(colors[0, 1].double(), painted(points[1]), rtol=0, atol=1e-3)


def test_a_view_that_looks_elsewhere_gives_no_opacity() -> None:
    plane = rectangle(4.0, -50, 50)
    source = photograph(plane, stack_cameras([camera_at(0)]))
    away = camera_at(0)
    away.c2w[:3, :3] = torch.diag(torch.tensor([-1.0, 1.0, -1.0], dtype=torch.float64))
    for warped in (warp(source, away), warp(source, away, plane)):
        assert warped.opacity is not None
        assert warped.opacity.max() == 0
        assert warped.image.max() == 0


def test_pixel_centres_are_sampled_exactly() -> None:
    generator = torch.Generator().manual_seed(0)
    camera = stack_cameras([camera_at(0.3, -0.2, 0.1)])
    source = Views(torch.rand(1, 3, HEIGHT, WIDTH, generator=generator), camera)
    depth = 1 + torch.rand(1, 1, HEIGHT, WIDTH, generator=generator)
    points = camera.unproject(depth[:, 0].double())[0]  # [H, W, 3]
    colors, visible = sample_views(points, source, torch.zeros_like(depth))
    assert colors.shape == (1, HEIGHT, WIDTH, 3)
    torch.testing.assert_close(colors[0].movedim(-1, 0), source.images[0], rtol=0, atol=1e-4)
    assert visible.all()  # nothing is known to hide anything


def test_locate_knows_the_borders_of_the_image() -> None:
    camera = stack_cameras([camera_at(0)])
    z = 2.0
    right, top = WIDTH / 2, -HEIGHT / 2
    edge = torch.tensor([[right - 0.01, 0], [right + 0.01, 0], [0, top + 0.01], [0, top - 0.01]])
    points = torch.cat([edge * z / FOCAL, torch.full((4, 1), z)], dim=1).double()
    pixels, depth, inside = locate(points, camera)
    assert inside.tolist() == [[True, False, True, False]]
    assert pixels.shape == (1, 4, 2)
    assert (depth == z).all()


def test_what_is_missing_is_said() -> None:
    view = Views(torch.zeros(2, 3, HEIGHT, WIDTH), stack_cameras([camera_at(0), camera_at(1)]))
    with pytest.raises(ValueError, match="needs a mesh, or a view with depth"):
        warp(view, camera_at(0))
    view.depth = torch.ones(2, 1, HEIGHT, WIDTH)
    with pytest.raises(ValueError, match="one view is lifted at a time"):
        warp(view, camera_at(0))


def test_batches_of_targets_keep_their_shape() -> None:
    plane = rectangle(4.0, -50, 50)
    source = photograph(plane, stack_cameras([camera_at(0)]))
    targets = stack_cameras([camera_at(0.1 * i) for i in range(6)]).reshape(2, 3)
    for mesh in (None, plane):
        warped = warp(source, targets, mesh)
        assert warped.depth is not None
        assert warped.opacity is not None
        assert warped.image.shape == (2, 3, 3, HEIGHT, WIDTH)
        assert warped.depth.shape == warped.opacity.shape == (2, 3, 1, HEIGHT, WIDTH)
        alone = warp(source, targets[1, 2], mesh)
        torch.testing.assert_close(alone.image, warped.image[1, 2])


def test_the_left_stereo_photo_shows_the_right_one() -> None:
    """The built-in pair with its true depth: at least 27 dB over at least 78 % of the pixels."""
    from dataloader.builtin import motorcycle

    views = motorcycle()
    left, right = views.views([0]), views.views([1])
    warped = warp(left, right.cameras)
    covered = warped.covered()[0, 0] == 1
    error = (warped.image[0] - right.images[0])[:, covered].square().mean()
    assert covered.float().mean() >= 0.78
    assert -10 * error.log10() >= 27


def test_rendering_a_lifted_view_at_its_own_camera_returns_the_photo() -> None:
    generator = torch.Generator().manual_seed(1)
    camera = stack_cameras([camera_at(0)])
    source = Views(
        torch.rand(1, 3, HEIGHT, WIDTH, generator=generator),
        camera,
        depth=torch.full((1, 1, HEIGHT, WIDTH), 3.0),
    )
    warped = warp(source, camera)
    inner = (..., slice(1, -1), slice(1, -1))  # the surface ends at the outer pixel centres
    torch.testing.assert_close(warped.image[inner], source.images[inner], rtol=0, atol=1e-4)


def test_holes_take_the_nearest_known_colour() -> None:
    image = torch.tensor([[[0.1, 0.0, 0.0, 0.9]]])
    known = torch.tensor([[True, False, False, True]])
    torch.testing.assert_close(fill_nearest(image, known), torch.tensor([[[0.1, 0.1, 0.9, 0.9]]]))
    assert torch.equal(fill_nearest(image, torch.zeros_like(known)), image)
