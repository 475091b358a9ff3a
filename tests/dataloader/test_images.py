"""Image and depth files, and image transforms."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from common.errors import UserError
from dataloader import images
from geometry.cameras import pinhole

RNG = np.random.default_rng(0)
PHOTO = RNG.integers(0, 256, (6, 8, 3), np.uint8)


def test_png_comes_back_exactly(tmp_path: Path) -> None:
    images.write_image(PHOTO, tmp_path / "new" / "a.png")
    np.testing.assert_array_equal(images.read_image(tmp_path / "new" / "a.png"), PHOTO)
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["a.png"]  # no temporary file stays


def test_tensors_round_to_the_nearest_grey(tmp_path: Path) -> None:
    image = torch.tensor([-1.0, 0.4 / 255, 0.6 / 255, 2.0]).expand(3, 1, 4)
    images.write_image(image, tmp_path / "a.png")
    assert images.read_image(tmp_path / "a.png")[0, :, 0].tolist() == [0, 0, 1, 255]
    back = images.to_tensor(images.to_uint8(images.to_tensor(PHOTO)))
    torch.testing.assert_close(back, images.to_tensor(PHOTO))


def test_unknown_suffix_and_unwritable_place(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.xyz: images end in"):
        images.write_image(PHOTO, tmp_path / "a.xyz")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        images.write_image(PHOTO, tmp_path / "file" / "a.png")


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1"])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    Image.fromarray(PHOTO).convert(mode).save(tmp_path / "a.png")
    read = images.read_image(tmp_path / "a.png")
    assert read.shape == PHOTO.shape
    assert read.dtype == np.uint8


def test_16_bit_grey_keeps_its_high_byte(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 255, 256, 40000, 65535]], np.uint16)).save(tmp_path / "a.png")
    assert images.read_image(tmp_path / "a.png")[0, :, 1].tolist() == [0, 0, 1, 156, 255]


def test_a_photo_may_be_read_as_it_is_stored(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(PHOTO).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(images.read_image(tmp_path / "a.png", turn=False), PHOTO)
    assert images.read_image(tmp_path / "a.png").shape == (8, 6, 3)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_size_from_the_header_is_the_size_read(tmp_path: Path, orientation: int, suffix: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(PHOTO).save(tmp_path / f"a{suffix}", exif=exif)
    assert images.image_size(tmp_path / f"a{suffix}") == images.read_image(tmp_path / f"a{suffix}").shape[:2]


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_size_is_read_without_decoding(tmp_path: Path, suffix: str) -> None:
    """A file cut off right after its header still tells its size."""
    path = tmp_path / f"a{suffix}"
    big = RNG.integers(0, 256, (200, 300, 3), np.uint8)
    Image.fromarray(big).save(path, **({"pnginfo": PngInfo()} if suffix == ".png" else {}))
    path.write_bytes(path.read_bytes()[:2000])
    assert images.image_size(path) == (200, 300)
    with pytest.raises(UserError, match=r"a\.(jpg|png) is not a readable image"):
        images.read_image(path)


@pytest.mark.parametrize("content", [b"", b"not an image", b"\xff\xd8\xff"])
def test_what_is_no_image_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    for read in (images.read_image, images.image_size):
        with pytest.raises(UserError, match=r"a\.jpg is not a readable image"):
            read(tmp_path / "a.jpg")
        with pytest.raises(UserError, match=r"b\.jpg does not exist"):
            read(tmp_path / "b.jpg")


def test_listing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a folder"):
        images.list_images(tmp_path / "none")
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(UserError, match="holds no image"):
        images.list_images(tmp_path)
    for name in ("b.JPG", "a.png", "c.jpeg"):
        (tmp_path / name).touch()
    assert [path.name for path in images.list_images(tmp_path)] == ["a.png", "b.JPG", "c.jpeg"]


def test_depth_files(tmp_path: Path) -> None:
    depth = np.array([[1.5, np.nan, 0.0], [np.inf, -2.0, 3.25]])
    expected = np.array([[1.5, 0, 0], [0, 0, 3.25]], np.float32)
    np.save(tmp_path / "a.npy", depth)
    np.save(tmp_path / "b.npy", depth[..., None])
    np.savez(tmp_path / "a.npz", depth)
    for name in ("a.npy", "b.npy", "a.npz"):
        np.testing.assert_array_equal(images.read_depth(tmp_path / name), expected)
    Image.fromarray(np.array([[1500, 0], [3250, 65535]], np.uint16)).save(tmp_path / "a.png")
    np.testing.assert_allclose(images.read_depth(tmp_path / "a.png"), [[1.5, 0], [3.25, 65.535]], rtol=1e-6)


def test_depth_from_pfm(tmp_path: Path) -> None:
    import cv2

    depth = RNG.uniform(1, 5, (4, 6)).astype(np.float32)
    cv2.imwrite(str(tmp_path / "a.pfm"), depth)
    np.testing.assert_array_equal(images.read_depth(tmp_path / "a.pfm"), depth)


def test_a_depth_file_that_is_cut_off_says_one_thing_only(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    import cv2

    cv2.imwrite(str(tmp_path / "a.pfm"), np.ones((4, 6), np.float32))
    whole = (tmp_path / "a.pfm").read_bytes()
    (tmp_path / "a.pfm").write_bytes(whole[:-5])
    with pytest.raises(UserError, match=r"a\.pfm is not a readable depth map"):
        images.read_depth(tmp_path / "a.pfm")
    assert capfd.readouterr().err == ""


def test_bad_depth_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty.npy").touch()
    (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04 and no more")
    np.savez(tmp_path / "none.npz")
    np.save(tmp_path / "cube.npy", np.zeros((2, 3, 4)))
    np.save(tmp_path / "object.npy", np.array([{}], dtype=object))
    np.save(tmp_path / "words.npy", np.array([["near", "far"], ["far", "near"]]))
    np.save(tmp_path / "fields.npy", np.zeros((2, 3), dtype=[("z", "f4")]))
    np.save(tmp_path / "dates.npy", np.zeros((2, 3), dtype="M8[s]"))
    Image.fromarray(PHOTO[..., 0]).save(tmp_path / "grey.png")
    (tmp_path / "bad.pfm").write_text("Pf")
    (tmp_path / "huge.pfm").write_bytes(b"Pf\n99999999 99999999\n-1.0\n")
    (tmp_path / "a.txt").touch()
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(UserError, match=path.name):
            images.read_depth(path)
    with pytest.raises(UserError, match=r"gone\.npy does not exist"):
        images.read_depth(tmp_path / "gone.npy")


def test_fit_size() -> None:
    assert images.fit_size(768, 432, 0) == (768, 432)
    assert images.fit_size(768, 432, 800) == (768, 432)
    assert images.fit_size(768, 432, 256) == (256, 144)
    assert images.fit_size(1000, 1, 10) == (10, 1)


def test_resize_keeps_flat_colours_and_passes_equal_sizes() -> None:
    assert images.resize_image(PHOTO, (6, 8)) is PHOTO
    flat = np.full((30, 40, 3), 77, np.uint8)
    np.testing.assert_array_equal(images.resize_image(flat, (7, 9)), np.full((7, 9, 3), 77))


def test_center_crop_moves_the_rays_along() -> None:
    """A pixel of the crop looks where it looked before."""
    camera = pinhole(50.0, 40, 60)
    image = torch.arange(40.0 * 60).reshape(1, 40, 60)
    cropped, moved = images.center_crop(image, camera, 20, 31)
    top, left = 10, 14
    assert cropped.shape == (1, 20, 31)
    assert cropped[0, 0, 0] == image[0, top, left]
    _, before = camera.rays()
    _, after = moved.rays()
    torch.testing.assert_close(after, before[top : top + 20, left : left + 31])


def test_padding_centres_the_photo() -> None:
    photo = Image.fromarray(np.full((30, 60, 3), 9, np.uint8))
    padded, unpadded, corner = images.resize_with_padding(photo, 100)
    assert (padded.size, unpadded.size, corner) == ((100, 100), (100, 50), (0, 25))
    array = np.asarray(padded)
    assert (array[:25] == 255).all()
    assert (array[25:75] == 9).all()
    assert (array[75:] == 255).all()


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((49, 49), (32, 32)),
        ((49, 20), (32, 13)),
        ((20, 49), (13, 32)),
        ((49, 48), (32, 31)),
        ((3, 4000), (1, 32)),
    ],
)
def test_the_long_side_is_never_short_of_the_target(size: tuple[int, int], expected: tuple[int, int]) -> None:
    """49 * (32 / 49) is a little below 32 in floating point."""
    _, unpadded, corner = images.resize_with_padding(Image.new("RGB", size), 32)
    assert unpadded.size == expected
    assert corner == ((32 - expected[0]) // 2, (32 - expected[1]) // 2)


def test_a_grid_packs_rows_from_the_left_on_white() -> None:
    cells = [Image.fromarray(np.full((20, width, 3), i, np.uint8)) for i, width in enumerate((20, 40, 10))]
    grid = np.asarray(images.image_grid(cells, fixed_height=10, spacing=3, columns=2))
    assert grid.shape == (23, 33, 3)
    assert (grid[:10, :10] == 0).all()
    assert (grid[:10, 13:] == 1).all()
    assert (grid[13:, :5] == 2).all()
    assert (grid[:10, 10:13] == 255).all()
    assert (grid[10:13] == 255).all()
    assert (grid[13:, 5:] == 255).all()
    with pytest.raises(ValueError, match="at least one"):
        images.image_grid([])
