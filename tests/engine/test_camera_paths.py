from pathlib import Path

import pytest
import torch

from common.errors import UserError
from dataloader import toy
from dataloader.builtin import motorcycle
from dataloader.scene import Scene
from engine.camera_paths import BETWEEN_SOURCES, path_name, recorded, scene_path
from engine.config import DataConfig
from geometry.cameras import pinhole
from geometry.path_files import write_camera_path
from geometry.paths import PATHS, orbit
from geometry.rig_path_files import write_rig_path


@pytest.fixture(scope="module")
def room() -> Scene:
    return toy.make_scene(0, n_views=9, height=24, width=32)


@pytest.mark.parametrize("path", sorted((*PATHS, *BETWEEN_SOURCES)))
def test_every_path_by_name_gives_the_frames_asked_for(room: Scene, path: str) -> None:
    cameras, fps = scene_path(path, room, DataConfig(), frames=7)
    assert cameras.shape == (7,)
    assert (cameras.height, cameras.width) == (24, 32)
    assert fps == (30 if path in BETWEEN_SOURCES else None)
    assert torch.isfinite(cameras.c2w).all()


@pytest.mark.parametrize("path", ["orbit", "spiral", "lateral"])
def test_paths_around_a_photo_keep_its_subject_in_view(path: str) -> None:
    """A narrow lens: what the photo shows at its depth unit stays within the frame along the whole path."""
    scene = motorcycle()
    cameras, _ = scene_path(path, scene, DataConfig())
    depth = scene.views([0]).depth
    assert depth is not None
    subject = scene.records[0].camera.unproject(
        torch.full((500, 741), float(depth[depth > 0].quantile(0.2))).double()
    )
    pixels, _ = cameras.project(subject[250:251, 370].expand(len(cameras), 1, 3))
    assert (pixels > 0).all()
    assert (pixels[..., 0] < 741).all()
    assert (pixels[..., 1] < 500).all()


def test_megascenes_camera_gets_megascenes_orbit() -> None:
    """At 80 px focal length and 256 px width the orbit is the original's, in units of the depth's 20th
    percentile.
    """
    from dataloader.scene import Record
    from geometry.paths import orbit

    camera = pinhole(80.0, 166, 256)
    depth = torch.linspace(1, 9, 166 * 256).reshape(166, 256).numpy()
    scene = Scene("a", [Record("a", camera, torch.zeros(166, 256, 3).byte().numpy(), depth=depth)])
    scene.splits = {"train": [0], "test": [0]}
    cameras, _ = scene_path("orbit", scene, DataConfig())
    expected = orbit(camera, scale=1 + 8 * 0.2)
    torch.testing.assert_close(cameras.c2w, expected.c2w, atol=1e-5, rtol=0)


def test_path_files_bring_cameras_and_frame_rate(room: Scene, tmp_path) -> None:
    written = pinhole(50.0, 30, 40).with_poses(torch.eye(4).double().repeat(3, 1, 1))
    write_camera_path(written, tmp_path / "tour.json", 24.0)
    cameras, fps = scene_path(str(tmp_path / "tour.json"), room, DataConfig())
    assert (len(cameras), cameras.height, cameras.width, fps) == (3, 30, 40, 24.0)
    assert path_name(str(tmp_path / "tour.json")) == "tour"


def test_unknown_paths_and_views_are_named(room: Scene) -> None:
    with pytest.raises(UserError, match="orbit"):
        scene_path("helix", room, DataConfig())
    with pytest.raises(UserError, match="no view 'x'"):
        scene_path("orbit", room, DataConfig(), view="x")
    with pytest.raises(UserError, match="no photo in its split"):
        scene_path("orbit", Scene("bare", room.records[:1], splits={"train": []}), DataConfig())
    with pytest.raises(UserError, match=r"nowhere\.json"):
        scene_path("nowhere.json", room, DataConfig())


def test_frames_are_the_recorded_cameras_between_the_outermost_sources(room: Scene) -> None:
    cameras, _ = scene_path("frames", room, DataConfig(), sources=[8, 2, 5])
    assert torch.equal(cameras.c2w, room.cameras(list(range(2, 9))).c2w)
    assert recorded([9, 2, 5], 3) == [2, 6, 9]
    with pytest.raises(UserError, match="needs 2"):
        scene_path("frames", room, DataConfig(), sources=[4])


@pytest.mark.parametrize("suffix", [".txt", ".npy"])
def test_a_rigs_path_file(suffix: str, room: Scene, tmp_path: Path) -> None:
    file = tmp_path / f"tour{suffix}"
    own = room.records[0].camera
    tour = orbit(pinhole(own.width, 2 * own.height, 2 * own.width), n=3)
    write_rig_path(tour, file)
    cameras, fps = scene_path(str(file), room, DataConfig())
    assert fps is None
    assert (cameras.height, cameras.width) == (own.height, own.width)  # that of the photos
    torch.testing.assert_close(cameras.K, tour.resize(own.height, own.width).K)
    torch.testing.assert_close(cameras.c2w, tour.c2w)
    assert path_name(str(file)) == "tour"
