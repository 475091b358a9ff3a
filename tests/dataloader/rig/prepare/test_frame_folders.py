"""Folders per frame: names and bytes as the original's, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from common.errors import UserError
from dataloader.images import read_image, resize_image
from dataloader.rig.folders import open_frames
from dataloader.rig.prepare.frame_folders import write_frame_folders
from dataloader.rig.prepare.frames import open_rig
from tests.dataloader.rig.prepare.makers import write_frames


def listed(root: Path) -> list[str]:
    return sorted(
        str(path.relative_to(root)) for path in root.rglob("*") if path.is_file() and path.suffix != ".json"
    )


def test_the_originals_files(parity_dir: Path, tmp_path: Path) -> None:
    with safe_open(parity_dir / "mask_volume/background_median.safetensors", "np") as case:
        config = json.loads(case.metadata()["case"])["config"]
    rig = open_rig(write_frames(tmp_path / "rig", count=2, moments=config["frames"], size=(24, 32)))
    assert write_frame_folders(rig, tmp_path / "o", 1, 3, (12, 16)) == 2
    assert [f"o/{name}" for name in listed(tmp_path / "o")] == config["exported_files"]
    small = read_image(tmp_path / "o/00002/images_16x12/001.png")
    np.testing.assert_array_equal(small, resize_image(read_image(rig.cameras["cam01"][2]), (12, 16)))


def test_files_are_copied_byte_for_byte_and_opened_again(tmp_path: Path) -> None:
    rig = open_rig(write_frames(tmp_path / "rig"))
    write_frame_folders(rig, tmp_path / "out")
    for camera, files in enumerate(rig.cameras.values()):
        for moment, path in enumerate(files):
            copy = tmp_path / f"out/{moment:05d}/images/{camera:03d}.png"
            assert copy.read_bytes() == path.read_bytes()
    clip, original = open_frames(tmp_path / "out"), open_frames(tmp_path / "rig")
    assert (len(clip), len(clip.cameras)) == (4, 3)
    np.testing.assert_array_equal(clip.cameras[2].c2w, original.cameras[2].c2w)


def test_a_killed_run_continues(tmp_path: Path) -> None:
    rig = open_rig(write_frames(tmp_path / "rig"))
    write_frame_folders(rig, tmp_path / "out", 0, 2)
    (tmp_path / "out/00001").rename(tmp_path / "out/.00001.partial")
    (tmp_path / "out/.00001.partial/poses_bounds.npy").unlink()
    assert write_frame_folders(rig, tmp_path / "out", 0, 3) == 2
    assert len(listed(tmp_path / "out")) == 3 * 4
    with pytest.raises(UserError, match=r"other options \(size\)"):
        write_frame_folders(rig, tmp_path / "out", size=(6, 8))


def test_what_is_refused(tmp_path: Path) -> None:
    rig = open_rig(write_frames(tmp_path / "rig"))
    for start, end in ((2, 2), (-1, 2), (0, 5)):
        with pytest.raises(UserError, match=rf"--range {start} {end}: .* has frames 0 to 3"):
            write_frame_folders(rig, tmp_path / "out", start, end)
    poses = tmp_path / "rig/poses_bounds.npy"
    np.save(poses, np.load(poses)[:2])
    with pytest.raises(UserError, match="has 2 rows for 3 cameras"):
        write_frame_folders(rig, tmp_path / "out")
    np.save(poses, np.zeros((3, 15)))
    with pytest.raises(UserError, match=r"has shape \(3, 15\), poses and bounds are"):
        write_frame_folders(rig, tmp_path / "out")
    poses.unlink()
    with pytest.raises(UserError, match="does not exist"):
        write_frame_folders(rig, tmp_path / "out")
    with pytest.raises(UserError, match="has one camera"):
        write_frame_folders(open_rig(write_frames(tmp_path / "one", count=1)), tmp_path / "out")
    assert not (tmp_path / "out").exists()
