"""qual_path.txt and .npy: round trips, the original's files, and what broken ones are told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from common.errors import UserError
from geometry.cameras import Cameras, pinhole
from geometry.paths import orbit
from geometry.poses import llff_from_pose
from geometry.rig_path_files import read_rig_path, write_rig_path


def _path(n: int = 4) -> Cameras:
    """A path whose focal length changes from frame to frame."""
    cameras = orbit(pinhole(31.25, 18, 32), n=n)
    scale = torch.linspace(1, 1.3, n, dtype=torch.float64)[:, None, None]
    K = cameras.K.clone()
    K[:, :2, :2] *= scale
    return Cameras(K, cameras.c2w, cameras.height, cameras.width)


@pytest.mark.parametrize("suffix", [".txt", ".npy"])
def test_round_trip(suffix: str, tmp_path: Path) -> None:
    path, file = _path(), tmp_path / "new" / f"path{suffix}"
    write_rig_path(path, file)
    read = read_rig_path(file)
    assert (read.height, read.width) == (18, 32)
    torch.testing.assert_close(read.K, path.K, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(read.c2w, path.c2w, rtol=1e-12, atol=1e-12)
    assert [entry.name for entry in file.parent.iterdir()] == [file.name]


def test_recorded_files(parity_dir: Path, tmp_path: Path) -> None:
    case = load_file(parity_dir / "mask_volume" / "path_file.safetensors")
    text, array = tmp_path / "qual_path.txt", tmp_path / "path.npy"
    text.write_bytes(case["output.file_bytes"].numpy().tobytes())
    np.save(array, case["output.npy_poses"].numpy())
    mirror = torch.diag(torch.tensor([1.0, 1, -1, 1]))  # the original's world is mirrored
    for file in (text, array):
        path = read_rig_path(file)
        expected = case["output.llff_poses"][:, :, :4]
        torch.testing.assert_close(llff_from_pose(path.c2w), expected, rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(path.w2c.float() @ mirror, case["output.w2c"], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(path.K.float(), case["output.K_96x54"], rtol=1e-6, atol=0)
        wide = read_rig_path(file, (360, 640))  # of the aspect ratio of 54 x 96: ours equals the original's
        torch.testing.assert_close(wide.K.float(), case["output.K_640x360"], rtol=1e-6, atol=0)
    write_rig_path(read_rig_path(text), tmp_path / "again.txt")
    ours, theirs = (np.loadtxt(file, skiprows=1) for file in (tmp_path / "again.txt", text))
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-15)


def test_other_sizes_scale_x_and_y_apart(tmp_path: Path) -> None:
    write_rig_path(_path(), tmp_path / "p.txt")
    K = read_rig_path(tmp_path / "p.txt", (9, 64)).K[0]
    assert K.tolist() == [[62.5, 0, 32], [0, 15.625, 4.5], [0, 0, 1]]


def test_the_shared_path(parity_data: Path) -> None:
    path = read_rig_path(parity_data / "mvcam_mini" / "frames" / "00000" / "qual_path.txt")
    assert (len(path), path.height, path.width) == (24, 72, 128)
    rows = np.load(parity_data / "mvcam_mini" / "novel" / "poses_bounds.npy")[:, :15].reshape(-1, 3, 5)
    for i in range(24):
        np.testing.assert_allclose(llff_from_pose(path.c2w[i]).numpy(), rows[i // 6, :, :4], rtol=1e-9)


_POSE = "1 0 0 0 1 0 0 0 1 0 0 0 18 32 30"  # right, up, backwards, position, size


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the first line must be the number of poses"),
        (f"one\n{_POSE}\n", "the first line must be the number of poses"),
        (f"{_POSE}\n", "the first line must be the number of poses"),
        (f"2\n{_POSE}\n", "announces 2 poses and holds 1"),
        ("0\n", "holds no pose"),
        (f"1\n{_POSE} 7\n", "pose 0 has 16 numbers"),
        (f"2\n{_POSE}\n{_POSE[:-2]}f\n", "pose 1: could not convert"),
        (f"2\n{_POSE}\n{_POSE[:-2]}nan\n", "pose 1: a number is not finite"),
        (f"1\n2{_POSE[1:]}\n", "pose 0 is no rotation with the columns right, up"),
        (f"1\n{_POSE.replace('0 1 0 0 0 1', '0 -1 0 0 0 1')}\n", "is no rotation"),
        (f"2\n{_POSE}\n{_POSE.replace('18', '20')}\n", "images of several sizes"),
        (f"1\n{_POSE.replace('18', '18.5')}\n", "are no camera's"),
        (f"1\n{_POSE[:-2]}0\n", "are no camera's"),
        ("1\n\u00b5\n", "cannot be read"),
    ],
)
def test_bad_texts(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "qual_path.txt"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=message) as caught:
        read_rig_path(file)
    assert "\n" not in str(caught.value)
    assert str(file) in str(caught.value)


def test_bad_arrays(tmp_path: Path) -> None:
    file = tmp_path / "path.npy"
    with pytest.raises(UserError, match="does not exist"):
        read_rig_path(file)
    with pytest.raises(UserError, match="does not exist"):
        read_rig_path(file.with_suffix(".txt"))
    file.write_bytes(b"no array")
    with pytest.raises(UserError, match="not a readable array"):
        read_rig_path(file)
    np.save(file, np.zeros((4, 17)))
    with pytest.raises(UserError, match=r"has shape \[4, 17\]: a path is numbers"):
        read_rig_path(file)
    np.save(file, np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match="not a readable array"):
        read_rig_path(file)


def test_what_cannot_be_written(tmp_path: Path) -> None:
    path = _path()
    with pytest.raises(UserError, match=r"end in \.txt or \.npy"):
        write_rig_path(path, tmp_path / "path.csv")
    with pytest.raises(UserError, match=r"camera 0 of the path: fx differs from fy .* one focal length"):
        write_rig_path(path.resize(18, 40), tmp_path / "path.txt")
    assert list(tmp_path.iterdir()) == []
