"""Framing: sizes, and images that stay where their cameras say; the originals' are in tests/parity."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import UserError
from dataloader.framed import framed
from dataloader.framing import Framing, frame_image
from dataloader.scene import Record, Scene
from dataloader.toy import make_boxes, make_cameras, render
from geometry.cameras import Cameras, pinhole


def ramp_photo(height: int, width: int) -> np.ndarray:
    """Red grows with x, green with y: colours say where a pixel was."""
    x = (np.arange(width) + 0.5) / width * 255
    y = (np.arange(height) + 0.5) / height * 255
    return (
        np.stack([np.tile(x, (height, 1)), np.tile(y[:, None], (1, width)), np.zeros((height, width))], -1)
        .round()
        .astype(np.uint8)
    )


def camera_of(height: int, width: int) -> Cameras:
    camera = pinhole(0.8 * width, height, width)
    camera.K[0, 2] += 3.7
    camera.K[1, 2] -= 1.9
    return camera


sizes = st.tuples(st.integers(20, 70), st.integers(20, 70))


@settings(max_examples=25, deadline=None)
@given(sizes, sizes)
def test_cover_keeps_rays_where_they_were(photo: tuple[int, int], size: tuple[int, int]) -> None:
    """A pixel of the result looks along the ray of the pixel of the photo that has its colour."""
    camera = camera_of(*photo)
    image, framed = frame_image(ramp_photo(*photo), camera, Framing(*size))
    assert image.shape == (*size, 3)
    assert (framed.height, framed.width) == size
    _, directions = framed.rays(unit=False)
    back = directions.reshape(-1, 3) @ camera.K.T  # through the camera as it was: all are at the origin
    height, width = photo
    x = image[..., 0].astype(float).ravel() / 255 * width
    y = image[..., 1].astype(float).ravel() / 255 * height
    inner = np.zeros(size, bool)
    inner[4:-4, 4:-4] = True  # Lanczos bends ramps at the borders
    off = np.hypot(back[:, 0].numpy() - x, back[:, 1].numpy() - y)[inner.ravel()]
    assert off.max() < 0.02 * max(photo) + 0.3


@given(sizes, st.integers(16, 64), st.sampled_from([4, 8]), st.booleans())
def test_official_sizes(photo: tuple[int, int], side: int, patch: int, square: bool) -> None:
    framing = Framing(side, style="official", patch=patch, square=square)
    image, camera = frame_image(ramp_photo(*photo), camera_of(*photo), framing)
    assert image.shape[:2] == (camera.height, camera.width) == framing.size(*photo)
    if square:
        assert camera.height == camera.width <= side
    else:
        assert (camera.height, camera.width % patch) == (side, 0)


def test_unofficial_leaves_principal_points_in_proportion() -> None:
    camera = camera_of(40, 60)
    image, framed = frame_image(ramp_photo(40, 60), camera, Framing(20, 20, "unofficial"))
    assert image.shape == (20, 20, 3)
    torch.testing.assert_close(framed.K[:2, 2] / 20, camera.K[:2, 2] / torch.tensor([60.0, 40.0]))
    with pytest.raises(UserError, match="does not enlarge"):
        frame_image(ramp_photo(40, 60), camera, Framing(20, 61, "unofficial"))


def test_a_framed_room_is_the_room_seen_by_the_framed_camera() -> None:
    boxes = make_boxes(0)
    cameras = make_cameras(0, 2, 48, 64, boxes)
    photos = render(boxes, cameras).images
    records = [
        Record(f"{i}", cameras[i], (photo * 255).round().byte().permute(1, 2, 0).numpy())
        for i, photo in enumerate(photos)
    ]
    scene = Scene("room", records)
    views = framed(scene, Framing(32, 32)).views([1, 0], threads=2)
    assert views.names == ["1", "0"]
    exact = render(boxes, views.cameras, supersample=2).images
    assert (views.images - exact).abs().mean() < 0.02
    shifted = Cameras(views.cameras.K.clone(), views.cameras.c2w, 32, 32)
    shifted.K[:, 0, 2] += 2
    assert (views.images - render(boxes, shifted, supersample=2).images).abs().mean() > 0.03
    torch.testing.assert_close(framed(scene, Framing(32, 32)).cameras([1, 0]).K, views.cameras.K)


def test_bad_input() -> None:
    with pytest.raises(UserError, match="must be at least 1"):
        Framing(0, 5)
    records = [Record(str(i), camera_of(20, 20 + 9 * i), ramp_photo(20, 20 + 9 * i)) for i in range(2)]
    scene = Scene("mixed", records)
    with pytest.raises(UserError, match="photos of several sizes"):
        framed(scene, Framing(16, style="official", square=False)).views([0, 1])
    assert framed(scene, Framing(16, 16)).views([0, 1]).images.shape == (2, 3, 16, 16)
    with pytest.raises(UserError, match="no view was chosen"):
        framed(scene, Framing()).views([])
