"""What both LVSM code lines compute, against their recorded outputs (specs/lvsm)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.parity import lvsm_model, lvsm_training
from tests.parity.cases import Case, case_name, collect, parity_folder

CHECKS: dict[str, Callable[[Case], None]] = {**lvsm_model.CHECKS, **lvsm_training.CHECKS}
# kinds whose cases are too large to ship with the tests
LARGE = {"off_decoder_only", "off_encoder_decoder", "kh_vae_latent", "off_train_steps", "kh_train_steps"}
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
