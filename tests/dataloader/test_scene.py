"""Scenes load lazily, check what they load, and split deterministically."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from common.errors import UserError
from dataloader.framed import framed
from dataloader.framing import Framing
from dataloader.images import to_tensor, write_image
from dataloader.lenses import Lens, undistorted_camera
from dataloader.scene import Record, Scene
from geometry.cameras import pinhole
from geometry.meshes import Mesh


def test_views_hold_the_photos_in_order(posed_scene: Callable[..., Scene]) -> None:
    scene = posed_scene(5)
    views = scene.views([3, 1])
    assert views.names == ["0003", "0001"]
    assert views.images.dtype == torch.float32
    assert isinstance(scene.records[3].image, np.ndarray)
    torch.testing.assert_close(views.images[0], to_tensor(scene.records[3].image))
    torch.testing.assert_close(views.cameras.c2w[1], scene.records[1].camera.c2w)
    assert len(scene.views()) == 5
    assert len(scene.views(threads=3)) == 5


def test_resized_views_keep_their_cameras_in_step(posed_scene: Callable[..., Scene]) -> None:
    scene = posed_scene(3)
    views = scene.views(size=(12, 8))
    assert views.images.shape == (3, 3, 12, 8)
    points = torch.from_numpy(scene.points.xyz)
    full = scene.records[0].camera.project(points)[0]
    small = views.cameras[0].project(points)[0]
    torch.testing.assert_close(small, full * torch.tensor([8 / 32, 12 / 24], dtype=torch.float64))


def test_photos_of_several_sizes_need_one(posed_scene: Callable[..., Scene]) -> None:
    scene = posed_scene(2, size=[(24, 32), (32, 24)])
    with pytest.raises(UserError, match="several sizes"):
        scene.views()
    assert scene.views(size=(16, 16)).images.shape == (2, 3, 16, 16)
    with pytest.raises(UserError, match="no view was chosen"):
        scene.views([])


def test_photos_are_read_only_when_asked_for(tmp_path: Path) -> None:
    scene = Scene("s", [Record("a", pinhole(10.0, 6, 8), tmp_path / "a.png")])
    assert scene.cameras().width == 8
    with pytest.raises(UserError, match=r"a\.png does not exist"):
        scene.views()
    write_image(np.zeros((6, 9, 3), np.uint8), tmp_path / "a.png")
    with pytest.raises(UserError, match=r"a\.png is 9x6, its camera says 8x6"):
        scene.views()


def test_hold_out_is_the_same_for_everyone(posed_scene: Callable[..., Scene]) -> None:
    scene = posed_scene(10)
    scene.hold_out(4)
    assert scene.split("test") == [0, 4, 8]
    assert scene.split("train") == [1, 2, 3, 5, 6, 7, 9]
    assert scene.split("all") == list(range(10))
    with pytest.raises(UserError, match=r"no split 'val'; it has \['test', 'train', 'all'\]"):
        scene.split("val")
    for every in (1, 0, -3):
        with pytest.raises(UserError, match="hold_out_every"):
            scene.hold_out(every)


def test_depth_and_validity(tmp_path: Path, posed_scene: Callable[..., Scene]) -> None:
    scene = posed_scene(2)
    depth = np.full((24, 32), 2.0, np.float32)
    depth[0, 0], depth[0, 1], depth[0, 2] = np.nan, np.inf, -1
    scene.records[0].depth = depth
    assert scene.views().depth is None  # one photo has none
    np.save(tmp_path / "d.npy", np.full((12, 16), 3000.0))  # smaller than its photo
    scene.records[1].depth, scene.records[1].depth_scale = tmp_path / "d.npy", 1e-3
    views = scene.views()
    assert views.depth is not None
    assert views.valid is not None
    assert views.depth.shape == (2, 1, 24, 32)
    assert views.depth[0, 0, 0, :4].tolist() == [0, 0, 0, 2]
    assert views.valid[0, 0, 0, :4].tolist() == [0, 0, 0, 1]
    assert torch.isfinite(views.depth).all()
    torch.testing.assert_close(views.depth[1], torch.full((1, 24, 32), 3.0))


def test_resized_depth_is_never_blended(posed_scene: Callable[..., Scene]) -> None:
    scene = posed_scene(1, size=[(24, 32)])
    scene.records[0].depth = np.where(np.arange(32) < 16, 1.0, 9.0)[None].repeat(24, 0).astype(np.float32)
    depth = scene.views(size=(17, 13)).depth
    assert depth is not None
    assert set(depth.unique().tolist()) == {1.0, 9.0}


def test_foreground(posed_scene: Callable[..., Scene]) -> None:
    scene = posed_scene(2)
    assert scene.views().foreground is None
    for record in scene.records:
        record.foreground = np.arange(32)[None].repeat(24, 0) < 8
    foreground = scene.views(size=(12, 16)).foreground
    assert foreground is not None
    assert foreground.shape == (2, 1, 12, 16)
    assert foreground[0, 0, 0].tolist() == [1.0] * 4 + [0.0] * 12


def test_mesh_is_read_once(posed_scene: Callable[..., Scene], tmp_path: Path) -> None:
    scene = posed_scene(1, size=[(8, 8)])
    assert not scene.has_mesh
    with pytest.raises(UserError, match="has no mesh"):
        scene.mesh()
    (tmp_path / "m.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    scene.mesh_path = tmp_path / "m.obj"
    mesh = scene.mesh()
    assert isinstance(mesh, Mesh)
    assert mesh.faces.tolist() == [[0, 1, 2]]
    assert scene.mesh() is mesh


def test_a_lens_is_removed_on_loading(tmp_path: Path) -> None:
    """A straight line in the world that the lens bends is straight in the loaded photo."""
    height, width = 120, 160
    plain = pinhole(110.0, height, width)
    lens = Lens(plain.K.numpy().copy(), (-0.2, 0.0, 0.0), (0.0, 0.0))
    camera = undistorted_camera(plain, lens, "a")
    grid = plain.pixel_centers().reshape(-1, 2).numpy()
    ideal_y = lens.undistort(grid)[:, 1].reshape(height, width)
    grey = 127.5 * (1 + np.tanh(40 * (ideal_y - 0.25)))
    photo = np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)
    write_image(photo, tmp_path / "a.png")
    loaded = Record("a", camera, tmp_path / "a.png", lens=lens).load()
    edges = np.abs(loaded[..., 0].astype(float) - 127.5).argmin(axis=0)
    bent = np.abs(photo[..., 0].astype(float) - 127.5).argmin(axis=0)
    assert np.ptp(edges) <= 1
    assert np.ptp(bent) >= 3  # so the test can fail
    expected = camera.K[1, 1].item() * 0.25 + height / 2
    assert abs(edges.mean() + 0.5 - expected) < 1


def test_views_are_chosen_by_position(posed_scene: Callable[..., Scene]) -> None:
    scene = posed_scene(n=9)
    scene.choose_views("1,4:6", "8")
    assert scene.split("test") == [1, 4, 5]
    assert scene.split("train") == [0, 2, 3, 6, 7]


def test_left_out_views_leave_both_splits(posed_scene: Callable[..., Scene]) -> None:
    scene = posed_scene(n=9)
    scene.choose_views(left_out="::4")  # hold_out(4) holds out 0, 4 and 8
    assert scene.split("test") == []
    assert scene.split("train") == [1, 2, 3, 5, 6, 7]
    scene.choose_views()
    assert scene.split("train") == [1, 2, 3, 5, 6, 7]


@pytest.mark.parametrize(
    ("test", "left_out", "message"),
    [
        ("1,9", "", "data.test_views names photo 9: the scene has 9, numbered from 0"),
        ("", "x", "data.left_out_views is 'x'"),
        ("::0", "", "data.test_views is '::0'"),
        ("-1", "", "data.test_views is '-1'"),
        ("::1", "", "leave no photo to train from"),
        ("0", "1:", "leave no photo to train from"),
    ],
)
def test_view_lists_that_make_no_sense_are_named(
    posed_scene: Callable[..., Scene], test: str, left_out: str, message: str
) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        posed_scene(n=9).choose_views(test, left_out)


def test_views_ask_each_record_how_it_is_loaded(posed_scene: Callable[..., Scene]) -> None:
    """Kinds of records that resize, read archives or remove distortion load their photos their own way."""
    scene = framed(posed_scene(size=(24, 32)), Framing(8, 12))
    assert scene.views([0, 1]).images.shape == (2, 3, 8, 12)
