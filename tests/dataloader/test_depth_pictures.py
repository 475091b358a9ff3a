"""Depth maps as pictures."""

from __future__ import annotations

import numpy as np
import torch

from dataloader.depth_pictures import depth_picture


def test_near_is_red_far_is_blue_and_unknown_is_black() -> None:
    depth = torch.linspace(1, 8, 400).expand(5, 400).clone()
    depth[0, :7] = torch.tensor([0.0, -1.0, torch.nan, torch.inf, -torch.inf, 0.0, 0.0])
    picture = depth_picture(depth)
    assert picture.shape == (5, 400, 3)
    assert picture.dtype == np.uint8
    assert not picture[0, :7].any()
    assert picture[1:].any(-1).all()
    near, far = picture[2, 0].astype(int), picture[2, -1].astype(int)
    assert near[0] > near[2]
    assert far[2] > far[0]


def test_the_unit_and_a_few_wild_pixels_change_nothing() -> None:
    depth = 1 + torch.rand(40, 50, generator=torch.Generator().manual_seed(0))
    wild = depth.clone()
    wild[0, :3] = torch.tensor([1e-4, 1e6, 1e5])
    assert np.array_equal(depth_picture(depth), depth_picture(depth * 1024))
    assert np.abs(depth_picture(depth)[1:].astype(int) - depth_picture(wild)[1:]).max() < 12


def test_flat_and_empty_maps() -> None:
    assert depth_picture(torch.full((3, 4), 2.0)).any(-1).all()
    assert not depth_picture(torch.zeros(3, 4)).any()
