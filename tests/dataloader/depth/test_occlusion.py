"""Holes that open behind edges when the camera moves."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dataloader.depth.occlusion import draw_move, hole_mask


def block(height: int = 60, width: int = 80) -> torch.Tensor:
    """A wall at depth 1 with a block at 0.5 in its middle."""
    depth = torch.ones(height, width)
    depth[20:40, 30:50] = 0.5
    return depth


def test_who_stands_still_sees_no_hole() -> None:
    mask = hole_mask(block(), 0.0, 0.0, 1.0, radius=0.05)
    assert (mask.dtype, mask.shape, int(mask.sum())) == (np.uint8, (60, 80), 0)


@pytest.mark.parametrize(
    ("azimuth", "elevation", "where"),
    [
        # the camera goes right and turns left: what was hidden appears right of the block
        (10.0, 0.0, (slice(15, 45), slice(36, 70))),
        (-10.0, 0.0, (slice(15, 45), slice(10, 44))),
        # the camera rises: what was hidden appears above the block
        (0.0, 10.0, (slice(5, 33), slice(25, 55))),
        (0.0, -10.0, (slice(27, 55), slice(25, 55))),
    ],
)
def test_holes_open_on_the_side_that_comes_into_view(
    azimuth: float, elevation: float, where: tuple[slice, slice]
) -> None:
    mask = hole_mask(block(), azimuth, elevation, 1.0, radius=0.08)
    inner = mask[6:54, 8:72]  # without what comes in over the image's border
    assert mask[where].sum() > 20
    assert mask[where].sum() == inner.sum()


def test_a_wall_alone_has_no_hole_inside() -> None:
    mask = hole_mask(torch.ones(60, 80), 8.0, 5.0, 1.0, radius=0.08)
    assert mask[12:48, 16:64].sum() == 0
    assert mask.sum() > 0  # at the border, where the wall ends


def test_going_back_opens_a_frame() -> None:
    mask = hole_mask(torch.ones(60, 80), 0.0, 0.0, 1.1, radius=0.08)
    assert mask[0].all()
    assert mask[:, -1].all()
    assert mask[10:50, 10:70].sum() == 0


def test_only_maps_are_taken() -> None:
    with pytest.raises(ValueError, match=r"\[H, W\]"):
        hole_mask(torch.ones(1, 6, 8), 0, 0, 1)


def test_moves_are_small_and_of_their_generator() -> None:
    moves = np.array([draw_move(torch.Generator().manual_seed(seed)) for seed in range(300)])
    assert draw_move(torch.Generator().manual_seed(4)) == tuple(moves[4])
    assert (np.abs(moves[:, :2]) <= 15).all()
    assert (np.abs(moves[:, 2] - 1) <= 0.1).all()
    assert (moves.std(0) > [8, 8, 0.05]).all()
    assert np.abs(moves.mean(0) - [0, 0, 1]).max() < 1.5
