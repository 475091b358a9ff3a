"""Edges of depth maps: masks, filling and snapping."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.scene_lifting import fill_by_search
from geometry.depth_edges import depth_steps, dilate_isotropic, erode, fill_from_known, snap_edges


def test_erosion_takes_what_the_footprint_leaves() -> None:
    mask = torch.ones(7, 9, dtype=torch.bool)
    assert erode(mask, 3).all()  # the image's border counts as set
    mask[3, 4] = False
    assert (~erode(mask, "cross")).nonzero().tolist() == [[2, 4], [3, 3], [3, 4], [3, 5], [4, 4]]
    assert (~erode(mask, 1)).sum() == 5
    assert (~erode(mask, 2)).sum() == 13
    assert torch.equal(erode(mask, 0), mask)


def test_dilation_is_round() -> None:
    mask = torch.zeros(7, 9, dtype=torch.bool)
    assert not dilate_isotropic(mask, 2).any()
    mask[3, 4] = True
    assert dilate_isotropic(mask, 1).sum() == 5
    assert dilate_isotropic(mask, 1.5).sum() == 9
    assert dilate_isotropic(mask, 2).sum() == 13


def test_the_farther_side_wins() -> None:
    values = torch.tensor([[1.0, 0, 0, 5.0]]).expand(3, 4).contiguous()
    filled = fill_from_known(values, values > 0)
    assert filled[1].tolist() == [1, 1, 5, 5]
    both = torch.tensor([[1.0, 0, 5.0]])
    assert fill_from_known(both, both > 0).tolist() == [[1, 5, 5]]


def test_unknown_numbers_are_passed_over() -> None:
    values = torch.tensor([[torch.nan, 0.0, 2.0], [torch.nan, 0.0, 1.0]])
    known = torch.tensor([[True, False, True], [True, False, True]])
    assert fill_from_known(values, known)[:, 1].tolist() == [2, 2]


def test_filling_needs_something_known() -> None:
    values = torch.rand(4, 5)
    assert torch.equal(fill_from_known(values, torch.zeros(4, 5, dtype=torch.bool)), values)
    filled = fill_from_known(values, torch.ones(4, 5, dtype=torch.bool))
    assert torch.equal(filled, values)
    assert filled.data_ptr() != values.data_ptr()


@given(seed=st.integers(0, 10**6), share=st.floats(0.02, 0.9), channels=st.sampled_from([None, 1, 3]))
@settings(max_examples=40, deadline=None)
def test_filling_agrees_with_the_search(seed: int, share: float, channels: int | None) -> None:
    generator = torch.Generator().manual_seed(seed)
    shape = (13, 17) if channels is None else (13, 17, channels)
    values = torch.rand(shape, generator=generator)
    known = torch.rand(13, 17, generator=generator) < share
    known[0, 0] = True
    assert torch.equal(fill_from_known(values, known), fill_by_search(values, known))


def test_known_pixels_may_be_eroded_first() -> None:
    values = torch.ones(9, 9)
    values[:, 4:] = 3.0
    values[:, 4] = 2.0  # known, but smeared: it lies beside an unknown pixel
    known = torch.ones(9, 9, dtype=torch.bool)
    known[:, 3] = False
    assert (fill_from_known(values, known)[:, 4] == 2).all()
    assert (fill_from_known(values, known, erosion=1)[:, 4] == 3).all()


def test_snapping_leaves_two_levels_of_a_smeared_step() -> None:
    profile = torch.tensor([1.0] * 10 + [1.25, 1.5, 1.75] + [2.0] * 10)
    snapped = snap_edges(profile.expand(16, -1).contiguous())
    assert set(snapped.unique().tolist()) == {1.0, 2.0}
    assert (snapped[:, 1:] >= snapped[:, :-1]).all()


def test_gentle_slopes_are_kept() -> None:
    ramp = torch.linspace(1, 2, 64).expand(32, -1).contiguous()
    assert int(depth_steps(ramp).max()) in (8, 9)
    assert torch.equal(snap_edges(ramp), ramp)
    assert torch.equal(snap_edges(ramp, threshold=5), ramp)  # nothing is known that could fill it
    ramp[:, 40:] = ramp[:, 40:41]
    assert not torch.equal(snap_edges(ramp, threshold=5), ramp)


def test_a_constant_map_is_returned() -> None:
    flat = torch.full((5, 6), 2.0)
    assert torch.equal(snap_edges(flat), flat)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_kind_of_numbers_is_kept(dtype: torch.dtype) -> None:
    depth = torch.rand(8, 9, dtype=dtype)
    assert snap_edges(depth, 100).dtype == dtype
