"""Clips: moments as scenes, cuts, and what they refuse."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from common.errors import UserError
from geometry.cameras import pinhole
from tests.dataloader.rig.makers import make_clip


def test_a_moment_is_a_scene() -> None:
    clip = make_clip(3, 4)
    scene = clip.scene(2)
    assert (scene.name, scene.names, len(clip), clip.size) == ("00002", clip.names, 4, (12, 16))
    assert scene.records[1].bounds == (2.0, 11.0)
    views = scene.views()
    assert views.foreground is not None
    assert views.background is not None
    for c in range(3):
        assert torch.equal(views.images[c], torch.from_numpy(clip.photos[c][2]).permute(2, 0, 1) / 255)
        assert torch.equal(views.background[c], torch.from_numpy(clip.plates[c]).permute(2, 0, 1) / 255)
        assert torch.equal(views.foreground[c, 0], torch.from_numpy(clip.mattes[c][2]).float())
    halves = scene.views([0, 2], size=(6, 8))
    assert halves.images.shape == halves.background.shape == (2, 3, 6, 8)
    assert halves.foreground.shape == (2, 1, 6, 8)


def test_plane_bounds_suit_all_cameras() -> None:
    assert make_clip(3).plane_bounds() == (0.9, 24.0)


def test_cut() -> None:
    clip = make_clip(2, 7)
    cut = clip.cut(1, 6, 2)
    assert list(cut.frames) == [1, 3, 5]
    assert [scene.name for scene in map(cut.scene, range(3))] == ["00001", "00003", "00005"]
    assert np.array_equal(cut.record(1, 2).load(), clip.photos[1][5])
    assert np.array_equal(cut.record(1, 2).load_foreground(), clip.mattes[1][5])
    assert clip.cut() is clip
    assert list(cut.cut(1).frames) == [3, 5]


@pytest.mark.parametrize("words", [(7, 0), (3, 3), (0, 8), (-1, 4), (0, 0, 0)])
def test_cuts_that_choose_nothing(words: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match="small has 7 moments"):
        make_clip(2, 7).cut(*words)


def test_bad_clips() -> None:
    clip = make_clip(3)
    with pytest.raises(UserError, match="small has 1 camera: a rig needs at least 2"):
        make_clip(1)
    with pytest.raises(UserError, match="cam02 films in 8x6, cam00 in 16x12"):
        replace(clip, cameras=[*clip.cameras[:2], pinhole(9, 6, 8)])
    with pytest.raises(UserError, match="cam01 has 3 photos for 4 moments"):
        replace(clip, photos=[clip.photos[0], clip.photos[1][:3], clip.photos[2]])
    with pytest.raises(UserError, match="cam00 has 2 mattes for 4 moments"):
        replace(clip, mattes=[matte[:2] for matte in clip.mattes])
    with pytest.raises(UserError, match="2 background plates for 3 cameras"):
        replace(clip, plates=clip.plates[:2])
    with pytest.raises(UserError, match="no photo"):
        replace(clip, photos=[[], [], []], mattes=None, frames=())
    clip.need_plates()
    with pytest.raises(UserError, match="small has no background plates: give their folder"):
        replace(clip, plates=None).need_plates()
