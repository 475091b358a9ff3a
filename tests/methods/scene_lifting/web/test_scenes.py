"""Scenes of the web demo by (tiny) networks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from common.errors import UserError
from methods.scene_lifting.config import GaussianConfig, InpainterConfig, SceneLiftingConfig
from methods.scene_lifting.method import SceneLifting
from methods.scene_lifting.state import LiftedView
from methods.scene_lifting.web.jobs import FILM
from methods.scene_lifting.web.scenes import WebScenes
from tests.methods.scene_lifting.tiny import tiny_config
from tests.methods.scene_lifting.tiny_inpainter import write_pipeline


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> SceneLiftingConfig:
    place = str(write_pipeline(tmp_path_factory.mktemp("inpainter")))
    inpainter = InpainterConfig(name=place, decoder="", steps=1, guidance=1.0)
    return replace(tiny_config(), inpainter=inpainter, gaussians=GaussianConfig(steps=1))


@pytest.fixture(scope="module")
def method(config: SceneLiftingConfig) -> SceneLifting:
    torch.manual_seed(0)
    method = SceneLifting.create(config)
    method.initialise()
    return method.eval()


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    Image.effect_noise((64, 48), 60).convert("RGB").save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_a_scene_with_painted_views_and_a_film(
    config: SceneLiftingConfig, method: SceneLifting, photo: Path, tmp_path: Path
) -> None:
    scenes, told = WebScenes(method, config, film=2), []

    def on_view(index: int, total: int, view: LiftedView) -> None:
        told.append((index, total, view.name))

    scene = scenes(photo, 70.0, "abc", "", "stage", 3, on_view, tmp_path)
    assert [(index, total) for index, total, _ in told] == [(0, 3), (1, 3), (2, 3)]
    assert [view.prompt for view in scene.views] == ["", "abc", "abc"]
    assert scene.views[0].camera.focal.tolist() == [70, 70]
    assert scene.gaussians is not None
    assert len(scene.gaussians) == len(scene.points)
    assert (tmp_path / FILM).stat().st_size > 0
    assert config.generation.prompt == ""
    loaded = scenes.inpaint
    again = scenes(photo, None, "abd", "", "single", 3, lambda *told: None, tmp_path)
    assert len(again.views) == 1
    assert scenes.inpaint is loaded


def test_what_on_view_raises_ends_it(
    config: SceneLiftingConfig, method: SceneLifting, photo: Path, tmp_path: Path
) -> None:
    def on_view(index: int, total: int, view: LiftedView) -> None:
        if index == 1:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        WebScenes(method, config, film=2)(photo, None, "abc", "", "stage", 0, on_view, tmp_path)
    assert not (tmp_path / FILM).exists()


def test_what_is_missing_is_said_at_the_start(method: SceneLifting, config: SceneLiftingConfig) -> None:
    with pytest.raises(UserError, match="network is needed"):
        WebScenes(method, replace(config, completion="none"))
    with pytest.raises(UserError, match="download"):
        WebScenes(method, replace(config, inpainter=InpainterConfig(name="nobody/has-this")))
