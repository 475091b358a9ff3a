"""Choosing among samples, and undoing the padding: what is right, and what the original does."""

import numpy as np
import pytest
import torch
from PIL import Image

from dataloader.images import resize_with_padding
from methods.warp_diffusion.best_frame import (
    best_frame,
    content_crop,
    frame_errors,
    original_content_crop,
    wrapped_best_frame,
    wrapped_frame_errors,
)


def _samples() -> tuple[torch.Tensor, torch.Tensor]:
    """A warp [3, 6, 8] uint8 with a hole, and three samples of it that are 40, 5 and 16 levels off."""
    warp = torch.full((3, 6, 8), 100, dtype=torch.uint8)
    warp[:, :2] = 0
    offsets = torch.tensor([40, 5, 16], dtype=torch.uint8)
    return warp[None] + offsets[:, None, None, None], warp


def test_the_closest_sample_is_chosen() -> None:
    frames, warp = _samples()
    assert frame_errors(frames, warp).tolist() == [1600, 25, 256]
    assert best_frame(frames, warp) == 1
    assert best_frame(frames / 255, warp / 255) == 1


def test_eight_bits_wrap_around() -> None:
    frames, warp = _samples()
    assert wrapped_frame_errors(frames, warp).tolist() == [1600 % 256, 25, 0]
    assert wrapped_best_frame(frames, warp) == 2


def test_only_covered_pixels_count() -> None:
    frames, warp = _samples()
    frames[1, :, :2] = 255  # in the hole
    assert best_frame(frames, warp) == 1
    coverage = torch.ones(1, 6, 8)
    assert best_frame(frames, warp, coverage) == 2


def test_an_empty_warp_takes_the_first() -> None:
    frames, warp = _samples()
    assert frame_errors(frames, torch.zeros_like(warp)).tolist() == [0, 0, 0]
    assert best_frame(frames, torch.zeros_like(warp)) == 0
    assert wrapped_best_frame(frames, torch.zeros_like(warp)) == 0


def test_wrong_arguments_are_refused() -> None:
    frames, warp = _samples()
    with pytest.raises(ValueError, match="frames are"):
        best_frame(frames[..., 1:], warp)
    with pytest.raises(ValueError, match="coverage is"):
        best_frame(frames, warp, torch.ones(6, 8))
    with pytest.raises(ValueError, match="8-bit"):
        wrapped_best_frame(frames / 255, warp)
    for crop in (content_crop, original_content_crop):
        with pytest.raises(ValueError, match="does not fit"):
            crop(300, 256)


@pytest.mark.parametrize("size", [(1800, 1170), (1170, 1800), (1800, 1174), (97, 33), (50, 50)])
def test_content_crop_undoes_the_padding(size: tuple[int, int]) -> None:
    colours = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    padded, unpadded, _ = resize_with_padding(Image.fromarray(colours), 64)
    rows, columns = content_crop(unpadded.height, unpadded.width, 64)
    np.testing.assert_array_equal(np.asarray(padded)[rows, columns], np.asarray(unpadded))


def test_the_original_crop_is_off_for_odd_padding() -> None:
    for crop in (content_crop, original_content_crop):
        assert crop(166, 256) == (slice(45, 211), slice(0, 256))
        assert crop(256, 166) == (slice(0, 256), slice(45, 211))
    assert content_crop(167, 256)[0] == slice(44, 211)
    assert original_content_crop(167, 256)[0] == slice(45, 211)
    assert original_content_crop(256, 167)[1] == slice(45, 211)
