"""Epipolar lines pass through the projections of the same points."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geometry.cameras import Cameras, pinhole
from geometry.epipolar import epipolar_distances, epipolar_lines, fundamental_matrix
from geometry.poses import look_at


def cameras(seed: int) -> tuple[Cameras, Cameras, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64) * 2 - 1

    down = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)
    poses = [look_at(draw(3) + torch.tensor([0, 0, -4.0]), draw(3) * 0.2, down) for _ in range(2)]
    first, second = (pinhole(100 + 50 * draw(1).item(), 80, 120, c2w) for c2w in poses)
    second.K[0, 2] += 7
    return first, second, draw(20, 3)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_projections_lie_on_epipolar_lines(seed: int) -> None:
    first, second, points = cameras(seed)
    fundamental = fundamental_matrix(first, second)
    p, q = first.project(points)[0], second.project(points)[0]
    assert epipolar_distances(fundamental, p, q).max() < 1e-8
    assert epipolar_distances(fundamental.T, q, p).max() < 1e-8


def test_distance_is_in_pixels() -> None:
    first, second, points = cameras(3)
    fundamental = fundamental_matrix(first, second)
    p, q = first.project(points)[0], second.project(points)[0]
    normals = epipolar_lines(fundamental, p)[:, :2]
    moved = epipolar_distances(fundamental, p, q + 2.5 * normals)
    torch.testing.assert_close(moved, torch.full_like(moved, 2.5))


def test_sideways_motion_gives_rows() -> None:
    """Cameras that differ by a shift along x have horizontal epipolar lines at the pixel's own row."""
    first = pinhole(100.0, 80, 120)
    shifted = torch.eye(4, dtype=torch.float64)
    shifted[0, 3] = 0.3
    second = pinhole(100.0, 80, 120, shifted)
    pixels = torch.tensor([[10.0, 20.5], [100.0, 61.0]], dtype=torch.float64)
    lines = epipolar_lines(fundamental_matrix(first, second), pixels)
    torch.testing.assert_close(-lines[:, 2] / lines[:, 1], pixels[:, 1])
    torch.testing.assert_close(lines[:, 0], torch.zeros(2, dtype=torch.float64))
