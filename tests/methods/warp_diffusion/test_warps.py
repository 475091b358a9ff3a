"""Photos and warps on the network's canvas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from dataloader.canvas import fit_canvas
from dataloader.images import resize_with_padding
from geometry.cameras import Cameras, pinhole
from geometry.meshes import join_meshes
from geometry.views import Views
from methods.warp_diffusion.warps import (
    LiftedPhotos,
    Warps,
    canvas_cameras,
    fit_views,
    to_canvas,
)
from tests.methods.warp_diffusion.tiny import room_views, tiny_config


def flat_views(depth: torch.Tensor, focal: float = 30.0) -> Views:
    """One grey photo with that depth [H, W]."""
    height, width = depth.shape
    camera = pinhole(focal, height, width)[None]
    return Views(torch.full((1, 3, height, width), 0.5), camera, depth=depth[None, None])


@pytest.mark.parametrize(
    ("height", "width"), [(21, 32), (32, 21), (32, 32), (45, 70), (20, 31), (63, 64), (1, 64)]
)
def test_photos_lie_where_pillow_pastes_them(height: int, width: int) -> None:
    """Also where the padding is odd: cutting undoes pasting to the pixel."""
    canvas = fit_canvas(height, width, 32)
    image = torch.rand(1, 3, canvas.height, canvas.width)
    padded = to_canvas(image, canvas)
    assert padded.shape == (1, 3, 32, 32)
    assert torch.equal(canvas.cut(padded), image)
    assert int((padded == 1).all(1).sum()) == 32 * 32 - canvas.height * canvas.width
    black = Image.fromarray(np.zeros((height, width, 3), np.uint8))
    pasted = np.asarray(resize_with_padding(black, 32)[0]).any(-1)
    assert torch.equal(torch.from_numpy(pasted), (to_canvas(torch.zeros_like(image), canvas) == 1).all(1)[0])


def test_views_are_fitted_with_their_cameras() -> None:
    views = room_views(2, height=45, width=70)
    fitted = fit_views(views, 32)
    assert (fitted.cameras.height, fitted.cameras.width) == fitted.images.shape[-2:] == (20, 32)
    assert fitted.depth is not None
    assert views.depth is not None
    assert set(fitted.depth.flatten().tolist()) <= set(views.depth.flatten().tolist())  # nearest, not mixed
    assert fit_views(fitted, 32) is fitted
    before, after = views.cameras.K, fitted.cameras.K
    torch.testing.assert_close(after[:, 0] / 32, before[:, 0] / 70)
    torch.testing.assert_close(after[:, 1] / 20, before[:, 1] / 45)


def test_the_photo_warped_to_its_own_camera_is_the_photo() -> None:
    views = room_views(1)
    for edges in ("full", "faded"):
        photos = LiftedPhotos(views, tiny_config(warp_edges=edges, max_angle=90.0))
        warps = photos.warp([0], views.cameras)
        assert (len(warps), warps.faded) == (1, edges == "faded")
        inside = warps.coverage == 1
        assert float(inside.float().mean()) > 0.85
        error = ((warps.full() - views.images).abs() * inside).sum() / inside.sum() / 3
        assert float(error) < 0.03
        assert not (warps.image * (warps.coverage == 0)).any()


def test_faded_warps_get_their_colours_back() -> None:
    canvas = fit_canvas(2, 2, 2)
    coverage = torch.tensor([[[[1.0, 0.25], [0.5, 0.0]]]])
    warps = Warps(0.8 * coverage.expand(1, 3, 2, 2), coverage, coverage, canvas, faded=True)
    torch.testing.assert_close(warps.full(), 0.8 * (coverage > 0).expand(1, 3, 2, 2).float())
    assert torch.equal(Warps(warps.image, coverage, coverage, canvas).full(), warps.image)
    assert float(warps[0:1].padded_coverage().sum()) == 1.75


def test_sky_is_a_wall_or_nothing() -> None:
    """A third of the photo lies far beyond 100 units of the nearest fifth's depth."""
    depth = torch.full((24, 24), 2.0)
    depth[:8] = 1e4
    views = flat_views(depth)
    wall = LiftedPhotos(views, tiny_config(sky="wall")).warp([0], views.cameras)
    drop = LiftedPhotos(views, tiny_config(sky="drop")).warp([0], views.cameras)
    assert LiftedPhotos(views, tiny_config()).scales == [pytest.approx(2.0)]
    sky = slice(0, 8)  # rows of the canvas, whose side is 32: 24 -> 32
    assert float(wall.coverage[..., sky, 4:-4].mean()) > 0.9
    assert float(wall.depth[..., 2, 16].mean()) == pytest.approx(200, rel=1e-3)
    assert not drop.coverage[..., sky, :].any()
    assert float(drop.coverage[..., 14:-2, 4:-4].mean()) > 0.95


def test_what_lies_behind_or_beside_is_not_covered() -> None:
    views = flat_views(torch.full((24, 24), 2.0))
    turned = views.cameras.c2w.clone()
    turned[:, :3, :3] = turned[:, :3, :3] @ torch.diag(torch.tensor([-1.0, 1, -1], dtype=turned.dtype))
    away = Cameras(views.cameras.K, turned, 24, 24)
    warps = LiftedPhotos(views, tiny_config()).warp([0], away)
    assert not warps.coverage.any()
    assert not warps.image.any()


def test_photos_without_depth_have_unit_scale_and_no_mesh() -> None:
    views = room_views(1)
    photos = LiftedPhotos(Views(views.images, views.cameras), tiny_config())
    assert photos.scales == [1.0]
    with pytest.raises(ValueError, match="without depth"):
        photos.mesh(0)


def test_joined_meshes_keep_their_faces() -> None:
    photos = LiftedPhotos(room_views(2), tiny_config())
    first, second = photos.mesh(0), photos.mesh(1)
    both = join_meshes([first, second])
    assert len(both.faces) == len(first.faces) + len(second.faces)
    assert torch.equal(both.vertices[both.faces[len(first.faces) :]], second.vertices[second.faces])
    assert join_meshes([first]) is first


def test_canvas_cameras_look_through_the_padding() -> None:
    """A point of the photo falls on the same place of the canvas, at any size of it."""
    camera = pinhole(40.0, 45, 70)[None]
    canvas = fit_canvas(45, 70, 32)
    whole = canvas_cameras(camera, canvas, 32)
    point = torch.tensor([[0.3, -0.2, 2.0]], dtype=torch.float64)
    there, _ = whole.project(point)
    fitted, _ = camera.resize(canvas.height, canvas.width).project(point)
    torch.testing.assert_close(there, fitted + torch.tensor([canvas.left, canvas.top]).double())
    small, _ = canvas_cameras(camera, canvas, 16).project(point)
    torch.testing.assert_close(small, there / 2)
