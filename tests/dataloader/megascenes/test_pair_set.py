"""Pairs read from disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from common.errors import UserError
from dataloader.images import read_image, resize_with_padding, write_image
from dataloader.megascenes import pair_set
from dataloader.megascenes.pair_set import MegaScenesPairs, split_rows
from dataloader.megascenes.pair_table import collect_pairs
from dataloader.megascenes.places import PhotoFolder, photo_id, warp_name
from dataloader.pairs import PairSet


@pytest.fixture
def folder(tmp_path: Path, store_photos: Callable, entry: Callable) -> Path:
    """Two photos and the plain RGB warp of the first to the second, the left half of which is covered."""
    store_photos(tmp_path / "photos")
    warp = np.zeros((48, 64, 3), np.uint8)
    warp[:, :32] = (200, 100, 0)
    write_image(warp, tmp_path / "warps" / warp_name(*map(photo_id, entry()[:2])))
    return tmp_path


def open_set(folder: Path, raw: list, **options: object) -> MegaScenesPairs:
    return MegaScenesPairs(
        collect_pairs(raw, "split"), PhotoFolder(folder / "photos"), folder / "warps", **options
    )  # type: ignore[arg-type]


def test_a_pair_is_complete(folder: Path, entry: Callable) -> None:
    pairs = open_set(folder, [entry()])
    assert isinstance(pairs, PairSet)
    pair = pairs.pair(0)
    assert pair.name == pairs.name(0) == "0000000_Some_Castle"
    assert (pair.scene, pair.scale) == ("Some_Castle", 2.5)
    assert pair.source.shape == pair.target.shape == (3, 256, 256)
    assert (pair.source_canvas.height, pair.source_canvas.width, pair.source_canvas.top) == (192, 256, 32)
    assert (pair.source[:, :32] == 1).all()  # white above the photo
    assert pair.source_camera.width == 64
    assert pair.target_camera.center[0].item() == pytest.approx(-0.1)
    assert pair.warp is not None
    assert pair.small_warp is not None
    assert pair.coverage is not None
    assert pair.small_warp.shape == (3, 32, 32)
    assert (pair.warp[:, :32] == 1).all()
    assert (pair.warp[:, 40:-40, 140:] == 0).all()  # black where nothing was warped to
    assert (pair.coverage[:, 40:-40, :100] == 1).all()
    assert (pair.coverage[:, :32] == 0).all()
    assert (pair.coverage[:, 40:-40, 140:] == 0).all()


def test_alpha_is_the_coverage(folder: Path, entry: Callable) -> None:
    file = next((folder / "warps").iterdir())
    pixels = np.full((48, 64, 4), 128, np.uint8)
    pixels[..., :3] = 0  # black, yet half covered
    Image.fromarray(pixels).save(file)
    coverage = open_set(folder, [entry()]).pair(0).coverage
    assert coverage is not None
    torch.testing.assert_close(coverage[:, 32:-32], torch.full((1, 192, 256), 128 / 255))


def test_padded_photos_are_used_as_they_are(folder: Path, entry: Callable) -> None:
    rng = np.random.default_rng(0)
    padded = rng.integers(0, 256, (256, 256, 3), np.uint8)
    place = folder / "photos/Some_Castle/commons/Inside Some_Castle/View_0.jpg"
    Image.fromarray(padded).save(place)
    pair = open_set(folder, [entry()]).pair(0)
    np.testing.assert_array_equal((pair.source * 255).round().permute(1, 2, 0).numpy(), read_image(place))
    assert pair.source_canvas.height == 192  # from the camera


def test_padded_photos_serve_other_sizes_too(folder: Path, entry: Callable) -> None:
    place = folder / "photos/Some_Castle/commons/Inside Some_Castle/View_0.jpg"
    before = open_set(folder, [entry()], size=64).pair(0).source
    padded = resize_with_padding(Image.open(place), 256)[0]
    padded.save(place, quality=95)
    after = open_set(folder, [entry()], size=64).pair(0).source
    assert (after[:, :8] == 1).all()
    assert (after - before).abs().mean() < 0.03


def test_photos_are_not_turned(folder: Path, entry: Callable) -> None:
    place = folder / "photos/Some_Castle/commons/Inside Some_Castle/View_0.jpg"
    photo = Image.open(place)
    exif = photo.getexif()
    exif[0x0112] = 6  # a quarter turn, which the camera does not know of
    before = open_set(folder, [entry()]).pair(0).source
    photo.save(place, exif=exif, quality=95)
    assert (open_set(folder, [entry()]).pair(0).source - before).abs().mean() < 0.02


def test_without_warps(folder: Path, entry: Callable) -> None:
    pairs = MegaScenesPairs(collect_pairs([entry()], "split"), PhotoFolder(folder / "photos"))
    pair = pairs.pair(0)
    assert pair.warp is pair.small_warp is pair.coverage is None


@pytest.mark.parametrize("damage", ["remove", "cut", "reshape"])
def test_bad_photos_are_named(folder: Path, entry: Callable, damage: str) -> None:
    place = folder / "photos/Some_Castle/commons/Inside Some_Castle/View_1.jpg"
    if damage == "remove":
        place.unlink()
    elif damage == "cut":
        place.write_bytes(place.read_bytes()[:200])
    else:
        write_image(np.zeros((64, 48, 3), np.uint8), place)
    with pytest.raises(UserError, match=r"View_1\.jpg"):
        open_set(folder, [entry()]).pair(0)


def test_bad_warps_are_named(folder: Path, entry: Callable) -> None:
    file = next((folder / "warps").iterdir())
    file.write_bytes(file.read_bytes()[:60])
    with pytest.raises(UserError, match=rf"{file.name} is not a readable warp"):
        open_set(folder, [entry()]).pair(0)
    with pytest.raises(UserError, match=r"\.png does not exist"):
        open_set(folder, [entry(1, 0)]).pair(0)
    with pytest.raises(UserError, match="no folder"):
        MegaScenesPairs(collect_pairs([entry()], "s"), PhotoFolder(folder / "photos"), folder / "nowhere")


def test_pairs_without_scale_are_refused_when_read(folder: Path, entry: Callable) -> None:
    with pytest.raises(UserError, match="split: pair 0 has no scale"):
        open_set(folder, [entry()[:4]]).pair(0)


def test_the_first_test_pairs_are_for_validation(
    folder: Path, entry: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pair_set, "VALIDATION_PAIRS", 3)
    raw = [entry(i, i + 1) for i in range(5)]
    names = {split: open_set(folder, raw, split=split) for split in ("train", "validation", "test", "all")}
    assert [len(names[split]) for split in ("train", "validation", "test", "all")] == [5, 3, 2, 5]
    assert names["test"].name(0) == "0000003_Some_Castle"
    with pytest.raises(IndexError):
        names["test"].pair(2)
    with pytest.raises(UserError, match="nothing is left for the split 'test'"):
        split_rows(collect_pairs(raw[:3], "split"), "test")
