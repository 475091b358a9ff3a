"""Fixtures several test files share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from dataloader.scene import Record, Scene, SparsePoints
from geometry.cameras import pinhole
from geometry.poses import look_at

_ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session", autouse=True)
def _two_threads() -> None:
    """The thread count decides the order of sums: fix it, so that numbers do not depend on the machine."""
    torch.set_num_threads(2)


@pytest.fixture(scope="session")
def repo_root() -> Path:
    """The folder that holds train.py."""
    return _ROOT


@pytest.fixture(scope="session")
def parity_data() -> Path:
    """The shared data sets ($PARITY_DATA); skips the test where they are absent."""
    return _shared("PARITY_DATA", "data")


@pytest.fixture(scope="session")
def parity_dir() -> Path:
    """The recorded outputs of the originals ($PARITY_DIR); skips the test where they are absent."""
    return _shared("PARITY_DIR", "parity")


def _shared(variable: str, name: str) -> Path:
    folder = Path(os.environ.get(variable, _ROOT.parent / "shared" / name))
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent: set ${variable}")
    return folder


@pytest.fixture
def posed_scene() -> Callable[..., Scene]:
    """Make small scenes of random photos around random points, whose tracks are exact projections.

    n: photos. seed: of everything. size: (height, width), or one per photo. off_center: shift of the
    principal point and difference of the focal lengths in pixels. points: number of sparse points.
    """
    return _posed_scene


def _posed_scene(
    n: int = 5,
    seed: int = 0,
    size: tuple[int, int] | list[tuple[int, int]] = (24, 32),
    off_center: float = 0.0,
    points: int = 40,
) -> Scene:
    rng = np.random.default_rng(seed)
    sizes = size if isinstance(size, list) else [size] * n
    xyz = rng.uniform(-1, 1, (points, 3))
    scene = Scene(
        "small", [], SparsePoints(xyz, rng.integers(0, 256, (points, 3), np.uint8), np.ones(points))
    )
    for i, (height, width) in enumerate(sizes):
        center = torch.from_numpy(np.array([4 * np.sin(i / 2), rng.uniform(-1, 1), -4 * np.cos(i / 2)]))
        down = torch.tensor([0.1 * i, 1.0, 0.05], dtype=torch.float64)
        camera = pinhole(1.1 * width, height, width, look_at(center, torch.zeros(3).double(), down))
        camera.K[0, 2] += off_center
        camera.K[1, 1] += off_center
        pixels, depth = camera.project(torch.from_numpy(xyz))
        inside = ((pixels >= 0) & (pixels <= torch.tensor([width, height]))).all(-1).numpy()
        record = Record(f"{i:04d}", camera, rng.integers(0, 256, (height, width, 3), np.uint8))
        record.bounds = (depth.min().item(), depth.max().item())
        scene.records.append(record)
        scene.points.tracks[record.name] = (np.flatnonzero(inside), pixels.numpy()[inside])
    scene.hold_out(4)
    return scene
