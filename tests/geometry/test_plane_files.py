"""Multi-plane images in LLFF's folders."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from common.errors import UserError
from geometry.cameras import pinhole
from geometry.plane_files import read_mpi, write_mpi
from geometry.planes import PlaneImage
from tests.geometry.painted_planes import decibels, painted, seen_from


def test_straight_planes_come_back_as_they_were(tmp_path: Path) -> None:
    planes = painted()
    assert write_mpi(planes, tmp_path / "mpi") == []
    read = read_mpi(tmp_path / "mpi")
    assert read.layers.dtype == torch.float32
    assert (read.layers - planes.layers).abs().max() <= 0.5 / 255 + 1e-6
    assert torch.allclose(read.depths, planes.depths, rtol=1e-12)
    assert torch.equal(read.camera.K, planes.camera.K)
    assert torch.equal(read.camera.c2w, planes.camera.c2w)
    assert not read.premultiplied


def test_colours_are_divided_by_alpha(tmp_path: Path) -> None:
    straight, multiplied = painted(), painted(premultiplied=True)
    write_mpi(multiplied, tmp_path)
    read = read_mpi(tmp_path)
    seen = straight.layers[..., 3] > 0
    assert (read.layers - straight.layers)[seen].abs().max() <= 0.5 / 255 + 1e-5
    assert (read.layers[~seen] == 0).all()
    assert decibels(seen_from(read), seen_from(multiplied)) > 45


def test_what_lies_outside_the_range_is_clamped(tmp_path: Path) -> None:
    planes = painted()
    planes.layers[1, 3, 5] = torch.tensor([-1.0, 1.5, 0.5, 2.0])
    write_mpi(planes, tmp_path)
    assert read_mpi(tmp_path).layers[1, 3, 5].mul(255).round().tolist() == [0, 255, 128, 255]


# A camera at (1, 2, 3) that looks along the world's x with the world's z up: right is -y, backwards -x.
METADATA = "2 3 2 4.5\n0.0 -1.0 0.0\n0.0 0.0 1.0\n-1.0 0.0 0.0\n1.0 2.0 3.0\n100.0 2.0\n"


def write_bytes(folder: Path, metadata: str = METADATA, layers: bytes = bytes(range(48))) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "metadata.txt").write_text(metadata)
    (folder / "mpi.b").write_bytes(layers)
    return folder


def test_a_file_of_the_format_is_read(tmp_path: Path) -> None:
    read = read_mpi(write_bytes(tmp_path / "mpi"))
    camera = read.camera
    assert (camera.height, camera.width) == (2, 3)
    assert camera.K.tolist() == [[4.5, 0, 1.5], [0, 4.5, 1], [0, 0, 1]]
    right, down, forward, position = camera.c2w[:3].T.tolist()
    assert (right, down, forward, position) == ([0, -1, 0], [0, 0, -1], [1, 0, 0], [1, 2, 3])
    assert read.depths.tolist() == [100, 2]
    # byte 4 * (3 * (2 * plane + row) + column) + channel
    for plane, row, column in ((0, 0, 0), (0, 1, 2), (1, 0, 1)):
        first = 4 * (3 * (2 * plane + row) + column)
        assert read.layers[plane, row, column].mul(255).round().tolist() == list(range(first, first + 4))


def test_the_format_is_written_to_the_byte(tmp_path: Path) -> None:
    folder = write_bytes(tmp_path / "mpi")
    write_mpi(read_mpi(folder), tmp_path / "again")
    assert (tmp_path / "again" / "mpi.b").read_bytes() == (folder / "mpi.b").read_bytes()
    written = (tmp_path / "again" / "metadata.txt").read_text()
    assert written.startswith("2 3 2 4.5\n")  # sizes are whole numbers: other readers refuse '2.0'
    assert [float(word) for word in written.split()] == [float(word) for word in METADATA.split()]
    assert written.count("\n") == 6


def test_what_it_cannot_hold_is_said(tmp_path: Path) -> None:
    (lost,) = write_mpi(painted(backdrop=True), tmp_path)
    assert "beyond its edges" in lost


def test_writing_is_both_files_or_none(tmp_path: Path) -> None:
    planes = painted()
    (tmp_path / "notes.txt").write_text("keep")
    write_mpi(planes, tmp_path)
    kept = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    broken = painted()
    broken.layers[-1, 0, 0, 0] = math.nan
    with pytest.raises(UserError, match="not finite"):
        write_mpi(broken, tmp_path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == kept
    write_mpi(painted(planes=3), tmp_path)
    assert len(read_mpi(tmp_path).layers) == 3
    assert (tmp_path / "notes.txt").read_text() == "keep"


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        write_mpi(painted(), tmp_path / "file")


def with_intrinsic(row: int, column: int, value: float) -> PlaneImage:
    planes = painted()
    K = planes.camera.K.clone()
    K[row, column] += value
    return replace(planes, camera=replace(planes.camera, K=K))


def with_depths(depths: list[float]) -> PlaneImage:
    layers = torch.zeros(len(depths), 2, 3, 4)
    return PlaneImage(layers, torch.tensor(depths), pinhole(3.0, 2, 3))


@pytest.mark.parametrize(
    ("planes", "said"),
    [
        (with_intrinsic(0, 0, 0.05), "fx differs"),
        (with_intrinsic(1, 2, 0.02), "principal point"),
        (with_intrinsic(0, 1, 0.05), "skewed"),
        (with_intrinsic(0, 2, math.nan), "not finite"),
        (with_depths([10, 6, 2]), "evenly spaced in inverse depth"),
        (with_depths([2, 5]), "from far to near"),
        (with_depths([math.inf, 5]), "from far to near"),
        (with_depths([5]), "two or more"),
    ],
)
def test_planes_that_do_not_fit_are_refused(planes: PlaneImage, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        write_mpi(planes, tmp_path)
    assert not list(tmp_path.iterdir())


def test_losses_below_a_hundredth_of_a_pixel_pass(tmp_path: Path) -> None:
    write_mpi(with_intrinsic(0, 2, 0.009), tmp_path)
    assert float(read_mpi(tmp_path).camera.K[0, 2]) == 48


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ("\n".join(METADATA.splitlines()[:4]), "4 of 6 lines"),
        (METADATA.replace("2 3 2 4.5", "2 3 4.5"), "line 1 .* 'height width planes focal'"),
        (METADATA.replace("2 3 2 4.5", "2.5 3 2 4.5"), "line 1"),
        (METADATA.replace("2 3 2 4.5", "2 3 1 4.5"), "at least 2"),
        (METADATA.replace("2 3 2 4.5", "2 3 2 -4.5"), "focal length"),
        (METADATA.replace("1.0 2.0 3.0", "1.0 nan 3.0"), "line 5"),
        (METADATA.replace("0.0 -1.0 0.0", "0.0 1.0 0.0"), "no camera axes"),
        (METADATA.replace("100.0 2.0", "2.0 100.0"), "far near"),
        (METADATA.replace("100.0 2.0", "100.0 two"), "line 6"),
        (METADATA.replace("2 3 2 4.5", "2 3 3 4.5"), "48 bytes, 3 planes of 3x2 RGBA are 72"),
        (METADATA + "é", "no text"),
    ],
)
def test_bad_metadata_is_named(metadata: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said) as error:
        read_mpi(write_bytes(tmp_path / "mpi", metadata))
    assert str(tmp_path / "mpi") in str(error.value)


def test_missing_and_cut_off_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"metadata\.txt does not exist"):
        read_mpi(tmp_path)
    folder = write_bytes(tmp_path / "mpi", layers=bytes(47))
    with pytest.raises(UserError, match="47 bytes"):
        read_mpi(folder)
    (folder / "mpi.b").unlink()
    with pytest.raises(UserError, match=r"mpi\.b does not exist"):
        read_mpi(folder)


def test_one_image_at_a_time(tmp_path: Path) -> None:
    planes = painted()
    two = PlaneImage(
        planes.layers.expand(2, *planes.layers.shape), planes.depths.expand(2, -1), planes.camera
    )
    with pytest.raises(ValueError, match="one multi-plane image"):
        write_mpi(two, tmp_path)
