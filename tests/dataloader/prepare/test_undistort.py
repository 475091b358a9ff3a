"""Photos resampled to square pixels with the principal point in the middle."""

from pathlib import Path

import numpy as np
import pytest
import torch

from dataloader.formats import llff
from dataloader.images import read_image, write_image
from dataloader.lenses import Lens, undistorted_camera
from dataloader.prepare.undistort import square_scene

RADIAL, TANGENTIAL = (-0.12, 0.03, 0.0), (0.002, -0.001)


def blobs(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A dark photo with a bright spot of 1.5 px at each position [P, 2]."""
    y, x = np.mgrid[: size[0], : size[1]] + 0.5
    spots = [np.exp(-((x - u) ** 2 + (y - v) ** 2) / (2 * 1.5**2)) for u, v in pixels]
    return (np.clip(np.sum(spots, axis=0), 0, 1)[..., None] * 255).round().astype(np.uint8).repeat(3, -1)


def centroid(image: np.ndarray, pixel: np.ndarray) -> np.ndarray:
    """The centre of brightness within 6 px of a pixel."""
    y, x = np.mgrid[: image.shape[0], : image.shape[1]] + 0.5
    weight = image[..., 0] * ((x - pixel[0]) ** 2 + (y - pixel[1]) ** 2 < 36)
    return np.array([(x * weight).sum(), (y * weight).sum()]) / weight.sum()


@pytest.fixture
def distorted(posed_scene, tmp_path: Path):
    """A scene of distorted photos that show three of its points as spots, fx != fy, off-centre."""
    scene = posed_scene(3, size=(120, 160), off_center=3.0, points=60)
    for record in scene.records:
        lens = Lens(record.camera.K.numpy().copy(), RADIAL, TANGENTIAL)
        pixels = scene.points.tracks[record.name][1]
        ideal = (pixels - lens.K[:2, 2]) @ np.linalg.inv(lens.K[:2, :2]).T
        record.image = tmp_path / "distorted" / f"{record.name}.png"
        write_image(blobs(lens.distort(ideal[:1]), (120, 160)), record.image)
        record.camera, record.lens = undistorted_camera(record.camera, lens, record.name), lens
        K = record.camera.K.numpy()
        rows = scene.points.tracks[record.name][0]
        scene.points.tracks[record.name] = (rows, ideal @ K[:2, :2].T + K[:2, 2])
    return scene


def test_photos_tracks_and_cameras_stay_together(distorted, tmp_path: Path) -> None:
    files = [tmp_path / "square" / f"{name}.png" for name in distorted.names]
    square = square_scene(distorted, files)
    xyz, seen = torch.from_numpy(square.points.xyz), 0
    for before, record in zip(distorted.records, square.records, strict=True):
        K = record.camera.K
        assert K[0, 0] == K[1, 1]
        assert K[:2, 2].tolist() == [80, 60]
        assert record.lens is None
        assert torch.equal(record.camera.c2w, before.camera.c2w)
        rows, pixels = square.points.tracks[record.name]
        assert np.allclose(record.camera.project(xyz[rows])[0], pixels, atol=1e-6)
        assert (pixels >= 0).all()
        first = distorted.points.tracks[record.name][0][0]
        spot = record.camera.project(xyz[first][None])[0][0].numpy()
        if (spot > 8).all() and (spot < [152, 112]).all():
            assert np.abs(centroid(read_image(record.image), spot) - spot).max() < 0.1
            seen += 1
    assert seen
    assert len({record.camera.K.numpy().tobytes() for record in square.records}) == 1


def test_every_format_can_hold_the_result(distorted, tmp_path: Path) -> None:
    square = square_scene(distorted, [tmp_path / "square" / f"{name}.jpg" for name in distorted.names])
    llff.write(square, tmp_path / "llff")  # refuses fx != fy and principal points off the middle
    again = llff.read(tmp_path / "llff")
    assert torch.allclose(again.cameras().K, square.cameras().K)
