"""dataloader.depth.sens_files: what was written is read; damage is named by frame and byte."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from common.errors import UserError
from dataloader.depth.sens_files import open_sens
from tests.dataloader.depth.sens_writer import Sens


@pytest.fixture
def sens() -> Sens:
    rng = np.random.default_rng(0)
    frames = [
        (
            rng.integers(0, 256, (6, 8, 3), dtype=np.uint8),
            rng.integers(0, 5000, (3, 4), dtype=np.uint16),
            rng.normal(size=(4, 4)).astype(np.float32),
        )
        for _ in range(3)
    ]
    return Sens(frames, np.diag([500.0, 510.0, 1.0, 1.0]), color_kind=1)


@pytest.mark.parametrize("color_kind", [0, 1, 2])
@pytest.mark.parametrize("depth_kind", [0, 1])
def test_round_trip(sens: Sens, color_kind: int, depth_kind: int, tmp_path: Path) -> None:
    sens = dataclasses.replace(sens, color_kind=color_kind, depth_kind=depth_kind)
    with open_sens(sens.write(tmp_path / "a.sens")) as file:
        assert file.header.sensor == "StructureSensor"
        assert (file.header.color_size, file.header.depth_size) == ((6, 8), (3, 4))
        assert file.header.depth_shift == 1000
        np.testing.assert_array_equal(file.header.depth_intrinsic, sens.intrinsic)
        for frame, (photo, depth, c2w) in zip(file.frames(), sens.frames, strict=True):
            np.testing.assert_array_equal(file.depth(frame), depth)
            np.testing.assert_array_equal(frame.c2w, c2w)
            if color_kind < 2:
                np.testing.assert_array_equal(file.photo(frame), photo)
            else:
                assert file.photo(frame).shape == photo.shape


def test_every_truncation_is_one_line_that_names_the_place(sens: Sens, tmp_path: Path) -> None:
    whole, path = sens.data()[:-8], tmp_path / "a.sens"
    start = len(sens.header())
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError) as caught, open_sens(path) as file:
            list(file.frames())
        message = str(caught.value)
        assert "\n" not in message
        assert f"the file has {length}" in message
        assert ("the header" in message) == (length < start)
    path.write_bytes(whole[: start + len(sens.frame(0)) + 10])
    with (
        pytest.raises(UserError, match=rf"frame 1 of 3.* at byte {start + len(sens.frame(0))},"),
        open_sens(path) as file,
    ):
        list(file.frames())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 3}, "no .sens file of version 4"),
        ({"shift": 0.0}, "depth shift 0 is not understood"),
    ],
)
def test_other_files_are_refused(sens: Sens, changes: dict, message: str, tmp_path: Path) -> None:
    path = dataclasses.replace(sens, **changes).write(tmp_path / "a.sens")
    with pytest.raises(UserError, match=message), open_sens(path):
        pass


def test_unknown_compression_is_named(sens: Sens, tmp_path: Path) -> None:
    data = bytearray(sens.data())
    at = len(sens.header()) - 36 + 4  # depth compression
    data[at] = 2
    path = tmp_path / "a.sens"
    path.write_bytes(data)
    with pytest.raises(UserError, match="depth compression 2"), open_sens(path):
        pass


def test_damaged_bytes_are_named(sens: Sens, tmp_path: Path) -> None:
    data = bytearray(sens.data())
    end = len(sens.header()) + len(sens.frame(0))
    data[end - 20 : end] = bytes(20)  # in the packed depth of frame 0
    color = len(sens.header()) + 96
    data[color : color + 20] = bytes(20)
    path = tmp_path / "a.sens"
    path.write_bytes(data)
    with open_sens(path) as file:
        frame = next(file.frames())
        with pytest.raises(UserError, match=rf"frame 0 of 3, before byte {end}: its depth does not unpack"):
            file.depth(frame)
        with pytest.raises(UserError, match=r"frame 0 of 3.*its photo is unreadable"):
            file.photo(frame)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read"), open_sens(tmp_path / "none.sens"):
        pass
