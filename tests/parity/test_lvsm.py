"""What both LVSM code lines compute, against their recorded outputs (specs/lvsm)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from geometry.cameras import Cameras
from methods.lvsm.normalise import official_frame, source_frame
from tests.parity import lvsm_colors, lvsm_data, lvsm_losses, lvsm_model, lvsm_paths, lvsm_training
from tests.parity.cases import Case, case_name, collect, parity_folder


def to_source_frame(source: Cameras, target: Cameras) -> tuple[Cameras, Cameras]:
    frame = source_frame(source)
    return frame(source), frame(target)


def to_official_frame(views: Cameras) -> Cameras:
    return official_frame(views)(views)


CHECKS: dict[str, Callable[[Case], None]] = {
    **lvsm_model.CHECKS,
    **lvsm_training.CHECKS,
    **lvsm_losses.CHECKS,
    **lvsm_paths.CHECKS,
    **lvsm_colors.CHECKS,
    **lvsm_data.checks(to_source_frame, to_official_frame),
}
# kinds whose cases are too large to ship with the tests, or need ../shared/data
LARGE = {
    "kh_decoder",
    "kh_dataset_items",
    "kh_train_steps",
    "kh_vae_latent",
    "off_dataset_items",
    "off_decoder_only",
    "off_encoder_decoder",
    "off_process_data",
    "off_train_steps",
}
CASES = collect("lvsm", {})


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_agrees_with_the_original(case: Case) -> None:
    assert case.kind in CHECKS, f"no check understands the kind {case.kind!r}"
    with torch.set_grad_enabled("train" in case.kind):
        CHECKS[case.kind](case)
    case.finish()


def test_every_check_has_a_case() -> None:
    shipped = parity_folder() == Path(__file__).resolve().parent / "fixtures"
    assert {case.kind for case in CASES} == set(CHECKS) - (LARGE if shipped else set())
