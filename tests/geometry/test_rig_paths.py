"""Paths of a rig: the original's numbers, any number of cameras and frames."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from common.errors import UserError
from geometry.cameras import Cameras, pinhole
from geometry.poses import llff_from_pose, look_at, pose_from_llff, rig_frame
from geometry.rig_paths import DEFAULT_PATHS, RIG_PATHS, extreme, rig_path, x_axis, z_axis

BOUNDS = (2.0, 50.0)


def _rig(count: int) -> Cameras:
    """Cameras in a row of 0.5 units' spacing that look ahead, a little crosswise."""
    center = torch.zeros(count, 3, dtype=torch.float64)
    center[:, 0] = 0.5 * torch.arange(count)
    target = torch.tensor([0.25 * (count - 1), 0.1, 8.0], dtype=torch.float64)
    down = torch.tensor([0.0, 1, 0], dtype=torch.float64)
    return pinhole(70, 48, 64).with_poses(look_at(center, target, down))


def _recorded(parity_dir: Path) -> tuple[dict[str, Tensor], Cameras, tuple[float, float]]:
    case = load_file(parity_dir / "mask_volume" / "render_path.safetensors")
    poses = case["input.poses"].permute(2, 0, 1)
    height, width, focal = poses[0, :, 4].tolist()
    cameras = pinhole(focal, int(height), int(width)).with_poses(pose_from_llff(poses[:, :, :4]))
    return case, cameras, (float(case["input.bounds"][0].min()), float(case["input.bounds"][1].max()))


def test_paths_equal_the_originals(parity_dir: Path) -> None:
    case, cameras, bounds = _recorded(parity_dir)
    for name, path in RIG_PATHS.items():
        expected = case[f"output.path_{name}"]
        made = path(cameras, bounds, 30)
        torch.testing.assert_close(llff_from_pose(made.c2w), expected[:, :, :4], rtol=1e-9, atol=1e-12)
        assert (made.height, made.width) == (1080, 1920)
        if name != "input":  # whose cameras have their own focal lengths
            torch.testing.assert_close(made.K[:, 0, 0], expected[:, 2, 4], rtol=1e-9, atol=0)
    spiral = RIG_PATHS["spiral"](cameras, bounds, 12)
    expected = case["output.spiral_N12"][:, :, :4]
    torch.testing.assert_close(llff_from_pose(spiral.c2w), expected, rtol=1e-9, atol=1e-12)


def test_frame_equals_the_original(parity_dir: Path) -> None:
    case, cameras, bounds = _recorded(parity_dir)
    frame = rig_frame(cameras.c2w, bounds)
    torch.testing.assert_close(
        llff_from_pose(frame.mean), case["mid.poses_avg"][:, :4], rtol=1e-9, atol=1e-12
    )
    signs = torch.tensor([1.0, 1, -1], dtype=torch.float64)
    centres = (frame.offsets * signs)[:, [1, 0, 2]]
    torch.testing.assert_close(centres, case["mid.centres_in_avg"].T, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(frame.reach[[1, 0, 2]], case["mid.rads"], rtol=1e-9, atol=1e-12)


def test_default_is_nine_parts(parity_dir: Path) -> None:
    case, cameras, bounds = _recorded(parity_dir)
    path = rig_path(cameras, bounds)
    expected = torch.cat([case[f"output.path_{name}"] for name in DEFAULT_PATHS])
    assert len(path) == 270
    torch.testing.assert_close(llff_from_pose(path.c2w), expected[:, :, :4], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", sorted(RIG_PATHS))
@pytest.mark.parametrize("count", [2, 4, 7])
def test_any_number_of_cameras_and_frames(name: str, count: int) -> None:
    cameras = _rig(count)
    path = RIG_PATHS[name](cameras, BOUNDS, 5)
    times = {"circle": 2, "extreme": 2, "spiral": 4}.get(name, 1)
    assert len(path) == (count if name == "input" else 5 * times)
    rotation = path.c2w[:, :3, :3]
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3).double().expand(len(path), 3, 3))
    if name != "input":  # all look at the same point
        focus = rig_frame(cameras.c2w, BOUNDS).focus
        pixels, depth = path.project(focus.expand(len(path), 1, 3))
        torch.testing.assert_close(pixels[:, 0], torch.tensor([32.0, 24]).double().expand(len(path), 2))
        assert (depth > 0).all()
    single = RIG_PATHS[name](cameras.to(torch.float32), BOUNDS, 5)
    assert single.c2w.dtype == torch.float32
    torch.testing.assert_close(single.c2w, path.c2w.float(), atol=1e-4, rtol=1e-4)


def test_axes_point_where_their_names_say() -> None:
    cameras = _rig(5)
    centers = x_axis(cameras, BOUNDS, 8).center
    assert (centers[1:, 0] > centers[:-1, 0]).all()
    half = 0.8 * float(torch.quantile((0.5 * torch.arange(5.0) - 1).abs(), 0.9))
    assert float(centers[0, 0]) == pytest.approx(1 - half)
    assert float(centers[-1, 0]) == pytest.approx(1 + half * 0.75)  # the end is left out
    depths = z_axis(cameras, BOUNDS, 4).center[:, 2]
    assert depths.tolist() == pytest.approx([0.8 * 0.2 * 0.9 * 2 * t for t in (1, 0.5, 0, -0.5)], rel=1e-3)


def test_extreme_measures_the_middle_pair_of_few() -> None:
    assert float(extreme(_rig(4), BOUNDS, 1).center[0, 0]) == pytest.approx(0.75 - 10 * 0.5)
    uneven = _rig(6)
    uneven.c2w[5, 0, 3] += 0.25
    mean = float(uneven.center[:, 0].mean())
    assert float(extreme(uneven, BOUNDS, 1).center[0, 0]) == pytest.approx(mean - 10 * 0.75, abs=1e-2)


def test_order_and_own_cameras() -> None:
    cameras = _rig(3)
    path = rig_path(cameras, BOUNDS, ["input", "x_axis"], 4)
    assert len(path) == 7
    assert torch.equal(path.c2w[4:], cameras.c2w)


def test_refusals() -> None:
    with pytest.raises(UserError, match="unknown path 'helix' of a rig: choose from x_axis"):
        rig_path(_rig(3), BOUNDS, ["helix"])
    with pytest.raises(UserError, match="ask for at least one"):
        rig_path(_rig(3), BOUNDS, [])
    with pytest.raises(UserError, match="at least 2 cameras"):
        x_axis(_rig(1), BOUNDS)
    with pytest.raises(UserError, match="ask for at least 1"):
        x_axis(_rig(3), BOUNDS, 0)
    with pytest.raises(UserError, match="no depth range"):
        x_axis(_rig(3), (3.0, 1.0))
