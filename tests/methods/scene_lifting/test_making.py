from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from common.errors import UserError
from geometry.views import Views
from methods.scene_lifting.config import GenerationConfig, InpainterConfig, SceneLiftingConfig
from methods.scene_lifting.inpainters import Inpainter
from methods.scene_lifting.making import lift_views, make_scene
from methods.scene_lifting.seeing import look
from methods.scene_lifting.state import LiftedView
from tests.methods.scene_lifting.stand_ins import Completer, Painter, photo_camera, photo_image, room

CPU = torch.device("cpu")


def a_photo() -> Views:
    return Views(photo_image()[None], photo_camera().reshape(1), names=["photo"])


def config(**generation: Any) -> SceneLiftingConfig:
    return SceneLiftingConfig(generation=GenerationConfig(**{"prompt": "a", **generation}))


def lends(painter: Inpainter | None) -> Any:
    return lambda settings, device: painter


def test_photos_with_depth_need_no_network() -> None:
    views = room(1)
    scene = lift_views(views, None, GenerationConfig())
    assert [view.name for view in scene.views] == views.names
    assert views.depth is not None
    assert torch.equal(scene.views[1].depth, views.depth[1, 0])
    # the second photo brought what the first did not show
    first = lift_views(views[:1], None, GenerationConfig())
    assert len(first.points) < len(scene.points) < 2 * len(first.points)
    assert look(scene, views.cameras[1], GenerationConfig()).coverage > 0.99


def test_a_scene_is_extended() -> None:
    views = room(1)
    settings = GenerationConfig()
    whole = lift_views(views, None, settings)
    grown = lift_views(views[1:], None, settings, lift_views(views[:1], None, settings))
    assert torch.equal(grown.points, whole.points)


def test_invalid_depth_is_left_out() -> None:
    views = room(1)[:1]
    assert views.valid is not None
    valid = views.valid.clone()
    valid[..., :10] = 0
    scene = lift_views(replace(views, valid=valid), None, GenerationConfig())
    assert len(scene.points) == 96 * 118


def test_nothing_to_lift_is_said() -> None:
    with pytest.raises(UserError, match="pass --depth FILE"):
        lift_views(a_photo(), None, GenerationConfig())


def test_the_photo_is_view_0() -> None:
    told: list[tuple[int, int, str]] = []

    def on_view(index: int, total: int, view: LiftedView) -> None:
        told.append((index, total, view.name))

    scene = make_scene(a_photo(), Completer(), config(), CPU, on_view=on_view, load=lends(Painter()))
    assert told == [(0, 3, "photo"), (1, 3, "view_001"), (2, 3, "view_002")]
    assert len(scene.views) == 3


def test_the_inpainters_settings_decide_what_is_kept(tmp_path: Path) -> None:
    painter, settings = Painter(), config()
    for steps, asked in ((2, 2), (2, 2), (3, 4)):
        settings.inpainter.steps = steps
        make_scene(a_photo(), Completer(), settings, CPU, tmp_path, load=lends(painter))
        assert len(painter.asked) == asked


def test_mistakes_are_found_before_a_network_runs() -> None:
    completer = Completer()
    for settings, painter, message in (
        (config(prompt=""), Painter(), "there is no prompt"),
        (config(prompts=("a",)), Painter(), "1 entries, and 2 views"),
        (config(path="none.json"), Painter(), "none.json does not exist"),
    ):
        with pytest.raises(UserError, match=message):
            make_scene(a_photo(), completer, settings, CPU, load=lends(painter))
    missing = config()
    missing.inpainter = InpainterConfig("nobody/none-such")
    with pytest.raises(UserError, match="nobody/none-such is not on this machine"):
        make_scene(a_photo(), completer, missing, CPU)
    assert completer.calls == 0
    with pytest.raises(UserError, match="painted views need a network"):
        make_scene(room(0)[:1], None, config(), CPU, load=lends(Painter()))


def test_a_single_view_needs_no_inpainter() -> None:
    settings = config(mode="single")
    settings.inpainter = InpainterConfig("nobody/none-such")
    assert len(make_scene(a_photo(), Completer(), settings, CPU).views) == 1
