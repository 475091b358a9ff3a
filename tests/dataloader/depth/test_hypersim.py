"""dataloader.depth.hypersim and hypersim_pairs: a scene written from a room is read as it was."""

from __future__ import annotations

import shutil
from pathlib import Path

import h5py
import pytest
import torch

from common.errors import UserError
from dataloader.depth.hypersim import (
    HypersimCamera,
    planar_depth,
    read_camera_parameters,
    read_dataset,
    read_table,
    scene_cameras,
)
from dataloader.depth.hypersim_pairs import FramePair, HypersimScene, find_pairs, read_pairs, write_pairs
from dataloader.depth.pairs import DepthProtocol, SkippedPair, legacy_protocol
from dataloader.depth.tasks import DepthTask
from geometry.views import Views
from tests.dataloader.depth.hypersim_writer import (
    CAMERA,
    METRES,
    SCENE,
    room_views,
    unknown,
    write_scene,
    write_table,
)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("hypersim")
    write_scene(root)
    write_table(root / "cameras.csv")
    return root


@pytest.fixture(scope="module")
def views() -> Views:
    return room_views()


@pytest.fixture
def root(written: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(written, tmp_path / "hypersim"))


def open_camera(root: Path, legacy: bool = False) -> HypersimCamera:
    parameters = read_camera_parameters(root / "cameras.csv")[0]
    return scene_cameras(root / SCENE, parameters, legacy)[0]


def test_the_room_comes_back(written: Path, views: Views) -> None:
    camera = open_camera(written)
    assert (camera.name, camera.frames, camera.metres) == (CAMERA, [0, 1, 2], METRES)
    assert views.depth is not None
    for i in camera.frames:
        view = camera.view(i)
        assert view.depth is not None
        torch.testing.assert_close(view.cameras.c2w[0], views.cameras.c2w[i])
        torch.testing.assert_close(view.cameras.K[0], views.cameras.K[i])
        torch.testing.assert_close(
            view.depth[0], views.depth[i], rtol=2e-3, atol=0
        )  # stored in half precision
        torch.testing.assert_close(view.images[0], views.images[i], rtol=0, atol=1e-3)
        truth = views.cameras[i].unproject(views.depth[i, 0].double()).reshape(-1, 3).float()
        torch.testing.assert_close(camera.points(i), truth, rtol=0, atol=4e-3)


def test_planar_depth_of_a_wall_is_flat() -> None:
    distance = (torch.arange(8)[None] + 0.5 - 4) ** 2 + (torch.arange(6)[:, None] + 0.5 - 3) ** 2
    depth = planar_depth((distance + 10.0**2).sqrt() / 10 * 3, 10.0)
    torch.testing.assert_close(depth, torch.full((6, 8), 3.0))
    assert planar_depth(torch.full((2, 2), torch.nan), 10.0).eq(0).all()


def test_the_original_assumes_one_focal_length(written: Path) -> None:
    true, assumed = open_camera(written).depth(0), open_camera(written, legacy=True).depth(0)
    assert (assumed > true + 0.05).any()  # of a much longer focal length, rays hardly diverge


def test_cameras_that_are_no_pinholes_are_marked(written: Path) -> None:
    table = read_camera_parameters(written / "cameras.csv")
    assert [row.physical for row in table] == [False, True]
    assert table[0].fov_y < table[0].fov


def test_bad_files_are_one_line(root: Path) -> None:
    detail = root / SCENE / "_detail"
    with pytest.raises(UserError, match="no column 'camera_fov'"):
        read_table(root / "cameras.csv", ("scene_name", "camera_fov"))
    with pytest.raises(UserError, match="cannot read"):
        read_table(root / "none.csv", ())
    (detail / "metadata_scene.csv").write_text("parameter_name,parameter_value\nother,1\n")
    with pytest.raises(UserError, match="no parameter 'meters_per_asset_unit'"):
        _ = open_camera(root).metres
    table = root / "cameras.csv"
    table.write_text(table.read_text().replace("1.2", "wide"))
    with pytest.raises(UserError, match="settings_camera_fov is 'wide'"):
        open_camera(root)
    with pytest.raises(UserError, match="does not exist"):
        read_dataset(root / "none.hdf5")
    with h5py.File(root / "other.hdf5", "w") as file:
        file["data"] = [1]
    with pytest.raises(UserError, match=r"has no 'dataset', only \['data'\]"):
        read_dataset(root / "other.hdf5")
    (root / "broken.hdf5").write_bytes(b"x" * 100)
    with pytest.raises(UserError, match="no readable HDF5"):
        read_dataset(root / "broken.hdf5")


def scene_of(root: Path, protocol: DepthProtocol | None = None) -> HypersimScene:
    parameters = read_camera_parameters(root / "cameras.csv")[0]
    return HypersimScene(root, parameters, protocol or DepthProtocol())


@pytest.mark.parametrize("protocol", [DepthProtocol(), legacy_protocol(0.08, 10)])
def test_pairs_overlap_as_the_views_do(protocol: DepthProtocol, written: Path) -> None:
    found = {(pair.first, pair.second): pair for pair in find_pairs(open_camera(written), protocol)}
    assert set(found) == {(0, 1), (0, 2), (1, 2)}
    assert found[0, 1].overlap > found[0, 2].overlap > 0.3
    assert found[0, 1].error < 0.5


def test_nearest_points_err_less_than_the_originals(written: Path) -> None:
    corrected, legacy = (
        next(find_pairs(open_camera(written), protocol)).error
        for protocol in (DepthProtocol(), legacy_protocol(0.08, 10))
    )
    assert corrected < legacy


def test_frames_without_files_are_left_out_by_name(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    lacking = root / SCENE / "images" / f"scene_{CAMERA}_geometry_hdf5" / "frame.0001.depth_meters.hdf5"
    lacking.unlink()
    assert [(p.first, p.second) for p in find_pairs(open_camera(root), DepthProtocol())] == [(0, 2)]
    assert f"frame 1 is left out: {lacking} is missing" in caplog.text


def test_tables_have_the_originals_format(tmp_path: Path) -> None:
    path = tmp_path / "a_pairs.csv"
    pairs = [FramePair("cam_00", 0, 1, 0.9655), FramePair("cam_01", 4, 12, 0.8)]
    write_pairs("ai_001_001", pairs, path)
    lines = path.read_text().splitlines()
    assert lines[0] == ",scene,camera,frame_id,remaining_frame_id,overlap"
    assert lines[2] == "1,ai_001_001,cam_01,4,12,0.8"
    assert [(p.camera, p.first, p.second, p.overlap) for p in read_pairs(path)] == [
        (p.camera, p.first, p.second, p.overlap) for p in pairs
    ]
    write_pairs("ai_001_001", [], path)
    assert read_pairs(path) == []
    path.write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="no column 'scene'"):
        read_pairs(path)
    with pytest.raises(UserError, match="hypersim-pairs"):
        read_pairs(tmp_path / "none.csv")


def test_acceptance() -> None:
    assert FramePair("c", 0, 1, 0.8, 0.1).accepted
    assert not FramePair("c", 0, 1, 0.79, 0.05).accepted
    assert not FramePair("c", 0, 1, 0.9, 0.11).accepted
    assert not FramePair("c", 0, 1, 0.9).accepted


def test_tasks(root: Path) -> None:
    scene = scene_of(root)
    write_pairs(SCENE, [FramePair(CAMERA, 0, 1, 0.9), FramePair(CAMERA, 1, 2, 0.9)], scene.table)
    images = root / SCENE / "images"
    unknown(images / f"scene_{CAMERA}_geometry_hdf5" / "frame.0001.depth_meters.hdf5", slice(0, 4))
    (images / f"scene_{CAMERA}_final_hdf5" / "frame.0002.color.hdf5").unlink()
    first, second = scene.tasks()
    assert isinstance(first, DepthTask)
    assert (first.scene, first.name) == (SCENE, f"{CAMERA} 0-1")
    assert isinstance(second, SkippedPair)
    assert second.counted
    assert "color.hdf5 is missing" in second.reason
    assert first.target.valid is not None
    assert not first.target.valid[..., :4, :].any()
    assert not first.hidden[..., :4, :].any()
    legacy = next(scene_of(root, legacy_protocol(0.08)).tasks())
    assert isinstance(legacy, DepthTask)
    assert legacy.hidden[..., :4, :].any()
    write_pairs(SCENE, [FramePair("cam_09", 0, 1, 0.9)], scene.table)
    with pytest.raises(UserError, match="cam_09"):
        list(scene.tasks())
    write_pairs(SCENE, [FramePair(CAMERA, 0, 9, 0.9)], scene.table)
    (skipped,) = scene.tasks()
    assert isinstance(skipped, SkippedPair)
