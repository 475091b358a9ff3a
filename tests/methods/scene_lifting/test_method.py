"""`SceneLifting` as scripts use it: photos become scenes, scenes are rendered, weights travel."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from common.errors import UserError
from dataloader.scene import Record, Scene
from engine.config import DataConfig, Experiment, TrainingConfig
from methods import load_pretrained
from methods.scene_lifting.config import GaussianConfig, InpainterConfig, PointsConfig, SceneLiftingConfig
from methods.scene_lifting.method import SceneLifting
from tests.methods.scene_lifting.stand_ins import room
from tests.methods.scene_lifting.tiny import tiny_config


def without_network(**changes: object) -> SceneLifting:
    config = SceneLiftingConfig(completion="none", inpainter=InpainterConfig(name="none"))
    return SceneLifting.create(replace(config, **changes))


def trained() -> SceneLifting:
    torch.manual_seed(0)
    method = SceneLifting.create(tiny_config())
    method.initialise()
    return method.eval()


def test_a_photo_with_depth_is_seen_again_as_it_is() -> None:
    views = room(3)[0:1]
    method = without_network()
    state = method.encode(views)
    seen = method.render(state, views.cameras)
    assert len(state.points) == views.images[0, 0].numel()
    assert torch.allclose(seen.image, views.images, atol=1e-5)
    assert seen.depth is not None
    assert torch.allclose(seen.depth, views.depth, rtol=1e-4)
    assert seen.covered().all()


def test_gaps_between_points_can_be_closed() -> None:
    views = room(3)
    near = views.cameras[0:1].with_poses(views.cameras.c2w[0:1].clone())
    near.c2w[0, :3, 3] += 0.6 * near.c2w[0, :3, 2]  # step forward: points part
    shares = []
    for close in (False, True):
        method = without_network(points=PointsConfig(close_gaps=close))
        shares.append(float(method.render(method.encode(views[0:1]), near).covered().mean()))
    assert shares[0] < shares[1] <= 1


def test_known_depth_of_further_photos_is_used_or_completed() -> None:
    views = room(4)
    method = trained()
    both = method.encode(views)
    assert torch.equal(both.views[1].depth, views.depth[1, 0])
    method.config.generation.source_depth = "first"
    completed = method.encode(views)
    assert torch.equal(completed.views[0].depth, views.depth[0, 0])
    assert not torch.equal(completed.views[1].depth, views.depth[1, 0])
    assert (completed.views[1].depth > 0).all()


def test_a_scene_is_extended_by_a_further_photo() -> None:
    views = room(4)
    method = trained()
    first = method.encode(views[0:1])
    grown = method.encode(views[1:2], reuse=first)
    assert len(grown.views) == 2
    assert len(grown.points) > len(first.points)
    assert torch.equal(grown.points[: len(first.points)], first.points)


def test_gaussians_take_the_place_of_points() -> None:
    views = room(3)[0:1]
    method = without_network(gaussians=GaussianConfig(steps=2))
    state = method.encode(views)
    assert state.gaussians is not None
    seen = method.render(state, views.cameras)
    assert (seen.image - views.images).abs().mean() < 0.1


def test_without_network_or_depth_nothing_can_be_lifted() -> None:
    views = replace(room(3)[0:1], depth=None)
    with pytest.raises(UserError, match="--depth"):
        without_network().encode(views)
    missing = SceneLifting(tiny_config(), None, "no weights here")
    with pytest.raises(UserError, match="no weights here"):
        missing.complete(views.images[0], torch.zeros(96, 128), 1.0)


def test_a_photo_gets_its_depth_before_paths_are_drawn() -> None:
    views = room(3)
    photo = (views.images[0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
    scene = Scene("photo", [Record("photo", views.cameras[0], photo)], splits={"train": [0], "test": [0]})
    method = trained()
    method.prepare_scene(scene)
    depth = scene.records[0].load_depth()
    assert depth is not None
    assert depth.shape == (96, 128)
    assert depth.min() > 0
    state = method.encode(scene.views([0]))
    assert torch.equal(state.views[0].depth, torch.from_numpy(depth))


def test_rooms_are_tested_as_sets_of_scenes() -> None:
    experiment = Experiment(
        "scene_lifting", tiny_config(), DataConfig(root="builtin:rooms"), TrainingConfig()
    )
    sets = SceneLifting.open(argparse.Namespace(savepath="x"), experiment)
    assert sets.name == "builtin:rooms"
    assert sets.tasks["test"]


def test_weights_travel(tmp_path: Path) -> None:
    method = trained()
    method.save_pretrained(tmp_path / "saved")
    again = load_pretrained(tmp_path / "saved")
    assert isinstance(again, SceneLifting)
    inputs = torch.rand(1, 5, 40, 60, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(again.completer(inputs), method.completer(inputs))


def test_weights_are_needed_for_the_network_alone() -> None:
    assert SceneLifting.needs_weights(SceneLiftingConfig())
    assert not SceneLifting.needs_weights(SceneLiftingConfig(completion="none"))
