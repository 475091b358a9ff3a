"""Procedural rooms for depth completion: exact depth, and what another camera knows of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dataloader.depth.rooms import RoomDepths, _choose_pair
from dataloader.toy import make_boxes, make_cameras, render, render_depth
from geometry.warp import locate


@pytest.fixture(scope="module")
def rooms() -> RoomDepths:
    return RoomDepths(range(5, 11), 48, 64)


def test_items_are_of_the_kinds_promised(rooms: RoomDepths) -> None:
    assert len(rooms) == 6
    assert rooms.name(2) == "room7"
    for index in range(len(rooms)):
        photo, depth, seen = rooms.load(index)
        assert (photo.dtype, photo.shape) == (np.uint8, (48, 64, 3))
        assert (depth.dtype, depth.shape) == (np.float32, (48, 64))
        assert (seen.dtype, seen.shape) == (np.float32, (48, 64))
        assert 0 < depth.min() < depth.max() < 10
        assert 0.2 < (seen > 0).mean() < 0.99


def test_depth_and_photo_are_the_rooms(rooms: RoomDepths) -> None:
    photo, depth, _ = rooms.load(1)
    boxes = make_boxes(6, 6)
    here, there = _choose_pair(6)
    assert 0 < abs(here - there) <= 3
    views = render(boxes, make_cameras(6, 8, 48, 64, boxes)[here : here + 1])
    assert views.depth is not None
    assert np.abs(depth - views.depth[0, 0].numpy()).max() <= 0.5 / 5000 + 1e-6
    assert np.abs(photo / 255 - views.images[0].permute(1, 2, 0).numpy()).max() <= 0.5 / 255 + 1e-6


def test_what_is_known_is_what_the_other_camera_sees(rooms: RoomDepths) -> None:
    """Where both cameras see the same, the known depth is the true one; outside its image most is unknown."""
    errors, outside_known = [], []
    for index, seed in enumerate(rooms.seeds):
        _, depth, seen = (torch.from_numpy(part) for part in rooms.load(index))
        boxes = make_boxes(seed, 6)
        cameras = make_cameras(seed, 8, 48, 64, boxes)
        here, there = (cameras[view] for view in _choose_pair(seed))
        points = here.unproject(render_depth(boxes, here).double()).reshape(-1, 3)
        pixels, z, inside = (part[0].reshape(48, 64, -1) for part in locate(points, there[None]))
        column, row = pixels.floor().long().unbind(-1)
        ahead = render_depth(boxes, there)[row.clamp(0, 47), column.clamp(0, 63)]
        shared = inside[..., 0] & (z[..., 0] < ahead * 1.02) & (seen > 0)
        errors.append(float(((seen - depth).abs() / depth)[shared].median()))
        if (~inside[..., 0]).any():
            outside_known.append(float((seen > 0)[~inside[..., 0]].double().mean()))
    assert max(errors) < 0.02
    assert np.mean(outside_known) < 0.25


def test_items_are_functions_of_their_seed(rooms: RoomDepths) -> None:
    again = RoomDepths([8, 5], 48, 64)
    for ours, theirs in zip(again.load(0), rooms.load(3), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert not np.array_equal(again.load(0)[0], again.load(1)[0])
    assert again.load(0)[0] is again.load(0)[0]
