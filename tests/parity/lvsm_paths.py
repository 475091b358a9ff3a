"""Camera paths of both LVSM implementations, against recorded ones (specs/lvsm 6.3)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from geometry.cameras import Cameras
from geometry.pair_paths import (
    exaggerated_poses,
    nearest_order,
    pivot,
    pivot_interpolate,
    slerp_cameras,
    slerp_path,
    smooth,
    spin_poses,
    wobble_poses,
)
from tests.parity.cases import Case


def check_unofficial(case: Case) -> None:
    c2w, parallel = case.input("c2w").double(), case.input("c2w_parallel").double()
    linear = torch.linspace(0, 1, 7, dtype=torch.float64)
    case.close("t_linear", linear, atol=1e-6)
    t = smooth(linear)
    case.close("t_smooth", t, atol=1e-6)
    case.close("interp", pivot_interpolate(c2w, t), atol=1e-4)
    case.close("interp_parallel_look", pivot_interpolate(parallel, linear), atol=1e-4)
    case.close("wobble", wobble_poses(c2w, t), atol=1e-4)
    case.close("interp_exaggerated", exaggerated_poses(c2w, linear), atol=1e-4)
    config = case.config["spin"]
    spin = spin_poses(config["num_frames"], config["elevation_deg"], config["radius"])
    case.close("spin", spin, atol=1e-4)
    cameras = Cameras(case.input("intrinsics"), case.input("c2w"), 1, 1)
    there = pivot(cameras, n=12)[:7]  # and back in five frames
    case.close("interp_K", there.K, atol=1e-4)
    torch.testing.assert_close(there.c2w, case.output("interp"), atol=1e-4, rtol=0)


def check_official(case: Case) -> None:
    bottom = torch.tensor([0.0, 0.0, 0.0, 1.0]).expand(len(case.input("poses")), 1, 4)
    cameras = Cameras(case.input("K"), torch.cat([case.input("poses"), bottom], dim=1), 1, 1)
    counts = [case.config["steps_per_transition"]] * (len(cameras) - 1)
    for suffix, chosen in (("", cameras), ("_ordered", cameras[nearest_order(cameras)])):
        made = slerp_cameras(chosen, counts)
        case.close(f"K{suffix}", made.K, atol=1e-5)
        case.close(f"poses{suffix}", made.c2w[:, :3], atol=1e-5)
    looped: Tensor = slerp_path(cameras, n=5 * len(cameras)).c2w  # one transition more: back to the first
    torch.testing.assert_close(looped[: 5 * len(counts), :3], case.output("poses"), atol=1e-5, rtol=0)
    torch.testing.assert_close(looped[-1], cameras.c2w[0], atol=1e-5, rtol=0)


CHECKS: dict[str, Callable[[Case], None]] = {
    "kh_camera_paths": check_unofficial,
    "off_interpolate_poses": check_official,
}
