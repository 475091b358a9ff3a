"""Where photos lie on square canvases."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dataloader.canvas import fit_canvas, mask_on_canvas, on_canvas
from dataloader.images import resize_with_padding


@given(st.integers(1, 300), st.integers(1, 300), st.sampled_from([32, 64]))
@settings(max_examples=40, deadline=None)
def test_a_canvas_says_where_the_photo_was_pasted(height: int, width: int, size: int) -> None:
    _, unpadded, (left, top) = resize_with_padding(Image.new("RGB", (width, height)), size)
    canvas = fit_canvas(height, width, size)
    assert (canvas.left, canvas.top, canvas.width, canvas.height) == (left, top, *unpadded.size)


@pytest.mark.parametrize(("height", "width"), [(45, 70), (70, 45), (50, 50)])
def test_photos_lie_on_white_and_masks_on_nothing(height: int, width: int) -> None:
    grey = np.full((height, width, 3), 100, np.uint8)
    canvas = fit_canvas(height, width, 64)
    inside = torch.zeros(1, 64, 64)
    canvas.cut(inside).fill_(1)
    image = on_canvas(grey, 64)
    torch.testing.assert_close(image, torch.where(inside > 0, 100 / 255, 1.0).expand(3, -1, -1))
    torch.testing.assert_close(mask_on_canvas(np.full((height, width), 255, np.uint8), 64), inside)
