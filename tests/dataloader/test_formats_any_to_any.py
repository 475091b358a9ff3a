"""Every format written and read, from every other; what lies beside the cameras; what is refused."""

import itertools
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from common.errors import UserError
from dataloader.formats import FORMATS, detect_format, detect_formats, open_scene, write_scene
from dataloader.images import write_image
from dataloader.lenses import Lens, undistorted_camera
from dataloader.scene import Scene
from geometry.meshes import Mesh


def assert_same_cameras(first: Scene, second: Scene, tolerance: float) -> None:
    """Points in front of every camera project to within `tolerance` pixels of each other."""
    assert first.names == second.names
    points = torch.from_numpy(np.random.default_rng(5).uniform(-1, 1, (100, 3)))
    for a, b in zip(first.records, second.records, strict=True):
        distance = (a.camera.project(points)[0] - b.camera.project(points)[0]).abs().max()
        assert distance < tolerance, (a.name, distance)


@pytest.mark.parametrize(("source", "target"), list(itertools.product(FORMATS, FORMATS)))
def test_any_to_any(source: str, target: str, posed_scene: Callable[..., Scene], tmp_path: Path) -> None:
    scene = posed_scene(4)
    scene.surface = Mesh(torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, (40, 3))), faces_of(40))
    write_scene(scene, tmp_path / "a", source)
    first = open_scene(tmp_path / "a")
    assert detect_format(tmp_path / "a") == source
    write_scene(first, tmp_path / "b", target)
    second = open_scene(tmp_path / "b")
    assert detect_formats(tmp_path / "b") == [target]
    assert_same_cameras(scene, second, 1e-11)
    assert second.splits == scene.splits
    for before, after in zip(first.records, second.records, strict=True):
        assert isinstance(before.image, Path)
        assert isinstance(after.image, Path)
        assert before.image.read_bytes() == after.image.read_bytes()
    assert second.mesh_path == tmp_path / "b" / "mesh.ply"
    torch.testing.assert_close(second.mesh().vertices, scene.surface.vertices)


def faces_of(count: int) -> torch.Tensor:
    return torch.arange(count - 1)[:, None].clamp(max=count - 3) + torch.arange(3)


@pytest.mark.parametrize("target", ["colmap", "nerfstudio", "mvsnet"])
def test_off_centre_cameras_of_several_sizes(
    target: str, posed_scene: Callable[..., Scene], tmp_path: Path
) -> None:
    scene = posed_scene(3, size=[(24, 32), (32, 24), (20, 20)], off_center=1.7)
    write_scene(scene, tmp_path / "a", target)
    assert_same_cameras(scene, open_scene(tmp_path / "a"), 1e-11)


def test_skew_survives_or_is_refused(posed_scene: Callable[..., Scene], tmp_path: Path) -> None:
    scene = posed_scene(3)
    scene.records[1].camera.K[0, 1] = 0.7
    for target in ("colmap", "nerfstudio", "llff"):
        with pytest.raises(UserError, match=r"0001 has skew 0\.7"):
            write_scene(scene, tmp_path / target, target)
    write_scene(scene, tmp_path / "mvsnet", "mvsnet")
    assert_same_cameras(scene, open_scene(tmp_path / "mvsnet"), 1e-11)


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "colmap"])
def test_formats_agree_on_real_photos(name: str, parity_data: Path) -> None:
    """The four camera files of one scene: projected sparse points within 0.05 px (measured: 1e-7)."""
    scene = open_scene(parity_data / "scene_a", "colmap")
    other = open_scene(parity_data / "scene_a", name)
    assert len(other) == 30
    assert other.splits == scene.splits
    assert other.split("test") == [0, 8, 16, 24]
    assert scene.points is not None
    for a, b in zip(scene.records, other.records, strict=True):
        points = torch.from_numpy(scene.points.xyz[scene.points.tracks[a.name][0]])
        assert (a.camera.project(points)[0] - b.camera.project(points)[0]).abs().max() < 5e-7
    assert other.mesh_path == parity_data / "scene_a" / "1.obj"


def test_reprojection_on_real_photos(parity_data: Path) -> None:
    scene = open_scene(parity_data / "scene_a")
    assert scene.points is not None
    errors = []
    for record in scene.records:
        rows, xy = scene.points.tracks[record.name]
        pixels, _ = record.camera.project(torch.from_numpy(scene.points.xyz[rows]))
        errors.append(np.linalg.norm(pixels.numpy() - xy, axis=1))
    assert sum(map(len, errors)) == 42954
    assert np.mean(np.concatenate(errors)) < 0.45


def test_what_is_left_out_is_said(posed_scene: Callable[..., Scene], tmp_path: Path) -> None:
    scene = posed_scene(3)
    for record in scene.records:
        record.depth = np.ones((24, 32), np.float32)
        record.foreground = np.ones((24, 32), bool)
        record.camera.time = torch.tensor(0.5)
    points, bounds = "sparse points are not stored", "near and far depths are not stored"
    depth, time = "depth maps are not stored", "time stamps are not stored"
    foreground = "foreground masks are not stored"
    assert write_scene(scene, tmp_path / "1", "colmap") == [depth, time, foreground]
    assert write_scene(scene, tmp_path / "2", "nerfstudio") == [points, bounds, foreground]
    assert write_scene(scene, tmp_path / "3", "mvsnet") == [points, depth, time, foreground]
    assert write_scene(scene, tmp_path / "4", "llff") == [points, depth, time, foreground]
    scene.points = None
    assert bounds in write_scene(scene, tmp_path / "5", "colmap")


def test_distorted_photos_are_written_undistorted(posed_scene: Callable[..., Scene], tmp_path: Path) -> None:
    scene = posed_scene(2)
    write_scene(scene, tmp_path / "a", "mvsnet")
    scene = open_scene(tmp_path / "a")
    for record in scene.records:
        record.lens = Lens(record.camera.K.numpy().copy(), (-0.1, 0.0, 0.0), (0.0, 0.0))
        record.camera = undistorted_camera(record.camera, record.lens, record.name)
    said = write_scene(scene, tmp_path / "b", "nerfstudio")
    assert "photos were undistorted and written as PNG" in said
    plain = open_scene(tmp_path / "b")
    for before, after in zip(scene.records, plain.records, strict=True):
        assert after.lens is None
        np.testing.assert_array_equal(before.load(), after.load())
        assert before.camera.K.tolist() == after.camera.K.tolist()


def test_a_photo_of_another_size_is_not_copied(posed_scene: Callable[..., Scene], tmp_path: Path) -> None:
    write_scene(posed_scene(2), tmp_path / "a", "llff")
    scene = open_scene(tmp_path / "a")
    write_image(np.zeros((5, 5, 3), np.uint8), tmp_path / "a" / "images" / "0001.png")
    with pytest.raises(UserError, match=r"0001\.png is 5x5, its camera says 32x24"):
        write_scene(scene, tmp_path / "b", "llff")
    assert not (tmp_path / "b").exists()


# ---- splits and meshes -----------------------------------------------------------------------------------


@pytest.fixture
def folder(posed_scene: Callable[..., Scene], tmp_path: Path) -> Path:
    write_scene(posed_scene(9), tmp_path / "scene", "mvsnet")
    (tmp_path / "scene" / "split.json").unlink()
    return tmp_path / "scene"


def test_split_file_wins_over_hold_out(folder: Path) -> None:
    assert open_scene(folder).splits == {"test": [0, 8], "train": [1, 2, 3, 4, 5, 6, 7]}
    assert open_scene(folder, hold_out_every=3).split("test") == [0, 3, 6]
    with pytest.raises(UserError, match="hold_out_every is 0"):
        open_scene(folder, hold_out_every=0)
    (folder / "split.json").write_text(
        json.dumps({"train": ["0003.png", "0001"], "test": ["images/0002.png"]})
    )
    assert open_scene(folder, hold_out_every=3).splits == {"train": [3, 1], "test": [2]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "must hold a JSON object"),
        ('{"train": "0001.png"}', "must be a list of file names"),
        ('{"train": [1]}', "must be a list of file names"),
        ('{"train": ["0042.png"]}', "lists '0042.png', which is no photo of the scene"),
    ],
)
def test_malformed_splits(folder: Path, text: str, message: str) -> None:
    (folder / "split.json").write_text(text)
    with pytest.raises(UserError, match=rf"split\.json.*{message}"):
        open_scene(folder)


TRIANGLE = "v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n"
CLOUD = "ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nproperty float y\nproperty float z\n"


def test_the_only_mesh_is_taken(folder: Path) -> None:
    assert open_scene(folder).mesh_path is None
    (folder / "points.ply").write_text(CLOUD + "end_header\n0 0 0\n")
    (folder / "more.ply").write_text(CLOUD + "element face 0\nend_header\n0 0 0\n")
    assert open_scene(folder).mesh_path is None  # point clouds
    (folder / "a.obj").write_text(TRIANGLE)
    assert open_scene(folder).mesh_path == folder / "a.obj"
    (folder / "b.obj").write_text(TRIANGLE)
    assert open_scene(folder).mesh_path is None  # which one?
    assert open_scene(folder, mesh="b.obj").mesh().faces.tolist() == [[0, 1, 2]]
    with pytest.raises(UserError, match=r"c\.obj does not exist: data\.mesh"):
        open_scene(folder, mesh="c.obj")


def test_builtin_scenes() -> None:
    scene = open_scene("builtin:motorcycle")
    assert scene.names == ["left", "right"]
    assert scene.splits == {"train": [0], "test": [1]}
    with pytest.raises(UserError, match="no built-in scene 'nothing'"):
        open_scene("builtin:nothing")


# ---- refusals --------------------------------------------------------------------------------------------


def test_folders_that_are_no_scene(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.root is empty"):
        open_scene("")
    with pytest.raises(UserError, match="is not a folder"):
        open_scene(tmp_path / "gone")
    with pytest.raises(UserError, match="holds no cameras"):
        open_scene(tmp_path)
    with pytest.raises(UserError, match="unknown scene format 'obj': choose from colmap"):
        open_scene(tmp_path, "obj")


@pytest.mark.parametrize("name", FORMATS)
def test_missing_camera_files(name: str, tmp_path: Path) -> None:
    write_image(np.zeros((4, 4, 3), np.uint8), tmp_path / "images" / "a.png")
    with pytest.raises(UserError, match=str(tmp_path)):
        open_scene(tmp_path, name)


def test_places_that_cannot_be_written(posed_scene: Callable[..., Scene], tmp_path: Path) -> None:
    scene = posed_scene(2)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write .*file/scene"):
        write_scene(scene, tmp_path / "file" / "scene", "mvsnet")
    with pytest.raises(UserError, match="exists and is not an empty folder"):
        write_scene(scene, tmp_path, "mvsnet")
    with pytest.raises(UserError, match="exists and is not an empty folder"):
        write_scene(scene, tmp_path / "file", "mvsnet")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    (tmp_path / "empty").mkdir()
    write_scene(scene, tmp_path / "empty", "mvsnet")
    assert len(open_scene(tmp_path / "empty")) == 2


def test_a_full_disk_leaves_nothing(
    posed_scene: Callable[..., Scene], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    write_scene(posed_scene(2), tmp_path / "a", "mvsnet")
    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(UserError, match="No space left"):
        write_scene(open_scene(tmp_path / "a"), tmp_path / "b", "colmap")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
