"""Training samples: frames, equal numbers of sources in a step, curricula, and one scene as a set."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from dataloader.room_scenes import RoomScenes
from dataloader.scene_sets import OneScene
from dataloader.toy import make_scene
from dataloader.view_samplers import BoundedV2Sampler
from methods.lvsm.config import LvsmConfig, ViewsConfig
from methods.lvsm.data import SceneViews, jitter
from methods.lvsm.normalise import source_frame
from tests.methods.lvsm.tiny import tiny_config, tiny_views


def near_views(**changes: object) -> ViewsConfig:
    """A sampler that suits rooms of nine views."""
    sampler = BoundedV2Sampler(
        num_target_views=3,
        min_distance_between_context_views=2,
        max_distance_between_context_views=4,
        initial_min_distance_between_context_views=2,
        initial_max_distance_between_context_views=4,
        max_distance_to_context_views=1,
        initial_max_distance_to_context_views=1,
    )
    return ViewsConfig(boundedv2=replace(sampler, **changes))  # type: ignore[arg-type]


def room_views(config: LvsmConfig) -> SceneViews:
    return SceneViews(RoomScenes(range(3), 9, (16, 16)), config)


def test_a_draw_depends_on_its_arguments_alone() -> None:
    config = replace(tiny_config(), views=near_views())
    once, again, other = (room_views(config).draw_at(1, seed, 5, 9) for seed in (4, 4, 5))
    torch.testing.assert_close(once.source.images, again.source.images, rtol=0, atol=0)
    torch.testing.assert_close(once.target.cameras.c2w, again.target.cameras.c2w, rtol=0, atol=0)
    assert not torch.equal(once.target.images[0], other.target.images[0])


def test_sources_fill_the_box() -> None:
    config = replace(tiny_config(), views=near_views())
    centers = room_views(config).draw_at(0, 1, 0, 0).source.cameras.center
    low, high = centers.min(0).values, centers.max(0).values
    assert float((high - low).max()) == pytest.approx(2)
    torch.testing.assert_close(low + high, torch.zeros(3), rtol=0, atol=1e-5)


def test_a_step_has_one_number_of_sources_that_grows() -> None:
    config = replace(
        tiny_config(),
        views=near_views(
            random_num_context_views=True, max_context_views=4, max_context_views_warm_up_steps=99
        ),
    )
    views = room_views(config)
    for step in (0, 200):
        counts = {
            key: {len(views.draw_at(i % 3, i, step, key).source) for i in range(6)} for key in range(12)
        }
        assert all(len(found) == 1 for found in counts.values())
        seen = set().union(*counts.values())
        assert seen == ({2} if step == 0 else {2, 3, 4})
    batch = views.collate([views.draw_at(i, i, 200, 3) for i in range(3)])
    assert batch.source.images.shape[0] == batch.target.images.shape[0] == 3
    assert batch.seeds == [0, 1, 2]


def test_a_single_scene_is_a_set() -> None:
    scene = make_scene(0, 9, 16, 16)
    sample = SceneViews(OneScene(scene), replace(tiny_config(), views=near_views())).draw(0, 1)
    assert sample.source.images.shape == (2, 3, 16, 16)


def test_jitter_turns_by_no_more_than_asked() -> None:
    draw = torch.Generator().manual_seed(0)
    angles = [torch.trace(jitter(10.0, draw)).sub(1).div(2).clamp(max=1).acos().rad2deg() for _ in range(20)]
    assert 0 < max(angles) <= 10
    torch.testing.assert_close(jitter(0.0, draw), torch.eye(3, dtype=torch.float64))


def test_sources_of_one_place_are_not_blown_up() -> None:
    cameras = tiny_views(3).cameras
    one = cameras[torch.tensor([0, 0])]
    frame = source_frame(one, single_scale=0.5)
    assert float(frame.scale) == 0.5
    assert frame(cameras).c2w.isfinite().all()
    torch.testing.assert_close(source_frame(cameras[:1])(cameras[:1]).c2w[0], torch.eye(4).double())
