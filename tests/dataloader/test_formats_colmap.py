"""COLMAP models, binary and text."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from common.errors import UserError
from dataloader.formats import colmap, open_scene, write_scene
from dataloader.formats.colmap_model import Model, ModelCamera, read_model, write_model
from dataloader.formats.llff import pose_from_columns
from dataloader.images import resize_image, write_image
from dataloader.scene import Scene

FILES = ("cameras", "images", "points3D")


@pytest.fixture
def folder(posed_scene: Callable[..., Scene], tmp_path: Path) -> Path:
    write_scene(posed_scene(4), tmp_path / "scene", "colmap")
    return tmp_path / "scene"


@pytest.fixture
def model(folder: Path) -> Path:
    return folder / "sparse" / "0"


def as_text(model: Path) -> None:
    pycolmap = pytest.importorskip("pycolmap")
    pycolmap.Reconstruction(model).write_text(model)
    for path in model.glob("*.bin"):
        path.unlink()


def assert_same(first: Scene, second: Scene, atol: float = 1e-13) -> None:
    assert first.names == second.names
    assert first.points is not None
    assert second.points is not None
    for a, b in zip(first.records, second.records, strict=True):
        np.testing.assert_allclose(a.camera.K, b.camera.K, atol=atol)
        np.testing.assert_allclose(a.camera.c2w, b.camera.c2w, atol=atol)
        for one, other in zip(first.points.tracks[a.name], second.points.tracks[b.name], strict=True):
            np.testing.assert_allclose(one, other, atol=atol)
    np.testing.assert_allclose(first.points.xyz, second.points.xyz, atol=atol)
    np.testing.assert_array_equal(first.points.rgb, second.points.rgb)
    np.testing.assert_allclose(first.points.error, second.points.error)


def test_everything_survives(folder: Path, posed_scene: Callable[..., Scene]) -> None:
    assert_same(posed_scene(4), colmap.read(folder))


def test_several_cameras(posed_scene: Callable[..., Scene], tmp_path: Path) -> None:
    scene = posed_scene(4, size=[(24, 32), (32, 24), (24, 32), (24, 30)], off_center=1.5)
    write_scene(scene, tmp_path / "scene", "colmap")
    assert len(read_model(tmp_path / "scene" / "sparse" / "0").cameras) == 3
    assert_same(scene, colmap.read(tmp_path / "scene"))


def test_colmap_reads_what_we_write(model: Path, posed_scene: Callable[..., Scene]) -> None:
    pycolmap = pytest.importorskip("pycolmap")
    scene, read = posed_scene(4), pycolmap.Reconstruction(model)
    assert scene.points is not None
    assert (read.num_images(), read.num_points3D(), read.num_cameras()) == (4, 40, 1)
    observed = sum(len(rows) for rows, _ in scene.points.tracks.values())
    assert read.compute_num_observations() == observed
    for image in read.images.values():
        record = scene.records[scene.names.index(Path(image.name).stem)]
        np.testing.assert_allclose(image.cam_from_world().matrix(), record.camera.w2c[:3], atol=1e-13)
        for point in image.points2D:
            xyz = read.points3D[point.point3D_id].xyz
            np.testing.assert_allclose(image.project_point(xyz), point.xy, atol=1e-10)


def test_text_is_binary(folder: Path, model: Path) -> None:
    before = colmap.read(folder)
    as_text(model)
    assert_same(before, colmap.read(folder), atol=1e-11)


def test_without_zero(folder: Path, model: Path) -> None:
    for path in model.iterdir():
        path.rename(folder / "sparse" / path.name)
    model.rmdir()
    assert len(open_scene(folder)) == 4


@pytest.mark.parametrize("name", FILES)
def test_cut_off_binary_files(folder: Path, model: Path, name: str) -> None:
    path = model / f"{name}.bin"
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for length in [0, 4, len(whole) - 1, *rng.integers(0, len(whole), 25)]:
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match=rf"{name}\.bin is cut off after {length} bytes"):
            colmap.read(folder)
    path.write_bytes(whole + b"more")
    with pytest.raises(UserError, match=rf"{name}\.bin has 4 bytes too many"):
        colmap.read(folder)
    path.unlink()
    with pytest.raises(UserError, match=rf"sparse.*{name if name != 'cameras' else 'COLMAP'}"):
        colmap.read(folder)


@pytest.mark.parametrize("name", FILES)
def test_cut_off_text_files(folder: Path, model: Path, name: str) -> None:
    """Cut at any line: the count in the comments no longer agrees, or a line is malformed."""
    as_text(model)
    path = model / f"{name}.txt"
    lines = path.read_text().splitlines()
    last = len(lines) - (2 if name == "images" else 1)  # a photo's last line is its features
    for count in range(4, last + 1):
        path.write_text("\n".join(lines[:count]))
        with pytest.raises(UserError, match=rf"{name}\.txt"):
            colmap.read(folder)


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("cameras", "32 24", "32 x"),
        ("cameras", "PINHOLE", "SIMPLE_PINHOLE"),
        ("cameras", "PINHOLE", "OPENCV_FISHEYE"),
        ("images", " 1 0001.png", " one 0001.png"),
        ("images", " 1 0001.png", " 0001.png"),
        ("images", " 1 0001.png", " 7 0001.png"),
        ("images", "0001.png\n", "0001.png\n3.5 "),
        ("images", "0001.png\n", "0001.png\n3.5 4.5 9999 "),
        ("points3D", "\n7 ", "\nseven "),
        ("points3D", "\n7 ", "\n7 nan "),
    ],
)
def test_malformed_text_files(folder: Path, model: Path, name: str, before: str, after: str) -> None:
    as_text(model)
    path = model / f"{name}.txt"
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))
    with pytest.raises(UserError, match="sparse"):
        colmap.read(folder)


def change_model(model: Path, change: Callable[[Model], object]) -> None:
    content = read_model(model)
    change(content)
    write_model(content, model)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.images[2].qvec.__setitem__(1, np.nan), r"0001\.png\): the pose holds NaN"),
        (lambda m: m.images[2].tvec.__setitem__(1, np.inf), r"0001\.png\): the pose holds NaN"),
        (lambda m: m.images[2].qvec.__setitem__(slice(None), 0), "no rotation"),
        (lambda m: setattr(m.images[2], "camera_id", 9), r"0001\.png\): camera 9 is missing"),
        (lambda m: m.cameras[1].params.__setitem__(0, np.nan), "NaN"),
        (lambda m: m.cameras[1].params.__setitem__(0, -3.0), "intrinsic"),
        (lambda m: setattr(m.cameras[1], "width", 33), r"0000\.png is 32x24, its camera says 33x24"),
        (lambda m: setattr(m.images[2], "name", "0007.png"), r"0007\.png does not exist"),
        (lambda m: setattr(m.images[2], "name", "0000.png"), "listed twice"),
    ],
)
def test_models_that_do_not_fit(folder: Path, model: Path, change: Callable, message: str) -> None:
    change_model(model, change)
    with pytest.raises(UserError, match=message):
        colmap.read(folder)


def test_points_that_are_missing_or_nan(folder: Path, model: Path) -> None:
    content = read_model(model)
    whole = content.xyz.copy()
    content.xyz[3, 1] = np.nan
    write_model(content, model)
    with pytest.raises(UserError, match="a point is NaN"):
        colmap.read(folder)
    content.xyz = whole
    (model / "points3D.bin").write_bytes(np.zeros(1, "<u8").tobytes())
    with pytest.raises(UserError, match="observes a point that points3D lacks"):
        colmap.read(folder)


def test_sideways_photos_are_explained(folder: Path) -> None:
    """COLMAP's cameras are for the stored pixels; an EXIF orientation turns them for everyone else."""
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((24, 32, 3), np.uint8)).save(folder / "images" / "0001.png", exif=exif)
    with pytest.raises(UserError, match=r"0001\.png is 24x32, its camera says 32x24: its EXIF orientation"):
        colmap.read(folder)


def test_photos_without_pose_are_reported(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_image(np.zeros((24, 32, 3), np.uint8), folder / "images" / "blurred.png")
    assert len(colmap.read(folder)) == 4
    assert "no camera for 1 photos, which are left out: blurred.png" in caplog.text


def test_reduced_copies_scale_cameras_and_tracks(folder: Path) -> None:
    full = colmap.read(folder)
    for record in full.records:
        write_image(resize_image(record.load(), (12, 16)), folder / "images_2" / f"{record.name}.png")
    half = colmap.read(folder, "images_2")
    assert half.points is not None
    for record in half.records:
        rows, xy = half.points.tracks[record.name]
        pixels, _ = record.camera.project(torch.from_numpy(half.points.xyz[rows]))
        np.testing.assert_allclose(pixels, xy, atol=1e-10)
        assert (record.camera.height, record.camera.width) == (12, 16)


PARAMS = {
    "SIMPLE_RADIAL": [35.0, 16.2, 11.9, -0.05],
    "RADIAL": [35.0, 16.2, 11.9, -0.05, 0.01],
    "OPENCV": [35.0, 34.5, 16.2, 11.9, -0.05, 0.01, 0.002, -0.001],
}


@pytest.mark.parametrize("name", PARAMS)
def test_distortion_is_removed_from_photos_and_tracks(folder: Path, model: Path, name: str) -> None:
    """Tracks made by COLMAP's own projection through the lens agree with our pinhole cameras."""
    pycolmap = pytest.importorskip("pycolmap")
    content = read_model(model)
    content.cameras[1] = ModelCamera(name, 32, 24, PARAMS[name])
    theirs = pycolmap.Camera(model=name, width=32, height=24, params=PARAMS[name])
    plain = colmap.read(folder)
    for image in content.images.values():
        w2c = plain.records[plain.names.index(Path(image.name).stem)].camera.w2c.numpy()
        local = content.xyz[image.point_ids - 1] @ w2c[:3, :3].T + w2c[:3, 3]
        image.xy = theirs.img_from_cam(local)
    write_model(content, model)
    scene = colmap.read(folder)
    assert scene.points is not None
    for record in scene.records:
        rows, xy = scene.points.tracks[record.name]
        pixels, _ = record.camera.project(torch.from_numpy(scene.points.xyz[rows]))
        np.testing.assert_allclose(pixels, xy, atol=1e-8)
        assert record.lens is not None
        assert record.load().shape == (24, 32, 3)


@pytest.mark.parametrize("name", PARAMS)
def test_no_distortion_is_a_pinhole(folder: Path, model: Path, name: str) -> None:
    plain = 4 if name == "OPENCV" else 3
    params = PARAMS[name][:plain] + [0.0] * (len(PARAMS[name]) - plain)
    change_model(model, lambda m: m.cameras.update({1: ModelCamera(name, 32, 24, params)}))
    record = colmap.read(folder).records[0]
    assert record.lens is None
    assert record.camera.K[:2, 2].tolist() == [16.2, 11.9]


def test_other_models_are_refused(folder: Path, model: Path) -> None:
    path = model / "cameras.bin"
    content = bytearray(path.read_bytes())
    content[12] = 5  # OPENCV_FISHEYE
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"cameras\.bin: camera model .*colmap image_undistorter"):
        colmap.read(folder)


def test_bounds_are_percentiles_of_the_observed_depths(parity_data: Path) -> None:
    """The data set's LLFF file states the same percentiles."""
    scene = colmap.read(parity_data / "scene_a")
    stated = np.load(parity_data / "scene_a" / "poses_bounds.npy")[:, 15:]
    found = [record.bounds for record in scene.records]
    np.testing.assert_allclose(found, stated, rtol=1e-9)


def test_recorded_conversion_to_llff(parity_dir: Path, tmp_path: Path) -> None:
    data = load_file(parity_dir / "mask_volume" / "colmap_to_poses_bounds.safetensors")
    for name in FILES:
        path = tmp_path / "sparse" / f"{name}.bin"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data[f"input.{name}_bin"].tobytes())
    content = read_model(tmp_path / "sparse")
    for image in content.images.values():
        camera = content.cameras[image.camera_id]
        write_image(np.zeros((camera.height, camera.width, 3), np.uint8), tmp_path / "images" / image.name)
    for record, row in zip(colmap.read(tmp_path).records, data["output.poses_bounds"], strict=True):
        matrix = row[:15].reshape(3, 5)
        np.testing.assert_allclose(record.camera.c2w, pose_from_columns(matrix[:, :4]), rtol=1e-8, atol=1e-12)
        assert [record.camera.height, record.camera.width] == matrix[:2, 4].tolist()


def test_recorded_conversion_to_mvsnet(parity_dir: Path, tmp_path: Path) -> None:
    data = load_file(parity_dir / "hash_manifold" / "colmap_to_mvsnet.safetensors")
    for name in FILES:
        path = tmp_path / "sparse" / f"{name}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data[f"input.{name}_txt"].tobytes())
    content = read_model(tmp_path / "sparse")
    for image in content.images.values():
        camera = content.cameras[image.camera_id]
        write_image(np.zeros((camera.height, camera.width, 3), np.uint8), tmp_path / "images" / image.name)
    for i, record in enumerate(colmap.read(tmp_path).records):
        np.testing.assert_allclose(record.camera.w2c[:3], data[f"output.extrinsic_{i}"], atol=1e-6)
        np.testing.assert_allclose(record.camera.K, data[f"output.intrinsic_{i}"], rtol=1e-6)
