"""What scene_lifting computes, against the original's recorded outputs (specs/scene_lifting)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from tests.parity import scene_lifting_network, scene_lifting_training
from tests.parity.cases import Case, case_name, collect

CHECKS: dict[str, Callable[[Case], None]] = {**scene_lifting_network.CHECKS, **scene_lifting_training.CHECKS}
NOT_BUILT: dict[str, str] = {}
CASES = [case for case in collect("scene_lifting", NOT_BUILT) if case.kind in CHECKS]


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_agrees_with_the_original(case: Case) -> None:
    assert case.kind in CHECKS, f"no check understands the kind {case.kind!r}"
    with torch.set_grad_enabled("train" in case.kind):
        CHECKS[case.kind](case)
    case.finish()
