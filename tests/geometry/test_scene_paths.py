from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import UserError
from geometry.cameras import Cameras, pinhole
from geometry.poses import matrix_from_quaternion, pose
from geometry.scene_paths import (
    MODES,
    circle_cameras,
    mode_cameras,
    supporting_cameras,
    supporting_directions,
    turntable_cameras,
)


def a_photo(seed: int = 0) -> Cameras:
    random = torch.Generator().manual_seed(seed)
    draws = torch.randn(7, generator=random, dtype=torch.float64)
    return pinhole(80.0, 48, 64, pose(matrix_from_quaternion(draws[:4]), draws[4:]))


@pytest.mark.parametrize("mode", MODES)
def test_the_first_camera_of_a_mode_is_the_photos(mode: str) -> None:
    photo = a_photo()
    cameras = mode_cameras(photo, mode)
    assert len(cameras) == len(MODES[mode])
    torch.testing.assert_close(cameras.c2w[0], photo.c2w)
    torch.testing.assert_close(cameras.K, photo.K.expand(len(cameras), 3, 3))


def test_an_unknown_mode_is_named() -> None:
    with pytest.raises(UserError, match="unknown mode 'ring': choose from single, stage, 360"):
        mode_cameras(a_photo(), "ring")


def test_a_positive_azimuth_turns_left_and_a_positive_elevation_looks_down() -> None:
    photo = pinhole(80.0, 48, 64)
    left, above = circle_cameras(photo, [(25.0, 0.0), (0.0, 10.0)]).c2w[:, :3, 2]
    assert left[0] < 0  # x points right
    assert above[1] > 0  # y points down
    assert float(left[1]) == pytest.approx(0, abs=1e-12)
    assert float(above[0]) == pytest.approx(0, abs=1e-12)


@given(azimuth=st.floats(-360, 360), elevation=st.floats(-80, 80), seed=st.integers(0, 20))
@settings(max_examples=30, deadline=None)
def test_cameras_look_at_the_middle_from_their_distance_and_stay_upright(
    azimuth: float, elevation: float, seed: int
) -> None:
    photo, middle = a_photo(seed), torch.tensor([0.3, -0.2, 0.9], dtype=torch.float64)
    camera = turntable_cameras(photo, middle, [(azimuth, elevation)], 0.7)[0]
    pixel, depth = camera.project(middle[None])
    torch.testing.assert_close(pixel[0], camera.K[:2, 2])
    assert float(depth) == pytest.approx(0.7)
    assert float(camera.c2w[:3, 0] @ photo.c2w[:3, 1]) == pytest.approx(0, abs=1e-9)  # right is level
    assert float(camera.c2w[:3, 1] @ photo.c2w[:3, 1]) > 0


def test_the_grid_of_supporting_cameras_surrounds_the_view() -> None:
    photo, middle = a_photo(), torch.tensor([0.1, 0.2, 0.5])
    grid = supporting_cameras(photo, 25.0, 0.0, middle, 0.6)
    assert len(grid) == 9
    own = turntable_cameras(photo, middle, [(25.0, 0.0)], 0.6)
    torch.testing.assert_close(grid.c2w[4], own.c2w[0])
    assert supporting_directions(25.0)[0] == (20.0, -5.0)


def test_a_batch_of_cameras_has_no_directions_to_count_from() -> None:
    with pytest.raises(ValueError, match="count from one camera"):
        circle_cameras(a_photo().reshape(1), [(0.0, 0.0)])
