"""Readers of teacher depth, hole masks and measured depth."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from common.errors import UserError
from dataloader.depth.teacher import (
    ListedPhoto,
    open_depth_test_set,
    open_hole_masks,
    open_teacher_photos,
    read_filename_list,
)
from tests.dataloader.depth.files import relief, write_npy, write_photo, write_sync


@pytest.fixture
def sync(tmp_path: Path) -> Path:
    """NYU photos in sync/, the teacher's depth in teacher/."""
    for name in write_sync(tmp_path / "sync"):
        write_npy(tmp_path / "teacher" / f"{name}.npy", relief())
    return tmp_path


def test_photos_come_with_the_teachers_depth(sync: Path) -> None:
    photos = open_teacher_photos(sync / "sync", sync / "teacher")
    assert len(photos) == 4
    assert photos.name(0) == "bathroom/rgb_00000"
    assert photos.name(3) == "study/rgb_00007"
    image, depth = photos.load(3)
    assert (image.dtype, image.shape) == (np.uint8, (48, 64, 3))
    np.testing.assert_array_equal(depth, relief())


def test_missing_depth_is_left_out_up_to_a_fraction(sync: Path, caplog: pytest.LogCaptureFixture) -> None:
    (sync / "teacher/study/rgb_00000.npy").unlink()
    with pytest.raises(UserError, match=r"depth of 1 of 4 photos, such as study/rgb_00000.npy"):
        open_teacher_photos(sync / "sync", sync / "teacher")
    with caplog.at_level(logging.WARNING):
        photos = open_teacher_photos(sync / "sync", sync / "teacher", max_missing=0.25)
    assert (len(photos), photos.missing) == (3, ["study/rgb_00000"])
    assert "study/rgb_00000" in caplog.text


@pytest.mark.parametrize(
    "array",
    [
        np.ones((48, 63), np.float32),
        np.ones((48, 64), np.int32),
        np.full((48, 64), np.nan, np.float32),
        np.zeros((48, 64), np.float32),
        -np.ones((48, 64), np.float32),
    ],
)
def test_depth_that_is_none_is_named(sync: Path, array: np.ndarray) -> None:
    write_npy(sync / "teacher/study/rgb_00000.npy", array)
    photos = open_teacher_photos(sync / "sync", sync / "teacher")
    with pytest.raises(UserError, match=r"^[^\n]*study/rgb_00000.npy [^\n]*make it again[^\n]*$"):
        photos.load(2)


def test_unreadable_files_are_named(sync: Path) -> None:
    photos = open_teacher_photos(sync / "sync", sync / "teacher")
    (sync / "teacher/study/rgb_00000.npy").write_bytes(b"\x93NUMPY\x01\x00")
    (sync / "sync/study/rgb_00007.jpg").write_bytes(b"no photo")
    with pytest.raises(UserError, match=r"^[^\n]*rgb_00000.npy cannot be read[^\n]*$"):
        photos.load(2)
    with pytest.raises(UserError, match=r"rgb_00007.jpg is not a readable image"):
        photos.load(3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: open_teacher_photos(p / "none", p / "teacher"), "none is no folder"),
        (lambda p: open_teacher_photos(p / "sync", p / "none"), "none is no folder: make depth maps"),
        (lambda p: open_teacher_photos(p / "teacher", p / "sync"), "holds no photo CLASS/rgb_XXXXX.jpg"),
        (lambda p: open_hole_masks(p / "none"), "none is no folder"),
        (lambda p: open_hole_masks(p / "sync"), "holds no mask"),
        (lambda p: open_hole_masks(p / "sync/study"), "holds no folders"),
        (lambda p: open_depth_test_set(p / "teacher"), "holds no photo SCENE/rgb_XXXXX.jpg"),
        (lambda p: open_depth_test_set(p / "sync", p / "none.txt"), "none.txt cannot be read"),
    ],
)
def test_absent_data_is_one_line(sync: Path, call: Callable[[Path], object], message: str) -> None:
    with pytest.raises(UserError) as caught:
        call(sync)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    for category, count in (("alley", 2), ("attic", 3)):
        for number in range(count):
            mask = np.full((4 + number, 6), number % 2, np.uint8)
            write_npy(tmp_path / category / f"{number:08d}.npy", mask)
            Image.fromarray(mask).save(tmp_path / category / f"{number:08d}.png")
    (tmp_path / "attic/.00000009.npy.1.tmp").touch()
    (tmp_path / "empty").mkdir()
    return tmp_path


def test_masks_are_listed_in_order(masks: Path) -> None:
    holes = open_hole_masks(masks)
    assert len(holes) == 5
    names = ["alley/00000000", "alley/00000001", "attic/00000000", "attic/00000001", "attic/00000002"]
    assert [holes.name(i) for i in range(5)] == names
    mask = holes.load(3)
    assert (mask.dtype, mask.shape, int(mask.sum())) == (np.uint8, (5, 6), 30)


def test_masks_are_chosen_by_the_generator(masks: Path) -> None:
    holes = open_hole_masks(masks)

    def choices(seed: int) -> list[int]:
        generator = torch.Generator().manual_seed(seed)
        return [holes.choose(generator) for _ in range(60)]

    assert choices(1) == choices(1) != choices(2)
    assert set(choices(1)) == set(range(5))


@pytest.mark.parametrize("array", [np.full((4, 4), 255, np.uint8), np.zeros((1, 4, 4), np.uint8), np.eye(3)])
def test_what_is_no_mask_is_named(masks: Path, array: np.ndarray) -> None:
    write_npy(masks / "alley/00000000.npy", array)
    with pytest.raises(UserError, match=r"alley/00000000.npy is no mask of zeros and ones"):
        open_hole_masks(masks).load(0)


def test_measured_depth_is_in_metres(sync: Path) -> None:
    depth = np.full((48, 64), 2345, np.uint16)
    depth[:8] = 0
    Image.fromarray(depth).save(sync / "sync/bathroom/sync_depth_00007.png")
    tests = open_depth_test_set(sync / "sync")
    assert len(tests) == 4
    assert tests.name(1) == "bathroom/rgb_00007"
    image, metres = tests.load(1)
    assert (image.shape, metres.dtype) == ((48, 64, 3), np.float32)
    assert metres.max() == pytest.approx(2.345)
    assert (metres[:8] == 0).all()


def test_a_filename_list_chooses_and_orders(sync: Path) -> None:
    listed = sync / "files.txt"
    lines = [
        f"/study/rgb_{n} /study/sync_depth_{n.replace('jpg', 'png')} 518.8579"
        for n in ("00007.jpg", "00000.jpg")
    ]
    listed.write_text("\n".join(lines) + "\n\n")
    first = ListedPhoto("study/rgb_00007.jpg", "study/sync_depth_00007.png", 518.8579)
    assert read_filename_list(listed)[0] == first
    tests = open_depth_test_set(sync / "sync", listed)
    assert [tests.name(i) for i in range(len(tests))] == ["study/rgb_00007", "study/rgb_00000"]
    listed.write_text("\n".join([*lines, "study/rgb_1.jpg study/sync_depth_1.png 518"]))
    with pytest.raises(UserError, match=r"study/rgb_1.jpg does not exist"):
        open_depth_test_set(sync / "sync", listed)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "lists no photo"),
        ("a.jpg b.png", r"line 1: 'a.jpg b.png' is not"),
        ("a.jpg b.png x", "is not 'PHOTO DEPTH FOCAL'"),
        ("a.jpg b.png 5\n../a.jpg b.png 5", "line 2: .* leads out of the folder"),
    ],
)
def test_broken_filename_lists_are_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "files.txt").write_text(text)
    with pytest.raises(UserError, match=message):
        read_filename_list(tmp_path / "files.txt")


def test_depth_of_another_size_is_named(sync: Path) -> None:
    write_photo(sync / "sync/study/rgb_00000.jpg", 0, 40, 64)
    with pytest.raises(UserError, match=r"sync_depth_00000.png is \(48, 64\), its photo \(40, 64\)"):
        open_depth_test_set(sync / "sync").load(2)
