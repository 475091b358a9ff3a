"""What scene_lifting computes, against the original's recorded outputs (specs/scene_lifting)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.parity import (
    scene_lifting_benchmark,
    scene_lifting_data,
    scene_lifting_gaussians,
    scene_lifting_generation,
    scene_lifting_network,
    scene_lifting_points,
    scene_lifting_training,
)
from tests.parity.cases import Case, case_name, collect, parity_folder

CHECKS: dict[str, Callable[[Case], None]] = {
    **scene_lifting_network.CHECKS,
    **scene_lifting_training.CHECKS,
    **scene_lifting_data.CHECKS,
    **scene_lifting_points.CHECKS,
    **scene_lifting_generation.CHECKS,
    **scene_lifting_gaussians.CHECKS,
    **scene_lifting_benchmark.CHECKS,
}
# kinds whose cases are too large to ship with the tests
LARGE = {
    "attractor_unnormed_inv_mean",
    "conditional_log_binomial",
    "depth_alignment",
    "depth_metrics",
    "edge_snap_and_fill",
    "gs_init",
    "gs_optimise",
    "hypersim_conversions",
    "hypersim_eval",
    "hypersim_pairs",
    "metric_head",
    "midas_beit_dpt_tiny",
    "occlusion_masks",
    "project_points",
    "render_points",
    "scannet_eval",
    "seed_bin_regressor_softplus",
    "stitch_stage",
    "train_sample",
    "train_step",
    "zoe_dc_full_tiny",
    "zoe_dc_inference",
}
CASES = collect("scene_lifting", {})


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_agrees_with_the_original(case: Case) -> None:
    assert case.kind in CHECKS, f"no check understands the kind {case.kind!r}"
    with torch.set_grad_enabled(case.kind in ("train_step", "gs_optimise")):
        CHECKS[case.kind](case)
    case.finish()


def test_every_check_has_a_case() -> None:
    shipped = parity_folder() == Path(__file__).resolve().parent / "fixtures"
    assert {case.kind for case in CASES} == set(CHECKS) - (LARGE if shipped else set())
