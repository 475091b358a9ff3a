"""LLFF poses_bounds.npy."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from common.errors import UserError
from dataloader.formats import llff, open_scene, write_scene
from dataloader.images import resize_image, write_image
from dataloader.scene import Scene
from geometry.cameras import pinhole
from geometry.poses import llff_from_pose, matrix_from_quaternion, pose


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_columns_and_back(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    q, t = (torch.randn(k, generator=generator, dtype=torch.float64) for k in (4, 3))
    c2w = pose(matrix_from_quaternion(q), t).numpy()
    columns = llff_from_pose(torch.from_numpy(c2w)).numpy()
    np.testing.assert_array_equal(llff.pose_from_columns(columns), c2w)
    np.testing.assert_array_equal(columns[:, 0], c2w[:3, 1])  # down
    np.testing.assert_array_equal(columns[:, 1], c2w[:3, 0])  # right
    np.testing.assert_array_equal(columns[:, 2], -c2w[:3, 2])  # backwards


def test_recorded_poses(parity_dir: Path) -> None:
    data = load_file(parity_dir / "mask_volume" / "llff_poses.safetensors")
    for i, row in enumerate(data["input.poses_bounds"]):
        matrix = row[:15].reshape(3, 5)
        w2c = np.linalg.inv(llff.pose_from_columns(matrix[:, :4]))
        np.testing.assert_allclose(w2c, data["output.w2c_proper"][i], rtol=1e-6, atol=1e-9)
        height, width, focal = matrix[:, 4]
        np.testing.assert_allclose(pinhole(focal, height, width).K, data["output.K_native"][i], rtol=1e-6)


def test_multi_camera_rig(parity_data: Path) -> None:
    """The rig's plain cameras agree with its LLFF file; every camera has its own focal length."""
    import json

    rig = parity_data / "mvcam_mini"
    truth = json.loads((rig / "cameras.json").read_text())["sources"]
    scene = open_scene(rig / "frames" / "00000")
    assert len(scene) == len(truth) == 4
    for record, camera in zip(scene.records, truth, strict=True):
        np.testing.assert_allclose(record.camera.K, camera["K"], rtol=1e-12)
        np.testing.assert_allclose(record.camera.w2c, camera["w2c"], atol=1e-12)
    assert len({record.camera.K[0, 0].item() for record in scene.records}) == 4
    assert scene.views().images.shape == (4, 3, 72, 128)


@pytest.fixture
def folder(posed_scene: Callable[..., Scene], tmp_path: Path) -> Path:
    write_scene(posed_scene(3), tmp_path / "scene", "llff")
    return tmp_path / "scene"


def test_all_digits_survive(folder: Path, posed_scene: Callable[..., Scene]) -> None:
    for before, after in zip(posed_scene(3).records, llff.read(folder).records, strict=True):
        assert (before.camera.K == after.camera.K).all()
        assert (before.camera.c2w == after.camera.c2w).all()
        assert before.bounds == after.bounds


def test_resized_photos_scale_width_and_height_separately(folder: Path) -> None:
    full = llff.read(folder)
    for record in full.records:
        write_image(resize_image(record.load(), (12, 40)), folder / "images_4" / f"{record.name}.png")
    small = llff.read(folder, "images_4").records[0].camera
    before = full.records[0].camera
    assert small.K[0].tolist() == (before.K[0] * 40 / 32).tolist()
    assert small.K[1].tolist() == (before.K[1] * 12 / 24).tolist()
    write_image(np.zeros((12, 41, 3), np.uint8), folder / "images_4" / "0001.png")
    with pytest.raises(UserError, match=r"0001\.png is 41x12, but 0000\.png of an equal camera is 40x12"):
        llff.read(folder, "images_4")


def test_photos_of_another_size(folder: Path) -> None:
    write_image(np.zeros((12, 16, 3), np.uint8), folder / "images" / "0001.png")
    with pytest.raises(UserError, match=r"0001\.png is 16x12, its camera says 32x24"):
        llff.read(folder)


def test_rows_follow_file_names(posed_scene: Callable[..., Scene], tmp_path: Path) -> None:
    """'a-1.png' comes before 'a.png' in a folder, but 'a' before 'a-1' as names."""
    scene = posed_scene(2)
    scene.records[0].name, scene.records[1].name = "a", "a-1"
    write_scene(scene, tmp_path / "scene", "llff")
    found = {record.name: record for record in llff.read(tmp_path / "scene").records}
    for record in scene.records:
        assert (found[record.name].camera.c2w == record.camera.c2w).all()
        assert (found[record.name].load() == record.image).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[:, :16], r"shape \(3, 16\)"),
        (lambda rows: rows[:2], "2 rows for 3 photos"),
        (lambda rows: rows.ravel(), "shape"),
        (lambda rows: rows.astype(str), "must hold numbers"),
        (lambda rows: np.where(np.arange(17) == 3, np.nan, rows), "NaN"),
        (lambda rows: np.where(np.arange(17) == 16, 0.1, rows), "near"),
        (lambda rows: np.where(np.arange(17) == 15, np.nan, rows), "near"),
        (lambda rows: np.where(np.arange(17) == 4, 24.5, rows), "no image size"),
        (lambda rows: np.where(np.arange(17) == 14, -30, rows), "intrinsic"),
    ],
)
def test_malformed_files(folder: Path, change: Callable, message: str) -> None:
    path = folder / "poses_bounds.npy"
    np.save(path, change(np.load(path)))
    with pytest.raises(UserError, match=rf"poses_bounds\.npy.*{message}"):
        llff.read(folder)


def test_unreadable_files(folder: Path) -> None:
    path = folder / "poses_bounds.npy"
    whole = path.read_bytes()
    for content in (b"", b"no array", whole[:40], whole[:-8]):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"poses_bounds\.npy is not a readable array"):
            llff.read(folder)
    path.unlink()
    with pytest.raises(UserError, match="no LLFF scene"):
        llff.read(folder)


def test_what_the_format_cannot_hold_is_refused(posed_scene: Callable[..., Scene], tmp_path: Path) -> None:
    def refused(scene: Scene, message: str) -> None:
        with pytest.raises(UserError, match=message):
            write_scene(scene, tmp_path / "scene", "llff")
        assert list(tmp_path.iterdir()) == []  # nothing half-written

    scene = posed_scene(2)
    scene.records[1].camera.K[1, 1] += 0.01
    refused(scene, "0001 has fx 35.2 and fy 35.21")
    scene = posed_scene(2)
    scene.records[1].camera.K[0, 2] += 0.5
    refused(scene, "0001 has its principal point 0.5 px off")
    scene = posed_scene(2)
    scene.records[1].camera.K[0, 1] = 0.5
    refused(scene, "0001 has skew 0.5")
    scene = posed_scene(2)
    scene.points = scene.records[0].bounds = None
    refused(scene, "0000 has no near and far depth")


def test_bounds_are_measured_where_none_are_given(posed_scene: Callable[..., Scene], tmp_path: Path) -> None:
    scene = posed_scene(2)
    for record in scene.records:
        record.bounds = None
        record.depth = np.linspace(2, 5, 24 * 32, dtype=np.float32).reshape(24, 32)
    said = write_scene(scene, tmp_path / "scene", "llff")
    assert "near and far were measured on the depth maps, mesh or points" in said
    near, far = llff.read(tmp_path / "scene").records[0].bounds or (0, 0)
    assert near == pytest.approx(2.003, abs=1e-3)
    assert far == pytest.approx(4.997, abs=1e-3)
