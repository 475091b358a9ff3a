"""What mask_volume computes, against the original's recorded outputs (specs/mask_volume)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.parity import mask_volume_data, mask_volume_losses, mask_volume_model, mask_volume_planes
from tests.parity.cases import Case, case_name, collect, parity_folder

CHECKS: dict[str, Callable[[Case], None]] = {
    **mask_volume_planes.CHECKS,
    **mask_volume_model.CHECKS,
    **mask_volume_losses.CHECKS,
    **mask_volume_data.CHECKS,
}
# kinds whose cases need the networks' weights, which are too large to ship with the tests
LARGE = set(mask_volume_model.CHECKS)
CASES = collect("mask_volume", {})


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_agrees_with_the_original(case: Case) -> None:
    assert case.kind in CHECKS, f"no check understands the kind {case.kind!r}"
    with torch.set_grad_enabled("train" in case.kind):
        CHECKS[case.kind](case)
    case.finish()


def test_every_check_has_a_case() -> None:
    shipped = parity_folder() == Path(__file__).resolve().parent / "fixtures"
    assert {case.kind for case in CASES} == set(CHECKS) - (LARGE if shipped else set())
