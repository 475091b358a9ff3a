"""View overlap, against points walked along rays. Recorded values are compared in tests/parity."""

from __future__ import annotations

import pytest
import torch

from dataloader.toy import make_cameras
from geometry.cameras import pinhole
from geometry.overlap import overlap, seen_fraction, seen_stretch


@pytest.mark.parametrize("pair", [(0, 1), (0, 5), (7, 2)])
def test_stretches_hold_what_projects_inside(pair: tuple[int, int]) -> None:
    cameras = make_cameras(3, 8, 6, 9)
    source, target = cameras[pair[0]], cameras[pair[1]]
    origins, directions = (part.reshape(-1, 3) for part in source.rays())
    first, last = seen_stretch(origins, directions, target, near=0.1, far=50.0)
    steps = torch.linspace(0.1, 50, 4000, dtype=torch.float64)
    points = origins[:, None] + steps[:, None] * directions[:, None]
    pixels, depth = target.project(points.reshape(-1, 3))
    size = torch.tensor([target.width, target.height])
    inside = ((pixels >= 0) & (pixels <= size)).all(-1) & (depth > 0)
    walked = inside.reshape(len(origins), -1)
    told = (steps >= first[:, None]) & (steps <= last[:, None])
    assert (walked != told).sum() <= 2 * len(origins)  # a step on an end of a stretch
    assert walked.any()
    assert not walked.all()


def test_extremes() -> None:
    camera = pinhole(20.0, 12, 16)
    assert overlap(camera, camera) == 1.0
    behind = torch.eye(4).double()
    behind[0, 0] = behind[2, 2] = -1  # back to back
    behind[2, 3] = -1
    assert overlap(camera, camera.with_poses(behind)) == 0.0
    narrow = pinhole(80.0, 12, 16)
    assert seen_fraction(narrow, camera) == 1.0
    assert overlap(narrow, camera) == overlap(camera, narrow) == pytest.approx(1 / 16, abs=0.03)
