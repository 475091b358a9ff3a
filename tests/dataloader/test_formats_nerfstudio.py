"""nerfstudio's transforms.json."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from common.errors import UserError
from dataloader.formats import nerfstudio, open_scene, write_scene
from dataloader.images import resize_image, write_image
from dataloader.scene import Scene


@pytest.fixture
def folder(posed_scene: Callable[..., Scene], tmp_path: Path) -> Path:
    write_scene(posed_scene(3), tmp_path / "scene", "nerfstudio")
    return tmp_path / "scene"


def edit(folder: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    path = folder / "transforms.json"
    meta = json.loads(path.read_text())
    change(meta)
    path.write_text(json.dumps(meta))
    return folder


def test_all_digits_survive(folder: Path, posed_scene: Callable[..., Scene]) -> None:
    for before, after in zip(posed_scene(3).records, nerfstudio.read(folder).records, strict=True):
        assert (before.camera.K == after.camera.K).all()
        assert (before.camera.c2w == after.camera.c2w).all()
        assert (before.image == after.load()).all()


def test_axes_are_opengl(folder: Path, posed_scene: Callable[..., Scene]) -> None:
    meta = json.loads((folder / "transforms.json").read_text())
    c2w = posed_scene(3).records[0].camera.c2w.numpy()
    written = np.array(meta["frames"][0]["transform_matrix"])
    np.testing.assert_array_equal(written[:3, 1], -c2w[:3, 1])  # y up
    np.testing.assert_array_equal(written[:3, 2], -c2w[:3, 2])  # z backwards
    np.testing.assert_array_equal(written[:3, [0, 3]], c2w[:3, [0, 3]])
    assert meta["fl_x"] == posed_scene(3).records[0].camera.K[0, 0]


def test_intrinsics_per_frame(posed_scene: Callable[..., Scene], tmp_path: Path) -> None:
    scene = posed_scene(3, size=[(24, 32), (32, 24), (24, 32)], off_center=1.25)
    write_scene(scene, tmp_path / "scene", "nerfstudio")
    assert "fl_x" not in json.loads((tmp_path / "scene" / "transforms.json").read_text())
    for before, after in zip(scene.records, nerfstudio.read(tmp_path / "scene").records, strict=True):
        assert (before.camera.K == after.camera.K).all()
        assert (before.camera.height, before.camera.width) == (after.camera.height, after.camera.width)


def test_depth_and_time_survive(posed_scene: Callable[..., Scene], tmp_path: Path) -> None:
    scene = posed_scene(3)
    for i, record in enumerate(scene.records):
        record.depth = np.random.default_rng(i).uniform(0.5, 9, (24, 32)).astype(np.float32)
        record.depth[0, 0] = 0
        record.camera.time = torch.tensor(i / 7, dtype=torch.float64)
    said = write_scene(scene, tmp_path / "scene", "nerfstudio")
    assert not any("depth maps" in text or "time" in text for text in said)
    read = nerfstudio.read(tmp_path / "scene")
    for before, after in zip(scene.records, read.records, strict=True):
        assert isinstance(after.depth, Path)
        np.testing.assert_allclose(after.load_depth(), before.depth, rtol=3e-7)
        assert before.camera.time == after.camera.time
    # on disk: thousandths, as nerfstudio expects
    np.testing.assert_allclose(
        np.load(tmp_path / "scene" / "depth" / "0000.npy"), scene.records[0].load_depth() * 1000, rtol=1e-6
    )
    views = read.views()
    assert views.depth is not None
    assert views.cameras.time is not None
    torch.testing.assert_close(views.cameras.time, torch.tensor([0, 1, 2], dtype=torch.float64) / 7)


def test_16_bit_depth_is_in_thousandths_too(folder: Path) -> None:
    from PIL import Image

    Image.fromarray(np.full((24, 32), 2500, np.uint16)).save(folder / "d.png")
    edit(folder, lambda meta: meta["frames"][0].update(depth_file_path="d.png"))
    depth = nerfstudio.read(folder).records[0].load_depth()
    assert depth is not None
    assert depth[3, 3] == pytest.approx(2.5)
    edit(folder, lambda meta: meta["frames"][0].update(depth_file_path="gone.png"))
    with pytest.raises(UserError, match=r"0000\.png\): depth file .*gone\.png does not exist"):
        nerfstudio.read(folder)


def test_angles_and_defaults(folder: Path) -> None:
    def strip(meta: dict[str, Any]) -> None:
        for key in ("w", "h", "fl_x", "fl_y", "cx", "cy", "camera_model"):
            del meta[key]
        meta["camera_angle_x"] = 1.1

    K = nerfstudio.read(edit(folder, strip)).records[0].camera.K
    focal = 16 / math.tan(0.55)
    np.testing.assert_allclose(K, [[focal, 0, 16], [0, focal, 12], [0, 0, 1]])
    edit(folder, lambda meta: meta.update(camera_angle_y=0.8))
    K = nerfstudio.read(folder).records[0].camera.K
    assert K[1, 1].item() == pytest.approx(12 / math.tan(0.4))
    for angle in (0, 4.0):
        edit(folder, lambda meta, angle=angle: meta.update(camera_angle_x=angle))
        with pytest.raises(UserError, match="camera_angle_x is"):
            nerfstudio.read(folder)


def test_suffix_may_be_left_out_and_folders_replaced(folder: Path) -> None:
    edit(folder, lambda meta: meta["frames"][0].update(file_path="./images/0000"))
    full = nerfstudio.read(folder)
    assert full.names == ["0000", "0001", "0002"]
    for record in full.records:
        write_image(resize_image(record.load(), (12, 16)), folder / "images_2" / f"{record.name}.png")
    half = nerfstudio.read(folder, "images_2")
    assert half.records[0].camera.K.tolist() == full.records[0].camera.resize(12, 16).K.tolist()


def test_equal_file_names_in_two_folders(folder: Path) -> None:
    (folder / "more").mkdir()
    (folder / "images" / "0002.png").rename(folder / "more" / "0001.png")

    def move(meta: dict[str, Any]) -> None:
        meta["frames"][2]["file_path"] = "more/0001.png"
        meta["train_filenames"] = ["images/0000.png", "more/0001.png"]
        meta["test_filenames"] = ["images/0001.png"]

    (folder / "split.json").unlink()
    scene = open_scene(edit(folder, move))
    assert scene.names == ["images_0000", "images_0001", "more_0001"]
    assert scene.splits == {"train": [0, 2], "test": [1]}


def test_applied_transform_is_undone(folder: Path, posed_scene: Callable[..., Scene]) -> None:
    swap = np.array([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0.5], [0, 0, 0, 1]])

    def apply(meta: dict[str, Any]) -> None:
        meta["applied_transform"] = swap[:3].tolist()
        for frame in meta["frames"]:
            frame["transform_matrix"] = (swap @ np.array(frame["transform_matrix"])).tolist()

    for before, after in zip(
        posed_scene(3).records, nerfstudio.read(edit(folder, apply)).records, strict=True
    ):
        np.testing.assert_allclose(after.camera.c2w, before.camera.c2w, atol=1e-14)
    for bad in ([[0] * 4] * 3, [[1, 2], [3, 4]], "none", 5):
        edit(folder, lambda meta, bad=bad: meta.update(applied_transform=bad))
        with pytest.raises(UserError, match="'applied_transform'"):
            nerfstudio.read(folder)


def test_splits(folder: Path) -> None:
    (folder / "split.json").unlink()
    lists = {"train_filenames": ["images/0002.png", "images/0000.png"], "val_filenames": ["images/0001.png"]}
    edit(folder, lambda meta: (meta.pop("test_filenames"), meta.update(lists)))
    assert open_scene(folder).splits == {"train": [2, 0], "val": [1], "test": [1]}
    edit(folder, lambda meta: meta.update(train_filenames=["images/0009.png"]))
    with pytest.raises(UserError, match=r"'train_filenames' lists 'images/0009\.png'"):
        open_scene(folder)


def test_distorted_photos_get_a_lens(folder: Path) -> None:
    edit(folder, lambda meta: meta.update(k1=-0.1, p1=0.001, camera_model="OPENCV"))
    record = nerfstudio.read(folder).records[0]
    assert record.lens is not None
    assert (record.lens.radial, record.lens.tangential) == ((-0.1, 0, 0), (0.001, 0))
    assert record.load().shape == (24, 32, 3)
    edit(folder, lambda meta: meta["frames"][0].update(k1=0.0, p1=0.0))  # a frame's own numbers win
    assert nerfstudio.read(folder).records[0].lens is None


def _remove(meta: dict[str, Any], key: str) -> None:
    meta["frames"][1].pop(key)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(camera_model="OPENCV_FISHEYE"), "OPENCV_FISHEYE is no pinhole: undistort"),
        (lambda m: m.update(camera_model="EQUIRECTANGULAR"), "EQUIRECTANGULAR is no pinhole"),
        (lambda m: m.update(is_fisheye=True), "fisheye is no pinhole"),
        (lambda m: m.update(k4=0.1), "distortion k4 is not supported"),
        (lambda m: m.update(k1=-90.0), "too strong"),
        (lambda m: m.update(fl_x="wide"), "'fl_x' is 'wide'"),
        (lambda m: m.update(fl_x=-5), "intrinsic"),
        (lambda m: m.update(w=float("nan")), "'w' is nan"),
        (lambda m: m.update(w=40), r"0000\.png is 32x24, its camera says 40x24"),
        (lambda m: m.pop("fl_x"), "neither 'fl_x' nor 'camera_angle_x'"),
        (lambda m: m.pop("frames"), "'frames' must be a list"),
        (lambda m: m.update(frames=[]), "holds no posed photo"),
        (lambda m: _remove(m, "file_path"), "'file_path'"),
        (lambda m: _remove(m, "transform_matrix"), r"0001\.png\): 'transform_matrix'"),
        (lambda m: m["frames"][1].update(transform_matrix=[[1, 2], [3, 4]]), "shape"),
        (lambda m: m["frames"][1].update(transform_matrix=[[1], [3, 4]]), "4x4 matrix"),
        (lambda m: m["frames"][1].update(file_path="images/0007.png"), r"0007\.png does not exist"),
        (lambda m: m["frames"][1].update(file_path="images/0000.png"), "listed twice"),
        (lambda m: m["frames"][1]["transform_matrix"][0].__setitem__(3, float("nan")), "NaN"),
    ],
)
def test_malformed_scenes(folder: Path, change: Callable, message: str) -> None:
    with pytest.raises(UserError, match=message):
        nerfstudio.read(edit(folder, change))


@pytest.mark.parametrize("text", ["", "{", '{"frames": [', "[1, 2]", "\x00\xff"])
def test_malformed_json(folder: Path, text: str) -> None:
    (folder / "transforms.json").write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match=r"transforms\.json"):
        nerfstudio.read(folder)


def test_photos_without_frame_are_reported(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    edit(folder, lambda m: (m["frames"].pop(), m.pop("train_filenames"), m.pop("test_filenames")))
    assert nerfstudio.read(folder).names == ["0000", "0001"]
    assert "no camera for 1 photos, which are left out: 0002.png" in caplog.text
