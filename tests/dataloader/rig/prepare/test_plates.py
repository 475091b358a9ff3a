"""Plates: medians as the original makes them, and the colour that most samples agree on."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from common.errors import UserError
from dataloader.images import read_image, write_image
from dataloader.rig.prepare.frames import open_rig
from dataloader.rig.prepare.plates import PlateOptions, make_plate, median, mode, noise, write_plates
from tests.dataloader.rig.prepare.makers import write_frames


def test_the_originals_plates(parity_dir: Path, tmp_path: Path) -> None:
    case = load_file(parity_dir / "mask_volume/background_median.safetensors")
    frames = case["input.frames"]
    for camera, stack in enumerate(frames):
        for moment, frame in enumerate(stack):
            write_image(frame, tmp_path / f"cam{camera:02d}/{moment:05d}.png")
    options = PlateOptions(every=3, statistic="median")
    assert write_plates(open_rig(tmp_path), tmp_path / "background", options) == 2
    made = [read_image(tmp_path / f"background/cam{i:02d}.png") for i in range(2)]
    np.testing.assert_array_equal(made, case["output.background"])


def test_medians_of_even_counts_average_the_middle_two() -> None:
    samples = np.array([9, 3, 200, 4], np.uint8)[:, None, None, None].repeat(3, axis=-1)
    assert median(samples.copy()).ravel().tolist() == [6, 6, 6]
    assert median(samples[:3].copy()).ravel().tolist() == [9, 9, 9]


def crowd(rng: np.random.Generator, count: int, covered: int) -> tuple[np.ndarray, np.ndarray]:
    """Noisy samples [T, 40, 48, 3] of a background, whose left third other colours cover `covered` times."""
    truth = rng.integers(30, 220, (40, 48, 3))
    samples = np.rint(truth + rng.normal(0, 2, (count, 40, 48, 3)))
    moments = rng.random((count, 40, 16)).argsort(axis=0) < covered
    samples[:, :, :16][moments] = rng.integers(0, 256, (moments.sum(), 3))
    return samples.clip(0, 255).astype(np.uint8), truth


def test_the_mode_finds_what_is_seen_less_than_half_of_the_time() -> None:
    samples, truth = crowd(np.random.default_rng(0), count=20, covered=13)
    wrong = {}
    for function in (mode, median):
        error = np.abs(function(samples.copy()).astype(int) - truth).max(-1)
        wrong[function.__name__] = (error > 8)[:, :16].mean()
    assert wrong["mode"] < 0.03
    assert wrong["median"] > 0.5


def test_the_mode_is_as_steady_as_the_median_where_little_moves() -> None:
    samples, truth = crowd(np.random.default_rng(1), count=20, covered=2)
    errors = [float(np.abs(f(samples.copy()) - truth).mean()) for f in (mode, median)]
    assert errors[0] < 1.05 * errors[1] < 1
    assert noise(samples) == pytest.approx(2, rel=0.3)


def test_one_frame_is_its_own_plate(tmp_path: Path) -> None:
    rig = open_rig(write_frames(tmp_path, moments=1))
    for statistic in ("mode", "median"):
        plate = make_plate(rig.cameras["cam00"], rig.size, PlateOptions(statistic=statistic))
        np.testing.assert_array_equal(plate, read_image(rig.cameras["cam00"][0]))


@pytest.mark.parametrize("statistic", ["mode", "median"])
def test_bands_change_nothing_but_the_memory(
    tmp_path: Path, statistic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = open_rig(write_frames(tmp_path, count=2, moments=7, size=(23, 40)))
    whole = make_plate(rig.cameras["cam01"], rig.size, PlateOptions(statistic=statistic))
    monkeypatch.setattr("dataloader.rig.prepare.plates._MEGABYTE", 7 * 40 * 3 * 4)  # four rows
    monkeypatch.setattr("dataloader.rig.prepare.plates.noise", lambda samples: 5.0)
    banded = make_plate(rig.cameras["cam01"], rig.size, PlateOptions(statistic=statistic, memory=1))
    monkeypatch.setattr("dataloader.rig.prepare.plates._MEGABYTE", 10**6)
    again = make_plate(rig.cameras["cam01"], rig.size, PlateOptions(statistic=statistic))
    np.testing.assert_array_equal(banded, again)
    if statistic == "median":
        np.testing.assert_array_equal(banded, whole)
    monkeypatch.setattr("dataloader.rig.prepare.plates._MEGABYTE", 100)
    with pytest.raises(UserError, match="1 MB do not hold a row of 7 frames"):
        make_plate(rig.cameras["cam01"], rig.size, PlateOptions(memory=1))


@pytest.mark.parametrize(("count", "used"), [(1, 1), (6, 6), (49, 49), (60, 60), (100, 50), (3600, 50)])
def test_enough_frames_take_part(count: int, used: int) -> None:
    assert len(PlateOptions().chosen(count)) == used
    assert all(50 <= len(PlateOptions().chosen(n)) < 100 for n in range(50, 700))
    assert list(PlateOptions(every=25).chosen(60)) == [0, 25, 50]  # the original


def test_plates_are_kept_or_refused(tmp_path: Path) -> None:
    rig = open_rig(write_frames(tmp_path))
    out = tmp_path / "background"
    assert write_plates(rig, out, PlateOptions()) == 3
    (out / "cam01.png").unlink()
    assert write_plates(rig, out, PlateOptions()) == 1
    with pytest.raises(UserError, match=r"background was made with other options \(statistic\)"):
        write_plates(rig, out, PlateOptions(statistic="median"))
    write_image(np.zeros((12, 16, 3), np.uint8), tmp_path / "cam00/00000.png")
    with pytest.raises(UserError, match=r"other options \(frames\)"):
        write_plates(open_rig(tmp_path), out, PlateOptions())


def test_a_frame_of_another_size_is_named(tmp_path: Path) -> None:
    write_frames(tmp_path)
    write_image(np.zeros((9, 16, 3), np.uint8), tmp_path / "cam01/00002.png")
    with pytest.raises(UserError, match=r"cam01/00002\.png is 16x9"):
        write_plates(open_rig(tmp_path), tmp_path / "background", PlateOptions())
