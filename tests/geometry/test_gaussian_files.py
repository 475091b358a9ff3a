"""Gaussians on disk: what comes back, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import plyfile
import pytest
import torch

from common.errors import UserError
from geometry.gaussian_files import read_gaussians, write_gaussians
from geometry.gaussians import rotate_gaussians
from tests.geometry.test_gaussians import random_gaussians


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    scene = random_gaussians(7, 1, torch.float32)
    write_gaussians(tmp_path / "new" / "scene.ply", scene)
    read = read_gaussians(tmp_path / "new" / "scene.ply")
    assert all(torch.equal(a, b) for a, b in zip(vars(scene).values(), vars(read).values(), strict=True))
    assert [item.name for item in (tmp_path / "new").iterdir()] == ["scene.ply"]


def test_a_file_name_needs_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_gaussians(Path("scene.ply"), random_gaussians(2, 1))
    assert len(read_gaussians(Path("scene.ply"))) == 2


def test_coefficients_are_stored_channel_by_channel(tmp_path: Path) -> None:
    scene = random_gaussians(3, 2, torch.float32)
    write_gaussians(tmp_path / "s.ply", scene)
    vertex = plyfile.PlyData.read(str(tmp_path / "s.ply"))["vertex"]
    assert len(vertex.properties) == 62
    assert vertex["f_rest_0"].tolist() == scene.sh_rest[:, 0, 0].tolist()
    assert vertex["f_rest_14"].tolist() == scene.sh_rest[:, 14, 0].tolist()
    assert vertex["f_rest_15"].tolist() == scene.sh_rest[:, 0, 1].tolist()
    assert not vertex["nx"].any()


def test_axes_of_the_original(tmp_path: Path) -> None:
    """In its own world, whose y and z point the other way, it negates y and z of the positions alone."""
    ours = random_gaussians(5, 3, torch.float32)
    flip = torch.diag(torch.tensor([1.0, -1, -1]))
    world_of_the_original = rotate_gaussians(ours, flip)
    write_gaussians(tmp_path / "o.ply", ours, original_axes=True)
    stored = read_gaussians(tmp_path / "o.ply")
    torch.testing.assert_close(stored.means, world_of_the_original.means @ flip)
    torch.testing.assert_close(stored.sh_rest, world_of_the_original.sh_rest)
    torch.testing.assert_close(stored.quaternions, world_of_the_original.quaternions)
    mended = read_gaussians(tmp_path / "o.ply", original_axes=True)
    torch.testing.assert_close(mended.sh_rest, ours.sh_rest, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(mended.quaternions.abs(), ours.quaternions.abs())  # q and -q are one rotation
    assert torch.equal(mended.means, ours.means)


def test_files_of_lower_degree(tmp_path: Path) -> None:
    scene = random_gaussians(3, 4, torch.float32)
    write_gaussians(tmp_path / "s.ply", replace(scene, sh_rest=scene.sh_rest[:, :3]))
    read = read_gaussians(tmp_path / "s.ply")
    assert torch.equal(read.sh_rest[:, :3], scene.sh_rest[:, :3])
    assert not read.sh_rest[:, 3:].any()


def refused(path: Path, message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        read_gaussians(path)
    assert "\n" not in str(raised.value)
    assert path.name in str(raised.value)


def test_what_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "scene.ply"
    refused(path, "cannot read")
    write_gaussians(path, random_gaussians(4, 1))
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    refused(path, "cut off")
    path.write_bytes(whole[:200])
    refused(path, "cut off")
    path.write_bytes(b"")
    refused(path, "not a readable PLY")
    path.write_bytes(b"hello")
    refused(path, "not a readable PLY")
    path.write_bytes(whole.replace(b"float opacity", b"float mystery"))
    refused(path, "lack opacity")
    path.write_bytes(whole.replace(b"float f_rest_44", b"float mystery"))
    refused(path, "44 coefficients")
    path.write_bytes(whole.replace(b"element vertex", b"element things"))
    refused(path, "no vertices")
    path.write_bytes(whole[:-4] + np.float32(np.nan).tobytes())
    refused(path, "not finite")
