"""Paths between source views: ends, symmetry, what they look at."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from common.errors import UserError
from geometry.cameras import Cameras, pinhole
from geometry.pair_paths import (
    PAIR_PATHS,
    exaggerated,
    nearest_order,
    pivot,
    pivot_interpolate,
    slerp_path,
    spin,
    there_and_back,
)
from geometry.poses import look_at, matrix_from_quaternion, pose

_DOWN = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)


def around(angles: list[float], focus: Tensor | None = None, radius: float = 3.0) -> Cameras:
    """Cameras at azimuths in degrees round a point, a little above it."""
    focus = torch.zeros(3, dtype=torch.float64) if focus is None else focus
    angle = torch.tensor(angles, dtype=torch.float64).deg2rad()
    center = focus + radius * torch.stack([angle.sin(), -0.2 + 0 * angle, -angle.cos()], dim=-1)
    return pinhole(40.0, 24, 32).with_poses(look_at(center, focus, _DOWN))


@pytest.mark.parametrize("n", [1, 2, 5, 6, 7])
def test_there_and_back_closes_its_loop(n: int) -> None:
    t = there_and_back(n)
    assert t.shape == (n,)
    assert t[0] == 0
    assert t.max() == (1 if n > 1 else 0)
    if n > 2:
        assert t[-1] == pytest.approx(0 if n % 2 else float(t[1]))


@given(seed=st.integers(0, 10_000), t=st.floats(-2, 3))
@settings(max_examples=30, deadline=None)
def test_pivot_interpolation_gives_rigid_poses_that_move_with_the_world(seed: int, t: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    rotation = matrix_from_quaternion(torch.randn(3, 4, generator=generator, dtype=torch.float64))
    poses = pose(rotation, torch.randn(3, 3, generator=generator, dtype=torch.float64))
    c2w, world, at = poses[:2], poses[2], torch.tensor([0.0, t, 1.0], dtype=torch.float64)
    if float((c2w[0, :3, 2] @ c2w[1, :3, 2]).abs()) > 0.99:
        return
    made = pivot_interpolate(c2w, at)
    torch.testing.assert_close(made[[0, 2]], c2w, atol=1e-6, rtol=0)
    assert torch.allclose(made[:, :3, :3] @ made[:, :3, :3].mT, torch.eye(3).double(), atol=1e-6)
    torch.testing.assert_close(pivot_interpolate(world @ c2w, at), world @ made, atol=1e-5, rtol=1e-5)


def test_pivot_keeps_looking_at_the_common_point() -> None:
    focus = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    cameras = around([-30, 40], focus)
    made = pivot(cameras, n=20)
    assert made.shape == (20,)
    pixels, depth = made.project(focus.expand(20, 1, 3))
    assert torch.allclose(pixels[:, 0], torch.tensor([16.0, 12.0]).double(), atol=1e-6)
    assert torch.allclose(depth[:, 0], depth[0, 0].expand(20), atol=1e-6)
    torch.testing.assert_close(made.c2w[1:], made.c2w[1:].flip(0))  # the way back is the way there


def test_slerp_visits_every_source_and_returns() -> None:
    cameras = around([0, 20, 45])
    made = slerp_path(cameras, n=12)
    torch.testing.assert_close(made.c2w[[0, 3, 4, 7, 8, 11]], cameras.c2w[[0, 1, 1, 2, 2, 0]])
    assert len(slerp_path(cameras, n=14)) == 14
    with pytest.raises(UserError, match="at least 6 frames"):
        slerp_path(cameras, n=5)


def test_spin_goes_round_what_the_cameras_see() -> None:
    cameras = around([-20, 0, 25])
    made = spin(cameras, n=8)
    _, depth = made.project(torch.zeros(8, 1, 3).double())
    assert torch.allclose(depth, depth[:1].expand(8, 1), atol=1e-6)
    assert (made.c2w[:, 1, 1] > 0.9).all()  # upright: the image's y axis points down in the world
    start = torch.nn.functional.normalize(made.center[0], dim=0)
    assert start @ torch.nn.functional.normalize(cameras.center[0], dim=0) > 0.999
    torch.testing.assert_close(made.center[0] + made.center[4], 2 * made.center.mean(0), atol=1e-6, rtol=0)


def test_exaggerated_leaves_the_sources_behind() -> None:
    cameras = around([-10, 10])
    baseline = (cameras.center[1] - cameras.center[0]).norm()
    made = exaggerated(cameras, n=31)
    assert (made.center[0] - cameras.center.mean(0)).norm() > 1.5 * baseline
    assert len(made) == 31
    assert (made.K[:, 0, 0] == 40).all()


def test_order_goes_to_the_nearest_one_left() -> None:
    assert nearest_order(around([0, 40, 10, 25, -5])) == [0, 4, 2, 3, 1]


@pytest.mark.parametrize("path", sorted(PAIR_PATHS))
def test_paths_keep_size_and_refuse_too_little(path: str) -> None:
    cameras = around([-15, 15]).to(torch.float32)
    made = PAIR_PATHS[path](cameras, 1.0, n=6)
    assert (made.shape, made.height, made.width, made.K.dtype) == ((6,), 24, 32, torch.float32)
    with pytest.raises(UserError):
        PAIR_PATHS[path](cameras, 1.0, n=0)
    if path != "spin":
        with pytest.raises(UserError, match="source views"):
            PAIR_PATHS[path](cameras[:1], 1.0, n=6)
    if path in ("pivot", "wobble", "exaggerated"):
        with pytest.raises(UserError, match="same pose"):
            PAIR_PATHS[path](cameras[[0, 0]], 1.0, n=6)
