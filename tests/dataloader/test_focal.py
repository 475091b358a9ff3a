"""Focal lengths from EXIF: both sources, resized and turned photos, and photos that do not tell."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from common.errors import UserError
from dataloader.focal import focal_length
from dataloader.images import read_image

FOCAL, EQUIVALENT, X_RESOLUTION, UNIT, WIDTH, HEIGHT = 0x920A, 0xA405, 0xA20E, 0xA210, 0xA002, 0xA003
EXAMPLES = Path(__file__).resolve().parents[3] / "shared" / "data" / "megascenes" / "examples"


def _photo(
    folder: Path, tags: dict[int, Any], size: tuple[int, int] = (360, 240), orientation: int = 1
) -> Path:
    """A JPEG of (width, height) with EXIF tags."""
    image = Image.new("RGB", size)
    exif = image.getexif()
    exif[0x0112] = orientation
    exif.get_ifd(0x8769).update(tags)
    image.save(folder / "photo.jpg", exif=exif)
    return folder / "photo.jpg"


def test_full_frame_equivalent(tmp_path: Path) -> None:
    assert focal_length(_photo(tmp_path, {EQUIVALENT: 36})) == pytest.approx(360, rel=1e-6)


def test_equivalent_refers_to_the_diagonal(tmp_path: Path) -> None:
    path = _photo(tmp_path, {EQUIVALENT: 28, FOCAL: 4.2}, size=(400, 300))
    assert focal_length(path) == pytest.approx(28 * 500 / 43.2666, rel=1e-4)


@pytest.mark.parametrize(("unit", "per_unit"), [(2, 25.4), (3, 10.0), (4, 1.0), (None, 25.4)])
def test_sensor_resolution_in_every_unit(tmp_path: Path, unit: int | None, per_unit: float) -> None:
    tags = {FOCAL: 35.0, X_RESOLUTION: 160 * per_unit, WIDTH: 5760, HEIGHT: 3840}
    path = _photo(tmp_path, tags if unit is None else {**tags, UNIT: unit})
    assert focal_length(path) == pytest.approx(35 / 36 * 360, rel=1e-4)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_turned_photos(tmp_path: Path, orientation: int) -> None:
    path = _photo(tmp_path, {EQUIVALENT: 36}, orientation=orientation)
    assert read_image(path).shape[:2] == ((360, 240) if orientation in (6, 8) else (240, 360))
    assert focal_length(path) == pytest.approx(360, rel=1e-6)


@pytest.mark.parametrize(
    "tags",
    [
        {},
        {FOCAL: 28.0},
        {EQUIVALENT: 0, FOCAL: 28.0},
        {FOCAL: 28.0, X_RESOLUTION: 1600.0, UNIT: 3},  # the number of pixels taken is lost
        {FOCAL: 28.0, X_RESOLUTION: 1600.0, UNIT: 3, WIDTH: 360, HEIGHT: 240},  # reduced: a sensor of 2 mm
        {FOCAL: 12.0, X_RESOLUTION: 204.84, UNIT: 4, WIDTH: 1600, HEIGHT: 1068},  # 7.8 mm wide at 4.9 um
        {FOCAL: 28.0, X_RESOLUTION: 160.0, UNIT: 1, WIDTH: 5760, HEIGHT: 3840},  # no unit
    ],
)
def test_unknown_is_none(tmp_path: Path, tags: dict[int, Any]) -> None:
    assert focal_length(_photo(tmp_path, tags)) is None


def test_a_compact_camera_without_equivalent(tmp_path: Path) -> None:
    tags = {FOCAL: 5.8, X_RESOLUTION: 4000 / 6.17, UNIT: 4, WIDTH: 4000, HEIGHT: 3000}  # 1/2.3", 1.5 um
    path = _photo(tmp_path, tags, size=(400, 300))
    assert focal_length(path) == pytest.approx(5.8 / 6.17 * 400, rel=1e-3)


def test_no_image_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_text("no image")
    with pytest.raises(UserError, match="not a readable image"):
        focal_length(tmp_path / "photo.jpg")
    with pytest.raises(UserError, match="does not exist"):
        focal_length(tmp_path / "none.jpg")


@pytest.mark.skipif(not EXAMPLES.is_dir(), reason="needs the MegaScenes example photos")
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("hatfield_house", 1727.4),  # 35 mm, 3810.6 px per inch, 5472 x 3556 taken, 1800 x 1170 kept
        ("caernarfon_castle", 533.5),  # 12 mm equivalent, 1600 x 1068
        ("audley_end_house", None),  # 28 mm and 1600 px per cm, but not how many pixels were taken
        ("blenheim_palace", None),  # 70 mm, likewise
    ],
)
def test_the_megascenes_examples(name: str, expected: float | None) -> None:
    assert focal_length(EXAMPLES / f"{name}.jpg") == (expected and pytest.approx(expected, abs=0.1))
