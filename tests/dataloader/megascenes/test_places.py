"""Where photos lie and what warps are called."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from common.errors import UserError
from dataloader.megascenes.places import DepthFolder, PhotoFolder, photo_id, warp_name

PATH = "/x/main/images/Some_Castle/commons/Inside Some_Castle/0/pictures/View one.jpeg"


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def categories(root: Path, value: dict) -> None:
    (root / "metadata").mkdir(parents=True, exist_ok=True)
    (root / "metadata" / "categories.json").write_text(json.dumps(value))


def test_paths_are_taken_apart() -> None:
    photo = photo_id(PATH)
    assert (photo.category, photo.subcategory, photo.file) == (
        "Some_Castle",
        "Inside Some_Castle",
        "View one.jpeg",
    )
    nested = photo_id("main/images/A/commons/B/C/0/pictures/d.jpg")
    assert (nested.category, nested.subcategory) == ("A", "B/C")


@pytest.mark.parametrize(
    "path",
    [
        "main/images/A/0/pictures/a.jpg",
        "main/images/A/commons/../0/pictures/a.jpg",
        "main/images/A/commons/B/0/pictures/",
        "main/images/A/commons/B/0/pictures/../../a.jpg",
        "/etc/passwd",
    ],
)
def test_paths_that_lead_elsewhere_are_refused(path: str) -> None:
    with pytest.raises(UserError, match="no path CATEGORY"):
        photo_id(path)


def test_warps_have_the_originals_names() -> None:
    given = photo_id("/p/main/images/Some_Castle/commons/Some_Castle/0/pictures/View one.jpg")
    made = photo_id("/p/main/images/Some_Castle/commons/Interior of Some_Castle/0/pictures/IMG 0002.jpeg")
    assert warp_name(given, made) == "3db86d40f48b65fa1ef5378f281334e560151ac9.png"


def test_the_originals_layout(tmp_path: Path) -> None:
    file = touch(tmp_path / "Some_Castle/commons/Inside Some_Castle/View_one.jpeg")
    photos = PhotoFolder(tmp_path)
    assert photos.layout == "original"
    assert photos.find(photo_id(PATH)) == file


@pytest.mark.parametrize("names", [{"Some_Castle": 1234}, {"Some Castle": "001234"}, {"1234": "Some_Castle"}])
@pytest.mark.parametrize("inside", ["Inside_Some_Castle", "Inside Some_Castle"])
def test_the_buckets_layout(tmp_path: Path, names: dict, inside: str) -> None:
    categories(tmp_path, names)
    file = touch(tmp_path / "images/001/234/commons" / inside / "0/pictures/View_one.jpeg")
    photos = PhotoFolder(tmp_path)
    assert photos.layout == "bucket"
    assert photos.find(photo_id(PATH)) == file


def test_a_layout_may_be_chosen(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    assert PhotoFolder(tmp_path, "original").layout == "original"
    with pytest.raises(UserError, match=r"categories\.json cannot be read"):
        PhotoFolder(tmp_path)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"View_one\.jpeg does not exist"):
        PhotoFolder(tmp_path).find(photo_id(PATH))
    with pytest.raises(UserError, match="no folder"):
        PhotoFolder(tmp_path / "missing")
    categories(tmp_path, {"Another": 1})
    with pytest.raises(UserError, match="lacks the category 'Some_Castle'"):
        PhotoFolder(tmp_path).find(photo_id(PATH))
    (tmp_path / "metadata/categories.json").write_text("[1]")
    with pytest.raises(UserError, match="no list of categories"):
        PhotoFolder(tmp_path)


def test_depth_maps_mirror_the_photos(tmp_path: Path) -> None:
    file = touch(tmp_path / "photos/Some_Castle/commons/Inside Some_Castle/View_one.jpeg")
    depths = DepthFolder(tmp_path / "depths", PhotoFolder(tmp_path / "photos"))
    with pytest.raises(UserError, match=r"View_one\.npy does not exist"):
        depths.find(file)
    depth = touch(tmp_path / "depths/Some_Castle/commons/Inside Some_Castle/View_one.npy")
    assert depths.find(file) == depth
