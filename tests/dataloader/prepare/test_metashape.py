"""Metashape: the calls made to its module, and its cameras written as MVSNet folders."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock, call

import numpy as np
import pytest

from common.errors import UserError
from dataloader.formats import open_scene
from dataloader.images import read_image, write_image
from dataloader.prepare.metashape import reconstruct
from dataloader.prepare.metashape_cameras import convert
from tests.dataloader.test_formats_metashape import camera, sensor, write


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> MagicMock:
    """A stand-in for Metashape that records the calls on the project's chunk."""
    fake = MagicMock()
    for name in (
        "ReferencePreselectionSource",
        "CamerasFormatXML",
        "MildFiltering",
        "Arbitrary",
        "EnabledInterpolation",
        "HighFaceCount",
        "DepthMapsData",
        "ImageFormatPNG",
    ):
        setattr(fake, name, name)
    monkeypatch.setitem(sys.modules, "Metashape", fake)
    return fake


def test_the_published_steps(module: MagicMock, tmp_path: Path) -> None:
    (tmp_path / "project.psz").write_text("")
    cameras, mesh = reconstruct(tmp_path / "project.psz", tmp_path / "out")
    assert (cameras, mesh) == (tmp_path / "out" / "cams.xml", tmp_path / "out" / "1.obj")
    module.Document.return_value.open.assert_called_once_with(str(tmp_path / "project.psz"))
    made = [
        entry for entry in module.Document.return_value.chunk.mock_calls if not entry[0].startswith("cam")
    ]
    assert made == [
        call.matchPhotos(
            downscale=0,
            generic_preselection=False,
            reference_preselection=True,
            reference_preselection_mode="ReferencePreselectionSource",
            filter_mask=False,
            mask_tiepoints=True,
            keypoint_limit=0,
            tiepoint_limit=0,
            keep_keypoints=True,
            guided_matching=False,
            reset_matches=False,
        ),
        call.alignCameras(min_image=2, adaptive_fitting=True, reset_alignment=False),
        call.exportCameras(
            str(cameras), format="CamerasFormatXML", save_points=False, use_initial_calibration=True
        ),
        call.buildDepthMaps(downscale=1, filter_mode="MildFiltering", reuse_depth=False, max_neighbors=-1),
        call.buildModel(
            surface_type="Arbitrary",
            interpolation="EnabledInterpolation",
            face_count="HighFaceCount",
            face_count_custom=200000,
            source_data="DepthMapsData",
            vertex_colors=False,
            vertex_confidence=False,
            volumetric_masks=False,
            keep_depth=False,
            trimming_radius=10,
        ),
        call.exportModel(
            str(mesh),
            texture_format="ImageFormatPNG",
            save_texture=True,
            save_uv=True,
            save_normals=True,
            save_colors=True,
            save_confidence=False,
            save_cameras=False,
            save_markers=False,
            save_comment=False,
        ),
    ]


def test_when_metashape_cannot(module: MagicMock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = tmp_path / "project.psz"
    with pytest.raises(UserError, match="does not exist"):
        reconstruct(project, tmp_path / "out")
    project.write_text("")
    module.Document.return_value.chunk.alignCameras.side_effect = RuntimeError("No license found")
    with pytest.raises(UserError, match=r"Metashape stopped on .*project\.psz: No license found"):
        reconstruct(project, tmp_path / "out")
    module.Document.return_value.chunk = SimpleNamespace(cameras=[])
    with pytest.raises(UserError, match="holds no photos"):
        reconstruct(project, tmp_path / "out")
    monkeypatch.setitem(sys.modules, "Metashape", None)
    with pytest.raises(UserError, match="module Metashape is absent: it comes with Agisoft"):
        reconstruct(project, tmp_path / "out")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two photos of 64x48 with cameras; b's label has the file's suffix. c has no photo."""
    write(tmp_path, sensor(0, "<cx>1.5</cx>"), camera("a") + camera("b.png") + camera("c"))
    for i, name in enumerate(("a.JPG", "b.png")):
        noise = np.random.default_rng(i).integers(0, 256, (48, 64, 3), dtype=np.uint8)
        write_image(noise, tmp_path / "images" / name)
    return tmp_path


def test_photos_and_cameras_are_reduced_alike(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """5 divides neither side: K is scaled by the sizes there really are."""
    done = convert(folder, folder, dsp_factor=5, key="north_")
    assert done.count == 2
    assert "1 cameras have no photo" in caplog.text
    assert "left out: c" in caplog.text
    assert sorted(path.name for path in done.cams.iterdir()) == ["north_a_cam.txt", "north_b_cam.txt"]
    assert sorted(path.name for path in done.images.iterdir()) == ["north_a.JPG", "north_b.png"]
    scene = open_scene(folder, "mvsnet", images="images_5")
    K = scene.records[0].camera.K
    np.testing.assert_allclose(
        K, [[70 * 12 / 64, 0, 33.5 * 12 / 64], [0, 70 * 9 / 48, 24 * 9 / 48], [0, 0, 1]]
    )
    full, small = read_image(folder / "images" / "b.png"), read_image(done.images / "north_b.png")
    assert small.shape == (9, 12, 3)
    assert abs(small.mean() - full.mean()) < 1
    assert not list(folder.glob(".*tmp"))


def test_without_reduction_the_files_are_copied(folder: Path) -> None:
    done = convert(folder, folder / "out")
    for name in ("a.JPG", "b.png"):
        assert (done.images / name).read_bytes() == (folder / "images" / name).read_bytes()
    with pytest.raises(UserError, match="images_1 exists"):
        convert(folder, folder / "out")


def test_nothing_is_half_written(folder: Path) -> None:
    write_image(np.zeros((20, 64, 3), np.uint8), folder / "images" / "b.png")
    with pytest.raises(UserError, match=r"b\.png is 64x20, its sensor 64x48"):
        convert(folder, folder / "out", 2)
    assert not list((folder / "out").iterdir())
    with pytest.raises(UserError, match="leaves nothing"):
        convert(folder, folder / "out", 100)
    (folder / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        convert(folder, folder / "file" / "out")
    write_image(np.zeros((48, 64, 3), np.uint8), folder / "images" / "a.png")
    with pytest.raises(UserError, match=r"holds a\.(JPG|png) and a\.(JPG|png): remove one"):
        convert(folder, folder / "out")
    write(folder, sensor(), camera("z"))
    (folder / "images" / "a.png").unlink()
    with pytest.raises(UserError, match="no camera has both a pose and a photo"):
        convert(folder, folder / "out")
