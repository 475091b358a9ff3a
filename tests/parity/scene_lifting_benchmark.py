"""The geometry benchmark against the original's recorded numbers (specs/scene_lifting 5 and 6)."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor

from engine.depth_metrics import Crop, validation_scores
from geometry.cameras import Cameras
from geometry.depth_alignment import fit_descent
from tests.parity.cases import Case


def camera_of(case: Case, pose: str) -> Cameras:
    """The camera of a recorded ScanNet frame."""
    depth = next(case.input(name) for name in case.inputs() if "depth" in name)
    return Cameras(case.input("intrinsic")[:3, :3], case.input(pose), *depth.shape)


def check_alignment(case: Case) -> None:
    new, previous = case.input("new_depth"), case.input("previous_depth")
    fit = fit_descent(
        new, previous, previous > 0, camera_of(case, "pose_c2w"), case.config["initial_offset"]
    )
    atol = case.meta["tolerance"]["atol"]
    case.close("scale_offset", torch.tensor([fit.scale, fit.offset]), atol=atol)
    case.close("aligned", fit(new)[::4, ::4], atol=atol)


def check_metrics(case: Case) -> None:
    def enlarged(name: str) -> Tensor:
        return torch.nn.functional.interpolate(case.input(name), (480, 640), mode="nearest")

    depths = {"eigen_resized": case.input("pred_resized")}
    config = case.config
    for name in ("eigen", "garg", "eigen_kitti", "eigen_resized"):
        scores = validation_scores(
            depths.get(name, enlarged("pred_small")),
            enlarged("gt_small"),
            cast("Crop", name.removesuffix("_resized")),
            config["min_depth_eval"],
            config["max_depth_eval"],
        )
        for score, value in scores.items():
            case.close(f"{name}.{score}", value, **case.meta["tolerance"])


CHECKS: dict[str, Callable[[Case], None]] = {
    "depth_alignment": check_alignment,
    "depth_metrics": check_metrics,
}
