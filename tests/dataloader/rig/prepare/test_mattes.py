"""Mattes against exact ones, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.errors import UserError
from dataloader.images import read_image, write_image
from dataloader.rig.prepare.frames import open_rig, read_frame
from dataloader.rig.prepare.mattes import Keyer, MatteOptions, measured_noise, write_mattes
from tests.dataloader.rig.prepare.makers import write_frames


def matte(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_mattes_of_the_miniature_rig(parity_data: Path) -> None:
    root = parity_data / "mvcam_mini"
    rig = open_rig(root)
    both = either = 0
    errors = []
    for name, files in rig.cameras.items():
        plate = read_image(root / f"background/{name}.png")
        keyer = Keyer(plate, measured_noise(files, plate, rig.size), MatteOptions())
        for path in files:
            found = keyer(read_frame(path, rig.size))[..., 3] / 255
            exact = matte(root / f"foreground/{name}/{path.stem}.png")[..., 3] / 255
            both += ((found > 0.5) & (exact > 0.5)).sum()
            either += ((found > 0.5) | (exact > 0.5)).sum()
            errors.append(np.abs(found - exact).mean())
    assert both / either > 0.95  # measured: 0.964
    assert np.mean(errors) < 0.006


def disc(noise: float, color: tuple[int, int, int] = (200, 60, 40)) -> tuple[np.ndarray, ...]:
    """A noisy frame [90, 120, 3] with an antialiased disc, its plate, and the exact alpha [90, 120]."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:90, :120] + 0.5
    plate = 110 + 40 * np.sin(x / 9)[..., None] * np.array([1, 0.5, 0.2]) + 20 * np.cos(y / 7)[..., None]
    alpha = (25.5 - np.hypot(x - 60, y - 45)).clip(0, 1)
    frame = alpha[..., None] * color + (1 - alpha[..., None]) * plate + rng.normal(0, noise, (90, 120, 3))
    return (*(np.rint(image).clip(0, 255).astype(np.uint8) for image in (frame, plate)), alpha)


@pytest.mark.parametrize("noise", [0.0, 2.0, 5.0])
def test_a_disc_is_cut_out_with_its_soft_edge(noise: float) -> None:
    frame, plate, alpha = disc(noise)
    found = Keyer(plate, noise, MatteOptions())(frame)
    share = found[..., 3] / 255
    assert (np.abs(share - alpha) > 0.5).mean() < 1e-3
    rim = (alpha > 0.05) & (alpha < 0.95)
    assert np.abs(share - alpha)[rim].mean() < 0.12
    assert (found[found[..., 3] == 0] == 0).all()
    # the rim's colour is the disc's, not the mixture
    assert np.abs(found[rim & (share > 0)][:, :3].astype(int) - (200, 60, 40)).mean() < 3 + 3 * noise


def test_noise_alone_is_no_foreground() -> None:
    _, plate, _ = disc(0)
    noisy = plate + np.random.default_rng(1).normal(0, 4, plate.shape)
    found = Keyer(plate, 4.0, MatteOptions())(noisy.clip(0, 255).astype(np.uint8))
    assert (found == 0).all()


def test_noise_is_measured_beside_what_moves(tmp_path: Path) -> None:
    plate = np.full((40, 60, 3), 120, np.uint8)
    rng = np.random.default_rng(0)
    for moment in range(5):
        frame = plate + rng.normal(0, 3, plate.shape)
        frame[:4] = 250
        write_image(np.rint(frame).clip(0, 255).astype(np.uint8), tmp_path / f"{moment}.png")
    assert measured_noise(sorted(tmp_path.iterdir()), plate, (40, 60)) == pytest.approx(3, rel=0.25)


def rig_with_plates(tmp_path: Path) -> Path:
    write_frames(tmp_path, count=2, moments=3)
    for name in ("cam00", "cam01"):
        write_image(read_image(tmp_path / name / "00000.png"), tmp_path / f"background/{name}.png")
    return tmp_path


def test_all_mattes_are_written_and_kept(tmp_path: Path) -> None:
    root = rig_with_plates(tmp_path)
    rig, out = open_rig(root), root / "foreground"
    assert write_mattes(rig, root / "background", out, MatteOptions()) == 6
    assert matte(out / "cam01/00002.png").shape == (12, 16, 4)
    assert (matte(out / "cam01/00000.png") == 0).all()  # the plate itself
    (out / "cam01").rename(out / ".cam01.partial")
    (out / ".cam01.partial/00001.png").unlink()
    assert write_mattes(rig, root / "background", out, MatteOptions()) == 1
    with pytest.raises(UserError, match=r"other options \(low\)"):
        write_mattes(rig, root / "background", out, MatteOptions(low=2.0))
    write_image(np.zeros((12, 16, 3), np.uint8), root / "background/cam00.png")
    with pytest.raises(UserError, match=r"other options \(plates\)"):
        write_mattes(rig, root / "background", out, MatteOptions())


def test_plates_that_do_not_fit(tmp_path: Path) -> None:
    root = rig_with_plates(tmp_path)
    rig = open_rig(root)
    with pytest.raises(UserError, match=r"plates has no background plate cam00\.png: .*rig\.py background"):
        write_mattes(rig, root / "plates", root / "out", MatteOptions())
    write_image(np.zeros((9, 16, 3), np.uint8), root / "background/cam01.png")
    with pytest.raises(UserError, match=r"cam01\.png is 16x9, cam01's frames are 16x12"):
        write_mattes(rig, root / "background", root / "out", MatteOptions())
    assert not (root / "out").exists()
    with pytest.raises(UserError, match="0 < low <= high"):
        MatteOptions(low=9, high=3)
