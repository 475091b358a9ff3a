"""Camera paths: equal to the originals', and true to what their docstrings promise."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from common.errors import UserError
from geometry.cameras import Cameras, pinhole, stack_cameras
from geometry.paths import AROUND_ONE, PATHS, ellipse, interpolate, lateral, llff_spiral, orbit, spiral
from geometry.poses import focus_point, look_at, pose, quaternion_from_matrix, rotation_y, turn_angle

DOWN = torch.tensor([0.0, 0, -1], dtype=torch.float64)


def posed() -> Cameras:
    """One camera in general position."""
    center, focus, down = torch.tensor([[1, 2, 3], [-1, 4, 2.5], [0.1, 0, -1]], dtype=torch.float64)
    return pinhole(70, 48, 64, look_at(center, focus, down))


def ring(
    n: int, radii: tuple[float, float] = (3, 3), height: float = 1, sweep: float = 2 * math.pi
) -> Cameras:
    """[n] cameras on a level ellipse about the origin (or a sweep of it), looking at the origin."""
    turn = torch.arange(n, dtype=torch.float64) / n * sweep
    center = torch.stack(
        [radii[0] * turn.cos(), radii[1] * turn.sin(), torch.full_like(turn, height)], dim=-1
    )
    return pinhole(70, 48, 64).with_poses(look_at(center, torch.zeros(3).double(), DOWN))


def wandering(n: int = 6, seed: int = 0) -> Cameras:
    """[n] cameras with different poses and intrinsics."""
    generator = torch.Generator().manual_seed(seed)
    center = torch.randn(n, 3, generator=generator, dtype=torch.float64)
    K = pinhole(70, 48, 64).K.repeat(n, 1, 1)
    K[:, 0, 0] *= 1 + torch.rand(n, generator=generator, dtype=torch.float64)
    K[:, 1, 2] += torch.rand(n, generator=generator, dtype=torch.float64)
    return Cameras(K, look_at(center, center.roll(1, 0) + 2, DOWN), 48, 64)


def steps(path: Cameras, closed: bool = False) -> Tensor:
    center = torch.cat([path.center, path.center[:1]]) if closed else path.center
    return center.diff(dim=0).norm(dim=-1)


def check_valid(path: Cameras, n: int) -> None:
    assert path.shape == (n,)
    rotation = path.c2w[:, :3, :3]
    torch.testing.assert_close(
        rotation @ rotation.mT, torch.eye(3).double().expand(n, 3, 3), atol=1e-12, rtol=0
    )
    assert (torch.linalg.det(rotation) > 0).all()
    assert torch.equal(path.c2w[:, 3], torch.tensor([0, 0, 0, 1.0]).double().expand(n, 4))


def test_megascenes_paths_equal_the_originals(parity_dir: Path) -> None:
    expected = load_file(parity_dir / "warp_diffusion/camera_paths.safetensors")
    reference = pinhole(80, 166, 256)
    paths = {
        "orbit_default": orbit(reference),
        "spiral_default": spiral(reference),
        "spiral_15_2": spiral(reference, n=15, max_trans=2),
        "x_poses_6_2": lateral(reference, n=6, extent=2),
    }
    for name, path in paths.items():
        torch.testing.assert_close(path.c2w, expected[f"output.{name}"], atol=1e-12, rtol=0)


def llff_to_opencv(poses: Tensor) -> Tensor:
    """[n, 3, 5] columns down, right, backwards, position -> [n, 4, 4] OpenCV camera-to-world."""
    columns = torch.stack([poses[:, :, 1], poses[:, :, 0], -poses[:, :, 2]], dim=-1)
    return pose(columns, poses[:, :, 3])


def test_llff_spiral_and_circle_equal_the_originals(parity_dir: Path) -> None:
    case = load_file(parity_dir / "mask_volume/render_path.safetensors")
    cameras = pinhole(70, 48, 64).with_poses(llff_to_opencv(case["input.poses"].permute(2, 0, 1)))
    bounds = (float(case["input.bounds"][0].min()), float(case["input.bounds"][1].max()))
    paths = {
        "path_spiral": llff_spiral(cameras, n=120, bounds=bounds),
        "spiral_N12": llff_spiral(cameras, n=48, bounds=bounds),
        "path_circle": llff_spiral(cameras, n=60, bounds=bounds, turns=1, zrate=0),
    }
    for name, path in paths.items():
        torch.testing.assert_close(path.c2w, llff_to_opencv(case[f"output.{name}"]), atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize("name", sorted(PATHS))
@pytest.mark.parametrize("n", [2, 3, 12])
def test_every_path(name: str, n: int) -> None:
    reference = posed() if name in AROUND_ONE else ring(9, sweep=2)
    path = PATHS[name](reference, 2.0, n)
    check_valid(path, n)
    assert (path.height, path.width) == (48, 64)
    torch.testing.assert_close(path.K, pinhole(70, 48, 64).K.expand(n, 3, 3))
    again = PATHS[name](reference, scale=2.0, n=n)
    assert torch.equal(again.c2w, path.c2w)
    single = PATHS[name](reference.to(torch.float32), 2.0, n)
    assert single.c2w.dtype == single.K.dtype == torch.float32
    torch.testing.assert_close(single.c2w, path.c2w.float(), atol=2e-3, rtol=0)


@pytest.mark.parametrize("name", sorted(PATHS))
def test_bad_arguments(name: str) -> None:
    one, several = posed(), ring(9)
    with pytest.raises(ValueError, match="need"):
        PATHS[name](several if name in AROUND_ONE else one)
    with pytest.raises(UserError, match="at least 1"):
        PATHS[name](one if name in AROUND_ONE else several, 1.0, 0)
    if name not in AROUND_ONE:
        with pytest.raises(UserError, match="cameras"):
            PATHS[name](several[:1])


@pytest.mark.parametrize("name", sorted(AROUND_ONE))
def test_paths_around_one_follow_the_reference_and_the_scale(name: str) -> None:
    reference = posed()
    at_origin = PATHS[name](pinhole(70, 48, 64), 1.0, 11)
    placed = PATHS[name](reference, 2.5, 11).relative_to(reference)
    torch.testing.assert_close(placed.center, 2.5 * at_origin.center, atol=1e-12, rtol=0)
    torch.testing.assert_close(placed.c2w[:, :3, :3], at_origin.c2w[:, :3, :3], atol=1e-12, rtol=0)


@given(st.integers(2, 60), st.floats(1, 80), st.floats(0.1, 5))
@settings(max_examples=25, deadline=None)
def test_orbit_generalises(n: int, angle: float, radius: float) -> None:
    path = orbit(pinhole(70, 48, 64), 1.0, n, angle, radius)
    check_valid(path, n)
    identity = quaternion_from_matrix(torch.eye(3).double())
    turned = turn_angle(identity, quaternion_from_matrix(path.c2w[:, :3, :3]))
    assert turned.max() < math.radians(angle)
    torch.testing.assert_close(turned[0], turned[-1])
    if n % 2:
        torch.testing.assert_close(path.c2w[n // 2], torch.eye(4).double(), atol=1e-15, rtol=0)
    extrinsic = path.w2c[:, :3, 3]
    torch.testing.assert_close(extrinsic[[0, -1], 0], torch.tensor([radius, -radius]).double())


def test_spiral_keeps_orientation_and_closes() -> None:
    path = spiral(posed(), 1.0, 24)
    torch.testing.assert_close(path.c2w[:, :3, :3], posed().c2w[:3, :3].expand(24, 3, 3), atol=1e-12, rtol=0)
    assert steps(path, closed=True).max() < 2 * steps(path, closed=True).min() + 1


def test_lateral_is_a_straight_even_line() -> None:
    path = lateral(posed(), 2.0, 9, extent=1.5).relative_to(posed())
    expected = torch.zeros(9, 3).double()
    expected[:, 0] = torch.linspace(3, -3, 9)
    torch.testing.assert_close(path.center, expected, atol=1e-12, rtol=0)


def test_llff_spiral_looks_at_one_point_of_a_plausible_depth() -> None:
    path = llff_spiral(ring(20, sweep=1), scale=3.0, n=40)
    focus = focus_point(path, 1.0)
    pixels, depth = path.project(focus.expand(40, 1, 3))
    torch.testing.assert_close(pixels, torch.tensor([32.0, 24]).double().expand(40, 1, 2), atol=1e-6, rtol=0)
    assert depth.min() > 3
    assert depth.max() < 6


@pytest.mark.parametrize("radii", [(3, 3), (4, 2), (2, 5)])
def test_ellipse_encloses_a_surrounded_scene(radii: tuple[float, float]) -> None:
    cameras = ring(24, radii)
    path = ellipse(cameras, 1.0, 50)
    x, y, z = path.center.unbind(-1)
    torch.testing.assert_close(
        (x / radii[0]) ** 2 + (y / radii[1]) ** 2, torch.ones(50).double(), atol=1e-4, rtol=0
    )
    torch.testing.assert_close(z, torch.ones(50).double())
    length = steps(path, closed=True)
    assert length.max() / length.min() < 1.02  # equal along the curve; chords differ a little
    torch.testing.assert_close(path.center[0], cameras.center[0], atol=0.01, rtol=0)
    pixels, depth = path.project(torch.zeros(50, 1, 3).double())
    torch.testing.assert_close(pixels, torch.tensor([32.0, 24]).double().expand(50, 1, 2), atol=1e-6, rtol=0)
    assert (depth > 0).all()
    assert (path.c2w[:, 2, 1] < 0).all()  # upright
    assert (torch.linalg.cross(path.center, path.center.roll(-1, 0))[:, 2] > 0).all()  # counter-clockwise


def test_ellipse_stays_among_cameras_that_cover_an_arc() -> None:
    rows = [ring(9, (r, r), height, sweep=1.5) for r, height in ((3, 0.5), (3.2, 1.0), (3, 1.5))]
    cameras = pinhole(70, 48, 64).with_poses(torch.cat([row.c2w for row in rows]))
    path = ellipse(cameras, 1.0, 40)
    check_valid(path, 40)
    focus = focus_point(cameras, 1.0)
    seen, near = ((c.center - focus) @ mean_level(cameras).T for c in (cameras, path))
    torch.testing.assert_close(near.norm(dim=-1), seen.norm(dim=-1).median().expand(40), atol=1e-3, rtol=0)
    for angle in (azimuth, elevation):
        low, high = angle(seen).aminmax()
        assert low - 1e-9 <= angle(near).min() < low + 0.05 * (high - low)
        assert high - 0.05 * (high - low) < angle(near).max() <= high + 1e-9
    fine = steps(ellipse(cameras, 1.0, 400), closed=True)
    assert fine.max() / fine.min() < 1.01


def mean_level(cameras: Cameras) -> Tensor:
    """[3, 3] rows: forwards, to the left and up of the average camera, made level."""
    up = torch.nn.functional.normalize(-cameras.c2w[:, :3, 1].mean(0), dim=0)
    forward = cameras.c2w[:, :3, 2].mean(0)
    forward = torch.nn.functional.normalize(forward - (forward @ up) * up, dim=0)
    return torch.stack([-forward, torch.linalg.cross(up, -forward), up])


def azimuth(points: Tensor) -> Tensor:
    return torch.atan2(points[:, 1], points[:, 0])


def elevation(points: Tensor) -> Tensor:
    return torch.atan2(points[:, 2], points[:, :2].norm(dim=-1))


def test_ellipse_of_parallel_cameras_stays_in_front() -> None:
    center = torch.tensor([[x, 0, z] for x in (-1.0, 0, 1) for z in (-0.5, 0, 0.5)]).double()
    cameras = pinhole(70, 48, 64).with_poses(look_at(center, center + torch.tensor([0, 1.0, 0]), DOWN))
    path = ellipse(cameras, 4.0, 30)
    pixels, _ = path.project(torch.tensor([0.0, 4, 0]).double().expand(30, 1, 3))
    torch.testing.assert_close(pixels, torch.tensor([32.0, 24]).double().expand(30, 1, 2), atol=1e-6, rtol=0)
    assert path.center[:, 1].abs().max() < 0.3
    assert path.center[:, 0].abs().max() <= 1.05


def test_ellipse_moves_with_the_scene() -> None:
    cameras = ring(15, (4, 2), sweep=3)
    move = pose(rotation_y(torch.tensor(0.7).double()), torch.tensor([5.0, -2, 1]).double())
    moved = ellipse(cameras.with_poses(move @ cameras.c2w), 1.0, 20)
    torch.testing.assert_close(moved.c2w, move @ ellipse(cameras, 1.0, 20).c2w, atol=1e-3, rtol=0)


def test_ellipse_without_spread() -> None:
    same = ring(1).with_poses(ring(1).c2w.expand(4, 4, 4))
    with pytest.raises(UserError, match="do not spread"):
        ellipse(same)


@given(st.integers(0, 10**6), st.integers(2, 7))
@settings(max_examples=15, deadline=None)
def test_interpolate_passes_through_every_camera_evenly(seed: int, count: int) -> None:
    cameras, n = wandering(count, seed), 400
    path = interpolate(cameras, 0.5, n)
    check_valid(path, n)
    rotation = quaternion_from_matrix(path.c2w[:, :3, :3])
    moved = torch.hypot(steps(path), 0.5 * turn_angle(rotation[1:], rotation[:-1]))
    assert moved.max() < 1.02 * moved.median()  # chords never exceed the arc
    nearest = torch.cdist(cameras.center, path.center)
    assert nearest.min(dim=1).values.max() < moved.max()
    gap = turn_angle(quaternion_from_matrix(cameras.c2w[:, :3, :3]), rotation[nearest.argmin(dim=1)])
    assert gap.max() < 2.1 * moved.max() / 0.5
    for end in (0, -1):
        torch.testing.assert_close(path.c2w[end], cameras.c2w[end], atol=1e-9, rtol=0)
        torch.testing.assert_close(path.K[end], cameras.K[end], atol=1e-9, rtol=0)
    assert (path.focal > 0).all()


def test_interpolate_two_cameras_is_a_line_with_a_steady_turn() -> None:
    turn = rotation_y(torch.tensor([0.0, 0.5]).double())
    K = pinhole(70, 48, 64).K.repeat(2, 1, 1)
    K[1, 0, 0] *= 4
    pair = Cameras(K, pose(turn, torch.tensor([[0.0, 0, 0], [0, 0, 4]]).double()), 48, 64)
    path = interpolate(pair, 1.0, 5)
    expected = pose(rotation_y(torch.linspace(0, 0.5, 5, dtype=torch.float64)), torch.zeros(5, 3).double())
    expected[:, 2, 3] = torch.linspace(0, 4, 5)
    torch.testing.assert_close(path.c2w, expected, atol=1e-9, rtol=0)
    torch.testing.assert_close(
        path.K[:, 0, 0], 70 * 4 ** torch.linspace(0, 1, 5, dtype=torch.float64), atol=1e-6, rtol=0
    )


def test_interpolate_meets_evenly_spaced_cameras() -> None:
    center = torch.stack([torch.arange(5.0), torch.zeros(5), torch.zeros(5)], dim=-1).double()
    cameras = pinhole(70, 48, 64).with_poses(pose(torch.eye(3).double().expand(5, 3, 3), center))
    path = interpolate(cameras, 1.0, 13)
    torch.testing.assert_close(path.c2w[::3], cameras.c2w, atol=1e-9, rtol=0)


def test_interpolate_turns_on_the_spot_and_skips_repeats() -> None:
    turn = rotation_y(torch.tensor([0.0, 0.0, 0.4, 0.4, 0.8], dtype=torch.float64))
    still = pinhole(70, 48, 64).with_poses(pose(turn, torch.ones(5, 3).double()))
    path = interpolate(still, 2.0, 9)
    torch.testing.assert_close(
        path.c2w[:, :3, :3], rotation_y(torch.linspace(0, 0.8, 9, dtype=torch.float64)), atol=1e-6, rtol=0
    )
    torch.testing.assert_close(path.center, torch.ones(9, 3).double())
    with pytest.raises(UserError, match="all the same"):
        interpolate(stack_cameras([still[0]] * 3))
