"""What a lifted scene leaves on disk, read back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import plyfile
import pytest
import torch

from common.errors import UserError
from dataloader.formats import open_scene
from dataloader.images import read_image, to_uint8
from geometry.cameras import Cameras
from geometry.gaussian_files import read_gaussians
from geometry.poses import look_at
from geometry.rasterize import Rasterizer
from geometry.views import Rendering
from methods.scene_lifting.outputs import fly_through, surface, write_film, write_scene
from methods.scene_lifting.state import LiftedScene
from tests.methods.scene_lifting.lifted_rooms import lifted_room


@pytest.fixture(scope="module")
def room() -> LiftedScene:
    return lifted_room()


@pytest.fixture(scope="module")
def folder(room: LiftedScene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("written") / "scene"
    written = write_scene(room, folder)
    assert sorted(written) == sorted(path for path in folder.rglob("*") if path.is_file())
    return folder


def test_points_keep_their_number_places_and_colors(room: LiftedScene, folder: Path) -> None:
    vertex = plyfile.PlyData.read(str(folder / "points.ply"))["vertex"]
    assert len(vertex) == len(room.points)
    assert np.array_equal(np.stack([vertex[axis] for axis in "xyz"], -1), room.points.numpy())
    colors = np.stack([vertex[channel] for channel in ("red", "green", "blue")], -1) / 255
    assert np.abs(colors - room.colors.numpy()).max() < 1 / 255


def test_the_folder_is_a_scene_of_the_repository(room: LiftedScene, folder: Path) -> None:
    scene = open_scene(folder)
    assert scene.names == [view.name for view in room.views]
    views = scene.views()
    assert views.depth is not None
    for i, view in enumerate(room.views):
        assert torch.allclose(views.cameras[i].c2w, view.camera.c2w, atol=1e-12)
        assert torch.allclose(views.cameras[i].K, view.camera.K, atol=1e-9)
        assert torch.allclose(views.depth[i, 0], view.depth, rtol=1e-6)
        assert np.array_equal(to_uint8(views.images[i]), to_uint8(view.image))
    assert len(scene.mesh().faces) == len(surface(room).faces)


def test_gaussians_are_the_points_until_they_are_optimised(room: LiftedScene, tmp_path: Path) -> None:
    write_scene(room, tmp_path)
    gaussians = read_gaussians(tmp_path / "gaussians.ply")
    assert torch.equal(gaussians.means, room.points)
    moved = replace(room, gaussians=replace(gaussians, means=gaussians.means[:5] + 1, **_first(gaussians, 5)))
    write_scene(moved, tmp_path)
    assert torch.equal(read_gaussians(tmp_path / "gaussians.ply").means, room.points[:5] + 1)


def _first(gaussians, n: int) -> dict:
    names = ("log_scales", "quaternions", "opacity_logits", "sh_dc", "sh_rest")
    return {name: getattr(gaussians, name)[:n] for name in names}


def test_the_surface_shows_the_photo_from_its_camera(room: LiftedScene) -> None:
    view = room.views[0]
    seen = Rasterizer(surface(room)).depth(view.camera)
    depth = torch.as_tensor(seen).reshape(view.depth.shape)
    hit = depth > 0
    assert hit[1:-1, 1:-1].float().mean() > 0.85  # the rest are torn edges
    assert ((depth - view.depth).abs() / view.depth)[hit].median() < 1e-3


def test_views_bring_new_pixels_only_and_meet_without_a_gap() -> None:
    flat = lifted_room(yaws=(0.0, 25.0))
    for view in flat.views:  # a sphere about the cameras: no edges, and depth that fits in between
        rays = view.camera.rays()[1]
        view.depth = (2 * rays @ view.camera.c2w[:3, 2]).float()
    new = int((~flat.views[1].known).sum())
    assert 0 < new < flat.views[1].known.numel() / 2
    first, both = surface(replace(flat, views=flat.views[:1])), surface(flat)
    assert len(both.vertices) - len(first.vertices) < new + 2 * 48 + 4
    between = flat.views[0].camera.with_poses(
        look_at(*torch.tensor([[0.0, 0, 0], [0.25, 0, 1], [0, 1, 0]]).double())
    )
    depth = torch.as_tensor(Rasterizer(both).depth(between)).reshape(48, 64)
    assert (depth[6:-6, 6:-6] > 0).all()


def test_pictures_show_what_was_known(room: LiftedScene, folder: Path) -> None:
    for view in room.views:
        shown = read_image(folder / "views" / f"{view.name}_known.png")
        assert np.array_equal(shown[..., 0] > 127, view.known.numpy())
        assert read_image(folder / "views" / f"{view.name}_depth.png").any(-1).all()


def test_nothing_is_written_for_no_views(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="without views"):
        write_scene(LiftedScene(torch.zeros(0, 3), torch.zeros(0, 3)), tmp_path / "scene")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="choose another"):
        write_scene(lifted_room(8, 8, (0.0,)), tmp_path / "file" / "scene")


def yaw(cameras: Cameras) -> torch.Tensor:
    return torch.rad2deg(torch.atan2(cameras.c2w[:, 0, 2], cameras.c2w[:, 2, 2]))


def test_the_film_sweeps_from_one_end_to_the_other(room: LiftedScene) -> None:
    turned = yaw(fly_through(room, 21))
    assert torch.allclose(turned[[0, 10, 20]].abs(), torch.tensor([25.0, 0, 25]).double(), atol=0.1)
    steps = turned.diff()
    assert (steps.sign() == steps[0].sign()).all()
    assert torch.allclose(steps, steps.mean().expand(20), rtol=0.05)


def test_a_full_turn_is_one_sweep() -> None:
    turns = (0.0, *(float(25 * i) for i in range(1, 11)), 272.5, 316.25)
    turned = yaw(fly_through(lifted_room(8, 8, turns), 60)).deg2rad()
    steps = torch.atan2(turned.diff().sin(), turned.diff().cos())
    assert (steps.sign() == steps[0].sign()).all()
    assert 310 < steps.sum().abs().rad2deg() < 340


def test_a_single_view_is_swayed_before() -> None:
    scene = lifted_room(12, 16, (0.0,))
    cameras = fly_through(scene, 16)
    assert len(cameras) == 16
    assert torch.allclose(cameras.c2w[:, :3, :3], torch.eye(3).double().expand(16, 3, 3))
    away = cameras.center.norm(dim=-1)
    assert 0.001 < away.max() < 0.2 * scene.views[0].depth.min()


def test_film_there_and_back(tmp_path: Path, room: LiftedScene) -> None:
    import imageio_ffmpeg

    def shade(camera: Cameras) -> Rendering:
        return Rendering(torch.full((3, 48, 64), float(yaw(camera.reshape(1))) / 50 + 0.5))

    write_film(fly_through(room, 8), shade, [tmp_path / "film.mp4"], fps=10)
    frames = imageio_ffmpeg.read_frames(str(tmp_path / "film.mp4"))
    next(frames)
    means = [np.frombuffer(frame, np.uint8).mean() for frame in frames]
    assert len(means) == 14
    assert np.allclose(means[1:], means[:0:-1], atol=3)
    assert abs(means[0] - means[7]) > 50
