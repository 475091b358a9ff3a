"""The official mesh along the official camera paths, against the official frames (specs/warp_diffusion)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from dataloader.images import read_image, to_uint8
from geometry.cameras import pinhole
from geometry.mesh_files import read_mesh
from geometry.paths import orbit, spiral
from geometry.rasterize import Rasterizer, render_vertex_colors

FRAMES = {"orbit": (3, 9, 16), "spiral": (2, 9, 15)}
FOCAL = 80.0  # pixels; what the original assumes of every photo


def psnr(image: NDArray[np.uint8], official: NDArray[np.uint8]) -> float:
    """dB over all pixels and channels of 8-bit images."""
    error = np.square(image.astype(np.float64) - official).mean()
    return float(10 * np.log10(255**2 / error))


def overlap(image: NDArray[np.uint8], official: NDArray[np.uint8]) -> float:
    """Intersection over union of the pixels that are not black."""
    ours, theirs = image.any(-1), official.any(-1)
    return float((ours & theirs).sum() / (ours | theirs).sum())


@pytest.fixture(scope="module")
def scores(parity_data: Path) -> dict[str, tuple[float, float]]:
    """PSNR and mask overlap of every official frame at hand."""
    folder = parity_data / "megascenes" / "hatfield"
    official = {
        f"{path}/{i}": read_image(folder / path / f"{i}.png") for path, i_s in FRAMES.items() for i in i_s
    }
    height, width = official["orbit/3"].shape[:2]
    reference = pinhole(FOCAL, height, width)
    surface = Rasterizer(read_mesh(folder / "mesh.ply"))
    found = {}
    for path, cameras in (("orbit", orbit(reference)), ("spiral", spiral(reference))):
        chosen = list(FRAMES[path])
        images = render_vertex_colors(surface, cameras[chosen], eight_bit=True).image
        for i, image in zip(chosen, images, strict=True):
            frame = to_uint8(image)
            found[f"{path}/{i}"] = (
                psnr(frame, official[f"{path}/{i}"]),
                overlap(frame, official[f"{path}/{i}"]),
            )
    return found


def test_every_official_frame_is_reproduced(scores: dict[str, tuple[float, float]]) -> None:
    assert len(scores) == 6
    for name, (decibels, iou) in scores.items():
        assert decibels >= 46, name
        assert iou >= 0.998, name


def test_the_mean_over_the_official_frames(scores: dict[str, tuple[float, float]]) -> None:
    mean = sum(decibels for decibels, _ in scores.values()) / len(scores)
    assert mean >= 51.7  # what the reference emulation reaches over all 39 frames
