"""Teacher depth and hole masks of whole folders: what is made, kept, left out and dealt out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from common.errors import UserError
from dataloader.depth.jobs import Predict, Selection, predict_teacher, project_masks
from dataloader.depth.teacher import open_hole_masks, open_teacher_photos
from dataloader.re10k.pack import Shard
from tests.dataloader.depth.files import relief, write_npy, write_photo, write_sync

ALL = Selection()


class Grey:
    """A teacher that takes the green channel for depth, and notes what it was shown."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, tuple[int, ...]]] = []

    def __call__(self, photo: NDArray[np.uint8], key: str) -> NDArray[np.float32]:
        self.seen.append((key, photo.shape))
        return photo[..., 1].astype(np.float32) / 255

    def load(self) -> Predict:
        return self


def unasked() -> Predict:
    raise AssertionError("the teacher was loaded for nothing")


@pytest.fixture
def places(tmp_path: Path) -> Path:
    for seed, name in enumerate(("alley/00000001", "alley/00000002", "attic/00000001")):
        write_photo(tmp_path / "places" / f"{name}.jpg", seed, 20 + seed, 30)
    return tmp_path


def test_whole_photos_get_depth(places: Path) -> None:
    teacher = Grey()
    done = predict_teacher("places", places / "places", places / "out", teacher.load, ALL)
    assert (done.made, done.present, done.failed) == (3, 0, [])
    assert teacher.seen[2] == ("attic/00000001", (22, 30, 3))
    depth = np.load(places / "out/alley/00000002.npy")
    assert (depth.dtype, depth.shape) == (np.float32, (21, 30))


def test_what_is_there_is_kept(places: Path) -> None:
    folders = places / "places", places / "out"
    predict_teacher("places", *folders, Grey().load, ALL)
    (places / "out/alley/00000001.npy").unlink()
    (places / "out/alley/00000007.npy").touch()  # more files than photos: only names count
    teacher = Grey()
    done = predict_teacher("places", *folders, teacher.load, ALL)
    assert (done.made, done.present) == (1, 2)
    assert [key for key, _ in teacher.seen] == ["alley/00000001"]
    done = predict_teacher("places", *folders, unasked, ALL)
    assert (done.made, done.present) == (0, 3)


def test_nyus_photos_lose_their_border_and_sensor_depth_is_no_photo(tmp_path: Path) -> None:
    names = write_sync(tmp_path / "sync", 480, 640)
    teacher = Grey()
    done = predict_teacher("nyu", tmp_path / "sync", tmp_path / "out", teacher.load, ALL)
    assert done.made == 4
    assert [key for key, _ in teacher.seen] == names
    assert {shape for _, shape in teacher.seen} == {(464, 624, 3)}
    assert len(list((tmp_path / "out").rglob("*"))) == 4 + 2  # files and folders
    photos = open_teacher_photos(tmp_path / "sync", tmp_path / "out")
    image, depth = photos.load(0)
    np.testing.assert_allclose(depth[8:472, 8:632] * 255, image[8:472, 8:632, 1], atol=1e-3)
    depth[8:472, 8:632] = 0
    assert not depth.any()


def test_photos_that_cannot_be_read_are_counted(places: Path, caplog: pytest.LogCaptureFixture) -> None:
    (places / "places/alley/00000002.jpg").write_bytes(b"no photo")
    folders = places / "places", places / "out"
    done = predict_teacher("places", *folders, Grey().load, ALL)
    assert (done.made, len(done.failed)) == (2, 1)
    assert "alley/00000002.jpg is not a readable image" in caplog.text
    with pytest.raises(UserError, match=r"1 files failed, more than --max_failures 0"):
        predict_teacher("places", *folders, Grey().load, Selection(max_failures=0))


def test_nyu_takes_photos_of_one_size(tmp_path: Path) -> None:
    write_sync(tmp_path)
    done = predict_teacher("nyu", tmp_path, tmp_path / "out", Grey().load, ALL)
    assert len(done.failed) == 4
    assert "bathroom/rgb_00000.jpg is (48, 64), NYU's photos are (480, 640)" in done.failed[0]


def test_classes_are_chosen_and_dealt_out(places: Path) -> None:
    folders = places / "places", places / "out"
    first = predict_teacher("places", *folders, Grey().load, Selection(shard=Shard(0, 2)))
    assert (first.made, sorted(p.name for p in (places / "out").iterdir())) == (2, ["alley"])
    second = predict_teacher("places", *folders, Grey().load, Selection(("attic",)))
    assert second.made == 1
    none = predict_teacher("places", *folders, unasked, Selection(shard=Shard(2, 3)))
    assert (none.made, none.present) == (0, 0)
    with pytest.raises(UserError, match="has no folder cellar"):
        predict_teacher("places", *folders, unasked, Selection(("attic", "cellar")))


def test_folders_without_photos_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "alley").mkdir()
    with pytest.raises(UserError, match=r"holds no file CLASS/rgb_\*.jpg"):
        predict_teacher("nyu", tmp_path, tmp_path / "out", unasked, ALL)


@pytest.fixture
def depths(tmp_path: Path) -> Path:
    for name in ("alley/00000001", "attic/00000001", "attic/00000002"):
        write_npy(tmp_path / "depth" / f"{name}.npy", relief(60, 80))
    return tmp_path


def test_every_depth_map_gets_one_mask_and_a_preview(depths: Path) -> None:
    done = project_masks(depths / "depth", depths / "masks", 0, ALL)
    assert (done.made, done.failed) == (3, [])
    masks = open_hole_masks(depths / "masks")
    assert [masks.name(i) for i in range(len(masks))] == [
        "alley/00000001",
        "attic/00000001",
        "attic/00000002",
    ]
    mask = masks.load(0)
    assert mask.shape == (60, 80)
    assert 0 < mask.mean() < 1
    with Image.open(depths / "masks/alley/00000001.png") as preview:
        np.testing.assert_array_equal(np.asarray(preview), 255 * mask)


def test_masks_depend_on_seed_and_name_alone(depths: Path) -> None:
    project_masks(depths / "depth", depths / "a", 0, ALL)
    first = [open_hole_masks(depths / "a").load(i) for i in range(3)]
    assert not np.array_equal(first[1], first[2])  # of equal depth maps
    for name in ("alley/00000001.npy", "attic/00000002.npy"):
        (depths / "a" / name).unlink()
    assert project_masks(depths / "depth", depths / "a", 0, ALL).made == 2
    project_masks(depths / "depth", depths / "b", 1, ALL)
    again, other = open_hole_masks(depths / "a"), open_hole_masks(depths / "b")
    assert all(np.array_equal(again.load(i), first[i]) for i in range(3))
    assert not np.array_equal(other.load(1), first[1])


def test_broken_depth_maps_are_counted(depths: Path) -> None:
    (depths / "depth/alley/00000001.npy").write_bytes(b"\x93NUMPY")
    write_npy(depths / "depth/attic/00000001.npy", np.full((6, 8), np.inf, np.float32))
    done = project_masks(depths / "depth", depths / "masks", 0, ALL)
    assert (done.made, len(done.failed)) == (1, 2)
    assert "alley/00000001.npy cannot be read" in done.failed[0]
    assert "attic/00000001.npy is no relative depth" in done.failed[1]
    assert [p.name for p in sorted((depths / "masks").rglob("*.*"))] == ["00000002.npy", "00000002.png"]
