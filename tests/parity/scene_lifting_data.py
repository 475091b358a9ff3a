"""Training samples and occlusion masks of depth completion, against recorded ones (specs/scene_lifting 4)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from dataloader.depth.occlusion import hole_mask
from dataloader.depth.samples import Draws, SampleSettings, make_sample
from geometry.depth_edges import snap_edges
from tests.parity.cases import Case


def recorded_draws(recorded: dict[str, Any]) -> Draws:
    """What the recorder fixed; choices that its sample never asked for are left at theirs."""
    asked = {name: recorded[name] for name in ("gamma", "brightness") if recorded[name] is not None}
    if recorded["color"]:
        red, green, blue = recorded["color"]
        asked["color"] = (red, green, blue)
    scale = 0.0 if recorded["scale_draw"] is None else recorded["scale_draw"]
    return Draws(recorded["inpaint_draw"], scale, recorded["flip_draw"], recorded["augment_draw"], **asked)


def check_samples(case: Case) -> None:
    config, tolerance = case.config, case.meta["tolerance"]
    settings = SampleSettings(
        config["min_depth"],
        config["max_depth"],
        config["inpaint_task_probability"],
        scaling="original",
        flip_masks=False,
        mask_zeros=False,
    )
    photo, depth = case.input("image").numpy(), case.input("marigold_depth").numpy()
    for name, recorded in config["draws"].items():
        draws = recorded_draws(recorded)
        sample = make_sample(photo, depth, case.input("hole_mask").numpy(), draws, settings)
        case.close(f"{name}.image", sample.image, **tolerance)
        case.close(f"{name}.depth", sample.depth, **tolerance)
        case.close(f"{name}.masked_depth", sample.masked_depth.permute(1, 2, 0), **tolerance)
        case.close(f"{name}.mask", sample.valid, **tolerance)


def check_masks(case: Case) -> None:
    config, depth = case.config, case.input("depth")
    snapped = snap_edges(depth, 15, 3)
    torch.testing.assert_close(snapped, case.tensors["mid.snapped"], atol=1e-6, rtol=0)
    made = hole_mask(depth, config["azim"], config["elev"], config["dist"], config["radius"])
    recorded = case.output("hole_mask").numpy()
    assert made.shape == recorded.shape
    assert made.dtype == recorded.dtype
    assert (made != recorded).mean() <= 0.003  # the tolerance that the case records in words


CHECKS: dict[str, Callable[[Case], None]] = {
    "train_sample": check_samples,
    "occlusion_masks": check_masks,
}
