"""Path files of rigs on disk."""

from pathlib import Path

import pytest
import torch

from common.errors import UserError
from dataloader.rig.folders import open_frames
from dataloader.rig.prepare.frame_folders import write_frame_folders
from dataloader.rig.prepare.frames import open_rig
from dataloader.rig.prepare.paths import write_path
from geometry.path_files import read_camera_path
from geometry.rig_path_files import read_rig_path
from tests.dataloader.rig.prepare.makers import write_frames


def test_paths_in_all_files(tmp_path: Path) -> None:
    root = write_frames(tmp_path / "rig")
    assert write_path(root, tmp_path / "p.txt", frames=4) == 36
    assert write_path(root, tmp_path / "p.json", ["input"], fps=25) == 3
    cameras, fps = read_camera_path(tmp_path / "p.json")
    assert (fps, cameras.width) == (25, 16)
    rig = open_frames(root).cameras
    torch.testing.assert_close(cameras.c2w, torch.stack([camera.c2w for camera in rig]))
    write_frame_folders(open_rig(root), tmp_path / "frames", 1, 3)
    for place in (tmp_path / "frames", tmp_path / "frames/00001"):
        write_path(place, tmp_path / "p.npy", frames=4)
        torch.testing.assert_close(
            read_rig_path(tmp_path / "p.npy").c2w, read_rig_path(tmp_path / "p.txt").c2w
        )
    with pytest.raises(UserError, match=r"end in \.txt or \.npy"):
        write_path(root, tmp_path / "p.csv")
