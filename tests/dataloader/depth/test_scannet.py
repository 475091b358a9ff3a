"""dataloader.depth.scannet: .sens files unpacked, and pairs of a processed scan as tasks."""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from common.errors import UserError
from dataloader.depth.pairs import DepthProtocol, SkippedPair, legacy_protocol
from dataloader.depth.scannet import GAP, ScannetScan, find_sens, natural_key, scan_folders, unpack_scan
from dataloader.depth.tasks import DepthTask
from dataloader.images import read_depth
from dataloader.toy import make_boxes, make_cameras, render
from geometry.views import Views
from tests.dataloader.depth.sens_writer import from_views

FRAMES = 62


@cache
def walk() -> Views:
    """So many views of a room, along an arc."""
    boxes = make_boxes(1)
    views = render(boxes, make_cameras(1, FRAMES, 24, 32, boxes), supersample=1)
    views.images = views.images * 0.8 + 0.1  # nothing as dark as a photo's black border
    return views


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scannet")
    path = from_views(walk()).write(root / "scans" / "scene0003_01" / "scene0003_01.sens")
    done = unpack_scan(path, root / "scene0003_01")
    assert (done.made, done.present) == (FRAMES, 0)
    return root


@pytest.fixture
def root(unpacked: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(unpacked, tmp_path / "scannet"))


def tasks(root: Path, protocol: DepthProtocol | None = None, **options) -> list[DepthTask | SkippedPair]:
    return list(ScannetScan(root / "scene0003_01", protocol or DepthProtocol(), **options).tasks())


def test_layout_and_values(unpacked: Path) -> None:
    scan = unpacked / "scene0003_01"
    names = {path.name for path in scan.iterdir()}
    assert names == {"color", "depth", "pose", "intrinsic"}
    with Image.open(scan / "depth" / "11.png") as image:
        assert image.mode.startswith("I;16")
    depth = walk().depth
    assert depth is not None
    np.testing.assert_allclose(read_depth(scan / "depth" / "11.png"), depth[11, 0], atol=6e-4)
    np.testing.assert_allclose(np.loadtxt(scan / "pose" / "11.txt"), walk().cameras.c2w[11], atol=1e-6)
    intrinsic = np.loadtxt(scan / "intrinsic" / "intrinsic_depth.txt")
    np.testing.assert_allclose(intrinsic[:3, :3], walk().cameras.K[0], rtol=1e-6)


def test_unpacking_resumes(root: Path) -> None:
    scan = root / "scene0003_01"
    (scan / "depth" / "5.png").unlink()
    (scan / "color" / "7.jpg").unlink()
    kept = (scan / "color" / "6.jpg").stat().st_mtime_ns
    done = unpack_scan(root / "scans" / "scene0003_01" / "scene0003_01.sens", scan)
    assert (done.made, done.present) == (2, FRAMES - 2)
    assert (scan / "color" / "6.jpg").stat().st_mtime_ns == kept
    assert (scan / "depth" / "5.png").is_file()


def test_a_cut_off_scan_leaves_whole_frames_only(root: Path, tmp_path: Path) -> None:
    path = root / "scans" / "scene0003_01" / "scene0003_01.sens"
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(UserError, match=rf"frame \d+ of {FRAMES}"):
        unpack_scan(path, tmp_path / "out")
    written = [len(list((tmp_path / "out" / kind).iterdir())) for kind in ("color", "depth", "pose")]
    assert 0 < written[0] < FRAMES
    assert len(set(written)) == 1


def test_pairs_are_ten_frames_apart_in_natural_order(unpacked: Path) -> None:
    found = tasks(unpacked)
    assert [task.name for task in found] == ["0-10", "50-60"]
    task = found[0]
    assert isinstance(task, DepthTask)
    assert (task.scene, task.source.names, task.target.names) == ("scene0003_01", ["0"], ["10"])
    torch.testing.assert_close(task.target.cameras.c2w[0], walk().cameras.c2w[10], rtol=0, atol=1e-6)
    truth = task.target.depth
    assert truth is not None
    known = task.sparse > 0
    assert 0.3 < known.double().mean() < 1
    assert (task.sparse - truth).abs()[known].median() < 0.1  # coarse pixels
    assert not (known & (task.hidden > 0)).any()


def test_black_borders_and_unknown_truth_are_not_scored(root: Path) -> None:
    scan = root / "scene0003_01"
    (before,) = (task.hidden for task in tasks(root)[:1] if isinstance(task, DepthTask))
    photo = np.full((24, 32, 3), 200, np.uint8)
    photo[:, :16] = 3
    Image.fromarray(photo).save(scan / "color" / "10.jpg", quality=100)
    depth = (read_depth(scan / "depth" / "10.png") * 1000).astype(np.uint16)
    depth[:12] = 0
    Image.fromarray(depth).save(scan / "depth" / "10.png")
    corrected, legacy = (
        next(task for task in tasks(root, protocol) if isinstance(task, DepthTask))
        for protocol in (DepthProtocol(), legacy_protocol(0.03))
    )
    assert before[..., :15].any()
    assert not corrected.hidden[..., :15].any()
    assert not corrected.hidden[..., :12, :].any()
    assert legacy.hidden[..., :12, 18:].any()
    assert not legacy.hidden[..., :15].any()


def test_pairs_that_lack_something_are_skipped_by_name(root: Path) -> None:
    scan = root / "scene0003_01"
    (scan / "color" / "10.jpg").unlink()
    np.savetxt(scan / "pose" / "50.txt", np.full((4, 4), -np.inf))
    missing, lost = tasks(root)
    assert isinstance(missing, SkippedPair)
    assert missing.reason.endswith("color/10.jpg is missing")
    assert isinstance(lost, SkippedPair)
    assert "not finite" in lost.reason


def test_the_first_depth_may_be_estimated(unpacked: Path) -> None:
    def flat(photo: Views) -> Tensor:
        return torch.full((1, 1, 24, 32), 2.0)

    task = tasks(unpacked, estimate=flat)[0]
    assert isinstance(task, DepthTask)
    assert task.source.depth is not None
    assert (task.source.depth == 2).all()
    assert task.source.valid is not None
    assert task.source.valid.all()


def test_bad_input_is_named(root: Path, tmp_path: Path) -> None:
    scan = root / "scene0003_01"
    (scan / "intrinsic" / "intrinsic_depth.txt").write_text("1 2 3\n")
    with pytest.raises(UserError, match="not a 4x4 matrix"):
        tasks(root)
    shutil.rmtree(scan / "pose")
    with pytest.raises(UserError, match="holds no pose"):
        tasks(root)
    with pytest.raises(UserError, match="holds no processed scan"):
        scan_folders(root, 3)  # scene 3 is the fourth
    assert [path.name for path in scan_folders(root, 4)] == ["scene0003_01"]
    with pytest.raises(UserError, match="holds no scan"):
        find_sens(tmp_path / "nowhere")
    assert len(find_sens(root / "scans")) == 1


def test_natural_order() -> None:
    assert sorted(["10", "9", "100", "2a", "2"], key=natural_key) == ["2", "2a", "9", "10", "100"]
    assert GAP == 10
