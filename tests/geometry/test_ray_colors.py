"""Colours of rays: what they say of direction and length, and the recorded ones of the original."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from geometry.ray_colors import ray_colors
from tests.parity.cases import Case
from tests.parity.lvsm_colors import CHECKS


def test_colours_say_direction_and_length() -> None:
    vectors = torch.tensor([[2.0, 0, 0], [0, -1.0, 0], [0, 0, 0]]).T[:, None]  # [3, 1, 3]
    colors = ray_colors(vectors)[:, 0].T
    torch.testing.assert_close(colors[0], torch.tensor([0.9, 0.5, 0.5]))
    torch.testing.assert_close(colors[1], torch.tensor([0.5, 0.1, 0.5]) * 0.55)
    torch.testing.assert_close(colors[2], torch.full((3,), 0.05))


def test_colours_do_not_depend_on_the_unit() -> None:
    vectors = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    colors = ray_colors(vectors)
    torch.testing.assert_close(colors, ray_colors(7 * vectors))
    assert colors.min() >= 0.01
    assert colors.max() <= 0.9


def test_nothing_at_all_is_grey() -> None:
    assert torch.isfinite(ray_colors(torch.zeros(3, 2, 2))).all()


def test_the_original_drew_the_same(parity_dir: Path) -> None:
    path = parity_dir / "lvsm" / "kh_plucker_colormap.safetensors"
    if not path.exists():
        pytest.skip(f"{path} is absent")
    case = Case(path)
    CHECKS[case.kind](case)
    case.finish()
