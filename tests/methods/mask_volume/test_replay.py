"""The original's schedule: every exact speed-up leaves its frames as they are, and they are ours."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor

from common.errors import UserError
from dataloader.rig.toy import ToyFilm, open_rig
from engine.config import DataConfig
from engine.film import clip_views
from geometry.cameras import Cameras, stack_cameras
from geometry.rig_paths import circle
from geometry.views import Views
from methods.mask_volume.config import MaskVolumeConfig
from methods.mask_volume.method import MaskVolume
from methods.mask_volume.replay import SPEEDUPS, Replay, Ways, published_settings, scatter

MOMENTS = [0, 1, 0]
NAMES = list(SPEEDUPS)


@cache
def scene() -> tuple[MaskVolume, list[Views], Cameras]:
    """A model, two moments of a clip, and three poses."""
    torch.manual_seed(0)
    config = published_settings()
    config.planes, config.width = 8, 4
    method = MaskVolume.create(config)
    scatter(method.model)
    method.prepare_inference()
    clip = open_rig(ToyFilm(1, 2, 22, 36, 4))
    views = [method.views(clip.scene(moment), [1, 2], DataConfig()) for moment in range(2)]
    return method, views, circle(stack_cameras(clip.cameras), clip.plane_bounds(), 2)[:3]


@cache
def frames(name: str) -> Tensor:
    """[3, 3, H, W], by the number of the pose."""
    method, views, path = scene()
    made = dict(Replay(method.model, SPEEDUPS[name]).film(views.__getitem__, path, MOMENTS))
    return torch.cat([made[i].color for i in range(3)])


@pytest.mark.parametrize("name", NAMES[1:])
def test_a_speed_up_changes_nothing(name: str) -> None:
    assert SPEEDUPS[name] != Ways()
    torch.testing.assert_close(frames(name), frames(NAMES[0]), rtol=0, atol=2e-5)


def test_our_video_has_the_same_frames() -> None:
    method, views, path = scene()
    with torch.no_grad():
        made = dict(clip_views(method, views.__getitem__, path, MOMENTS))
    ours = torch.cat([made[i].image for i in range(3)])
    torch.testing.assert_close(ours, frames(NAMES[0]).clamp(0, 1), rtol=0, atol=2e-5)
    assert float(ours.std()) > 0.05
    assert float((ours[0] - ours[1]).abs().max()) > 0.01


def test_what_is_made_once() -> None:
    method, views, _ = scene()
    plain, fast = Replay(method.model), Replay(method.model, SPEEDUPS[NAMES[-1]])
    assert plain.keep(views[0]).planes is None
    kept = fast.keep(views[0])
    assert kept.planes is not None
    assert kept.planes.shape == (8, 22, 36, 4)
    assert kept.response is not None
    assert kept.response.shape == (1, 4, 8, 22, 36)


def test_a_model_of_mended_settings_is_refused() -> None:
    with pytest.raises(UserError, match="published weights"):
        Replay(MaskVolume.create(MaskVolumeConfig(planes=8, width=2)).model)
