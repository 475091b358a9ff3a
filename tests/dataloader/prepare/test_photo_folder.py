"""Photos as they come from a camera."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.errors import UserError
from dataloader.images import read_image
from dataloader.prepare.photo_folder import copy_photos, open_photos, source_number

FOCAL_35MM, ORIENTATION, EXIF_IFD = 0xA405, 0x0112, 0x8769


def photo(
    path: Path, seed: int = 0, size: tuple[int, int] = (40, 60), orientation: int = 1, mode: str = "RGB"
) -> None:
    """A smooth photo of (height, width) with a focal length in its EXIF block."""
    noise = np.random.default_rng(seed).integers(0, 255, (5, 5, 3), dtype=np.uint8)
    image = Image.fromarray(noise).resize(size[::-1], Image.Resampling.BICUBIC).convert(mode)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    exif.get_ifd(EXIF_IFD)[FOCAL_35MM] = 28
    image.save(path, exif=exif)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    photos = tmp_path / "photos"
    photos.mkdir()
    photo(photos / "a.jpg", 0)
    photo(photos / "b (2).jpg", 1, orientation=6)
    photo(photos / "c.png", 2, mode="L")
    photo(photos / "d.JPG", 3, size=(80, 30))
    return photos


def test_copies_are_upright_small_and_named_in_order(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    sizes = copy_photos(open_photos(folder), out, max_size=60)
    assert list(sizes) == ["00000_a.jpg", "00001_b__2_.jpg", "00002_c.jpg", "00003_d.jpg"]
    assert list(sizes.values()) == [(40, 60), (60, 40), (40, 60), (60, 22)]
    assert [source_number(name) for name in sizes] == [0, 1, 2, 3]
    assert (out / "00000_a.jpg").read_bytes() == (folder / "a.jpg").read_bytes()
    for name, original in zip(sizes, sorted(folder.iterdir()), strict=True):
        copy = read_image(out / name)
        assert copy.shape == (*sizes[name], 3)
        upright = read_image(original)
        if upright.shape == copy.shape:
            assert np.abs(copy.astype(int) - upright).mean() < 2
        with Image.open(out / name) as image:
            assert image.mode == "RGB"
            assert image.getexif().get(ORIENTATION, 1) == 1
            assert image.getexif().get_ifd(EXIF_IFD)[FOCAL_35MM] == 28


def test_a_photo_cut_off_is_named(folder: Path, tmp_path: Path) -> None:
    whole = (folder / "a.jpg").read_bytes()
    (folder / "a.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"a\.jpg is not a readable image"):
        copy_photos(open_photos(folder), tmp_path / "out", max_size=0)


def test_too_few_and_equal_names_are_refused(folder: Path) -> None:
    photo(folder / "a.png")
    with pytest.raises(UserError, match=r"a\.jpg and a\.png have the same name"):
        open_photos(folder)
    for path in sorted(folder.iterdir())[2:]:
        path.unlink()
    with pytest.raises(UserError, match="holds 2 photos: at least 3"):
        open_photos(folder)
    with pytest.raises(UserError, match="not a folder"):
        open_photos(folder / "none")
