"""Fixtures several test files share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

_ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session", autouse=True)
def _two_threads() -> None:
    """The thread count decides the order of sums: fix it, so that numbers do not depend on the machine."""
    torch.set_num_threads(2)


@pytest.fixture(scope="session")
def repo_root() -> Path:
    """The folder that holds train.py."""
    return _ROOT


@pytest.fixture(scope="session")
def parity_data() -> Path:
    """The shared data sets ($PARITY_DATA); skips the test where they are absent."""
    return _shared("PARITY_DATA", "data")


@pytest.fixture(scope="session")
def parity_dir() -> Path:
    """The recorded outputs of the originals ($PARITY_DIR); skips the test where they are absent."""
    return _shared("PARITY_DIR", "parity")


def _shared(variable: str, name: str) -> Path:
    folder = Path(os.environ.get(variable, _ROOT.parent / "shared" / name))
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent: set ${variable}")
    return folder
