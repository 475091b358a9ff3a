"""Training samples of depth completion: what the draws decide, and what the original got wrong."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import UserError
from dataloader.depth.samples import Draws, SampleSettings, draw, make_sample
from tests.dataloader.depth.files import photo, relief

PLAIN = Draws(inpaint=0.9, scale=0.5, flip=0.1, augment=0.1)
WHOLE = SampleSettings(crop=False)


def half_hole(height: int = 24, width: int = 32) -> np.ndarray:
    """The left third is hidden."""
    hole = np.zeros((height, width), np.uint8)
    hole[:, : width // 3] = 1
    return hole


def test_a_plain_sample_is_told_nothing() -> None:
    sample = make_sample(photo(0, 48, 64), relief(), None, PLAIN, WHOLE)
    assert sample.image.shape == (3, 48, 64)
    np.testing.assert_allclose(sample.image.permute(1, 2, 0) * 255, photo(0, 48, 64), atol=1e-4)
    np.testing.assert_array_equal(sample.depth[0], relief())
    for hidden in (sample.keep, sample.masked_depth):
        assert hidden.shape == (1, 48, 64)
        assert not hidden.any()
    assert sample.valid.all()


def test_an_inpainting_sample_keeps_what_no_hole_hides() -> None:
    draws = replace(PLAIN, inpaint=0.49)
    sample = make_sample(photo(0, 48, 64), relief(), half_hole(), draws, WHOLE)
    assert not sample.keep[0, :, :20].any()
    assert sample.keep[0, :, 20:].all()
    torch.testing.assert_close(sample.masked_depth, sample.depth * sample.keep)
    ratio = sample.depth[0] / torch.from_numpy(relief())
    torch.testing.assert_close(ratio, torch.full_like(ratio, float(ratio[0, 0])))
    low, high = 1e-3 / 0.1, 10.0
    assert float(ratio[0, 0]) == pytest.approx(0.5 * (high - low) + low, rel=1e-5)


def test_depth_keeps_its_scale_where_it_is_asked_to() -> None:
    unscaled = SampleSettings(crop=False, rescale=False)
    sample = make_sample(photo(0, 48, 64), relief(), half_hole(), replace(PLAIN, inpaint=0.0), unscaled)
    np.testing.assert_array_equal(sample.depth[0], relief())
    with pytest.raises(ValueError, match="needs a hole mask"):
        make_sample(photo(0, 48, 64), relief(), None, replace(PLAIN, inpaint=0.0), unscaled)


def test_masks_turn_with_the_photo() -> None:
    draws = replace(PLAIN, inpaint=0.0, flip=0.51)
    args = photo(0, 48, 64), relief(), half_hole()
    straight = make_sample(*args, replace(draws, flip=0.5), WHOLE)
    turned = make_sample(*args, draws, WHOLE)
    for name in ("image", "depth", "masked_depth", "keep", "valid"):
        torch.testing.assert_close(getattr(turned, name), getattr(straight, name).flip(-1))
    original = make_sample(*args, draws, SampleSettings(crop=False, flip_masks=False))
    torch.testing.assert_close(original.keep, straight.keep)
    torch.testing.assert_close(original.depth, turned.depth)


def test_the_white_border_is_cut_off() -> None:
    depth = np.zeros((480, 640), np.float32)
    depth[8:472, 8:632] = 0.5
    sample = make_sample(photo(0, 480, 640), depth, None, PLAIN, SampleSettings())
    assert sample.image.shape == (3, 464, 624)
    assert (sample.depth == 0.5).all()


def test_colours_change_but_stay_colours() -> None:
    draws = replace(PLAIN, augment=0.51, gamma=1.1, brightness=1.05, color=(0.9, 1.0, 1.1))
    sample = make_sample(photo(0, 48, 64), relief(), None, draws, WHOLE)
    expected = (photo(0, 48, 64) / 255.0) ** 1.1 * 1.05 * np.array([0.9, 1.0, 1.1])
    np.testing.assert_allclose(sample.image.permute(1, 2, 0), expected.clip(0, 1), atol=1e-6)


def test_a_zero_in_the_depth_spoils_the_originals_sample_only() -> None:
    depth = relief()
    depth[0, 0] = 0
    draws = replace(PLAIN, inpaint=0.0)
    original = SampleSettings(crop=False, scaling="original", flip_masks=False, mask_zeros=False)
    spoiled = make_sample(photo(0, 48, 64), depth, half_hole(), draws, original)
    assert not spoiled.depth.isfinite().all()
    sample = make_sample(photo(0, 48, 64), depth, half_hole(), draws, WHOLE)
    assert sample.depth.isfinite().all()
    assert sample.depth[0, 24:40, 24:40].std() > 0.01


def test_the_scales_range_never_turns_round() -> None:
    """The original's lower bound exceeds the upper one for depth that is tiny somewhere, and saturates it."""
    depth = relief()
    depth[:4] = 1e-6
    draws = replace(PLAIN, inpaint=0.0, scale=0.0)
    sample = make_sample(photo(0, 48, 64), depth, half_hole(), draws, WHOLE)
    assert sample.depth.max() <= 10
    original = make_sample(
        photo(0, 48, 64), depth, half_hole(), draws, SampleSettings(crop=False, scaling="original")
    )
    assert (original.depth[0, 8:] == 10).all()
    assert (sample.depth[0, 8:] < 10.001).all()
    assert sample.depth[0, 8:].std() > 0.5


def test_zeros_are_no_ground_truth() -> None:
    depth = relief()
    depth[:4] = 0
    sample = make_sample(photo(0, 48, 64), depth, None, PLAIN, WHOLE)
    assert not sample.valid[0, :4].any()
    assert sample.valid[0, 4:].all()
    original = SampleSettings(crop=False, mask_zeros=False)
    assert make_sample(photo(0, 48, 64), depth, None, PLAIN, original).valid.all()


def test_depth_without_any_is_refused() -> None:
    draws = replace(PLAIN, inpaint=0.0)
    with pytest.raises(ValueError, match="0 everywhere"):
        make_sample(photo(0, 48, 64), np.zeros((48, 64), np.float32), half_hole(), draws, WHOLE)
    with pytest.raises(ValueError, match="its depth"):
        make_sample(photo(0, 48, 64), relief(48, 63), None, PLAIN, WHOLE)


@given(seed=st.integers(0, 10**6), power=st.floats(0.1, 6), flip=st.booleans())
@settings(max_examples=40, deadline=None)
def test_samples_stay_in_range(seed: int, power: float, flip: bool) -> None:
    """Whatever the depth's distribution, rescaled depth is in range and what is told is true."""
    rng = np.random.default_rng(seed)
    depth = (rng.random((24, 32)) ** power).astype(np.float32)
    hole = rng.integers(0, 2, (rng.integers(1, 40), rng.integers(1, 40)), np.uint8)
    draws = replace(draw(torch.Generator().manual_seed(seed)), inpaint=0.0, flip=float(flip))
    sample = make_sample(photo(seed, 24, 32), depth, hole, draws, WHOLE)
    assert sample.depth.min() >= 1e-3 * (1 - 1e-6)
    assert sample.depth.max() <= 10 * (1 + 1e-6)
    assert set(sample.keep.unique().tolist()) <= {0.0, 1.0}
    assert ((sample.masked_depth == sample.depth) | (sample.masked_depth == 0)).all()
    assert sample.image.min() >= 0
    assert sample.image.max() <= 1


def test_draws_are_functions_of_the_generator() -> None:
    drawn = [draw(torch.Generator().manual_seed(seed)) for seed in range(400)]
    assert drawn[3] == draw(torch.Generator().manual_seed(3))
    factors = np.array([[d.gamma, d.brightness, *d.color] for d in drawn])
    assert factors.min() > 0.9
    assert factors.max() < 1.1
    assert np.abs(factors.mean(0) - 1).max() < 0.01
    share = np.mean([d.inpaints(SampleSettings()) for d in drawn])
    assert 0.4 < share < 0.6


def test_settings_are_checked() -> None:
    with pytest.raises(UserError, match="no range"):
        SampleSettings(min_depth=0)
    with pytest.raises(UserError, match="inpaint_probability"):
        SampleSettings(inpaint_probability=1.5)
