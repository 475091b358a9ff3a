"""Rotations and shared poses, against their definitions."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from torch import Tensor

from common.errors import UserError
from geometry.cameras import Cameras, pinhole
from geometry.poses import (
    focus_point,
    look_at,
    matrix_from_quaternion,
    mean_pose,
    nearest_to_axes,
    pose,
    quaternion_from_matrix,
    rotation_y,
    slerp,
    turn_angle,
)

seeds = st.integers(0, 2**31 - 1)


def quaternions(seed: int, n: int = 16) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(n, 4, generator=generator, dtype=torch.float64), dim=-1)


def watching(points: Tensor, focus: Tensor) -> Cameras:
    """Cameras [N] at points, looking at the focus, z up."""
    down = torch.tensor([0.0, 0, -1], dtype=torch.float64)
    return pinhole(50, 40, 60).with_poses(look_at(points, focus, down))


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_quaternions_and_matrices(seed: int) -> None:
    q = quaternions(seed)
    matrix = matrix_from_quaternion(3.0 * q)
    expected = torch.from_numpy(Rotation.from_quat(q.numpy(), scalar_first=True).as_matrix())
    torch.testing.assert_close(matrix, expected, atol=1e-14, rtol=0)
    back = quaternion_from_matrix(matrix)
    torch.testing.assert_close(back * (back * q).sum(-1, keepdim=True).sign(), q, atol=1e-14, rtol=0)
    assert (back[:, 0] >= 0).all()


def test_quaternions_of_half_turns_and_identity() -> None:
    half_turns = torch.diag_embed(torch.tensor([[1.0, -1, -1], [-1, 1, -1], [-1, -1, 1], [1, 1, 1]]).double())
    q = quaternion_from_matrix(half_turns)
    torch.testing.assert_close(q.abs(), torch.eye(4, dtype=torch.float64)[[1, 2, 3, 0]])
    torch.testing.assert_close(matrix_from_quaternion(q), half_turns)


@given(seeds, st.floats(0, 1))
@settings(max_examples=20, deadline=None)
def test_slerp_turns_steadily_the_shorter_way(seed: int, fraction: float) -> None:
    start, end = quaternions(seed).chunk(2)
    t = torch.full((8,), fraction, dtype=torch.float64)
    middle = slerp(start, end, t)
    whole = turn_angle(start, end)
    assert (whole <= math.pi + 1e-12).all()
    torch.testing.assert_close(middle.norm(dim=-1), torch.ones(8).double())
    torch.testing.assert_close(turn_angle(start, middle), fraction * whole, atol=1e-12, rtol=0)
    torch.testing.assert_close(turn_angle(middle, end), (1 - fraction) * whole, atol=1e-12, rtol=0)
    torch.testing.assert_close(slerp(start, -end, t), middle, atol=1e-12, rtol=0)


def test_slerp_between_equal_and_nearly_equal_rotations() -> None:
    start = quaternions(1)
    t = torch.linspace(0, 1, 16, dtype=torch.float64)
    torch.testing.assert_close(slerp(start, start, t), start)
    near = torch.nn.functional.normalize(start + 1e-7 * quaternions(2), dim=-1)
    middle = slerp(start, near, t)
    assert torch.isfinite(middle).all()
    torch.testing.assert_close(turn_angle(start, middle), t * turn_angle(start, near), atol=1e-14, rtol=0)


def test_rotation_y_takes_z_towards_x() -> None:
    turned = rotation_y(torch.tensor(math.pi / 2, dtype=torch.float64)) @ torch.tensor([0.0, 0, 1]).double()
    torch.testing.assert_close(turned, torch.tensor([1.0, 0, 0]).double(), atol=1e-15, rtol=0)


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_look_at(seed: int) -> None:
    center, focus, down = quaternions(seed, 3)[:, :3]
    c2w = look_at(center, focus, down)
    rotation = c2w[:3, :3]
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(3).double(), atol=1e-12, rtol=0)
    assert torch.linalg.det(rotation) > 0
    pixel, depth = pinhole(50, 40, 60, c2w).project(focus[None])
    torch.testing.assert_close(pixel[0], torch.tensor([30.0, 20]).double(), atol=1e-9, rtol=0)
    assert depth[0] > 0
    lower, _ = pinhole(50, 40, 60, c2w).project((focus + 0.01 * down)[None])
    assert lower[0, 0] == pytest.approx(30, abs=1e-9)  # `down` shows straight downwards in the image
    assert lower[0, 1] > 20


def test_mean_pose_of_one_and_of_a_symmetric_pair() -> None:
    one = pose(matrix_from_quaternion(quaternions(4, 1)), torch.tensor([[1.0, 2, 3]]).double())
    torch.testing.assert_close(mean_pose(one), one[0])
    turn = rotation_y(torch.tensor([-0.3, 0.3]).double())
    pair = one @ pose(turn, torch.tensor([[0.5, 0, 1], [-0.5, 0, 1]]).double())
    expected = one[0] @ pose(torch.eye(3).double(), torch.tensor([0.0, 0, 1]).double())
    torch.testing.assert_close(mean_pose(pair), expected)


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_axes_that_meet(seed: int) -> None:
    points, focus = 5 * quaternions(seed, 7)[:, :3], quaternions(seed + 1, 1)[0, :3]
    cameras = watching(points, focus)
    nearest, certainty = nearest_to_axes(cameras)
    torch.testing.assert_close(nearest, focus, atol=1e-6, rtol=0)
    assert 0 < certainty <= 2 / 3 + 1e-12
    torch.testing.assert_close(focus_point(cameras, 1.0), nearest)


def test_nearest_to_axes_minimises_the_squared_distance() -> None:
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(9, 3, generator=generator).double()
    cameras = watching(points, torch.randn(9, 3, generator=generator).double())
    nearest, _ = nearest_to_axes(cameras)

    def cost(point: Tensor) -> Tensor:
        axis = cameras.c2w[:, :3, 2]
        return torch.linalg.cross(point - cameras.center, axis).square().sum()

    for direction in torch.eye(3).double():
        assert cost(nearest) < min(cost(nearest + 1e-3 * direction), cost(nearest - 1e-3 * direction))


def test_focus_without_a_meeting_point() -> None:
    points = torch.tensor([[0.0, 0, 0], [2, 0, 0], [1, 1, 0]]).double()
    ahead = torch.tensor([0.0, 5, 0]).double()
    parallel = watching(points, points + ahead)
    expected = torch.tensor([1, 1 / 3 + 4, 0], dtype=torch.float64)
    torch.testing.assert_close(focus_point(parallel, 4.0), expected)
    distant = watching(points, torch.tensor([1, 2000, 0]).double())
    torch.testing.assert_close(focus_point(distant, 4.0), expected, atol=1e-2, rtol=0)
    spread = (points - points.mean(0)) * 0.1
    diverging = watching(points, points + ahead + spread)  # the axes meet behind the cameras
    torch.testing.assert_close(focus_point(diverging, 4.0), expected, atol=1e-2, rtol=0)
    turns = torch.arange(8).double() * math.pi / 4
    outward = torch.stack([turns.cos(), turns.sin(), torch.zeros(8)], dim=-1)
    with pytest.raises(UserError, match="interpolate"):
        focus_point(watching(0.1 * outward, outward), 1.0)
