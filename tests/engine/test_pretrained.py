"""Folders of `save_pretrained`: complete, strict, and read from wherever a method is named."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from common.errors import UserError
from dataloader import toy
from engine import checkpoint
from engine.pretrained import is_pretrained
from engine.tensor_files import read_safetensors, write_safetensors
from methods import METHODS, load_pretrained, method_class
from methods.baselines.depth_warp import DepthWarp
from methods.baselines.photos import NearestView
from methods.baselines.vertex_colors import VertexColors
from tests.engine.toy_method import ToyMethod, toy_experiment, train_toy


def _method(width: int = 8) -> ToyMethod:
    method = ToyMethod.create(toy_experiment({"model.width": width, "model.bad": [1, 2]}).model)
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.uniform_()
    return method


def _refused(place: str | Path, kind: type = ToyMethod) -> str:
    with pytest.raises(UserError) as caught:
        kind.from_pretrained(place)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_saved_method_comes_back_whole(tmp_path: Path) -> None:
    method = _method()
    files = method.save_pretrained(tmp_path / "out")
    assert sorted(path.name for path in files) == sorted(p.name for p in (tmp_path / "out").iterdir())
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["method"], config["model"]["width"]) == ("toy", 8)
    again = ToyMethod.from_pretrained(tmp_path / "out")
    assert again.config == method.config
    assert not again.training
    assert not again.lift.weight.requires_grad
    for name, value in method.state_dict().items():  # also what is not trained
        assert torch.equal(value, again.state_dict()[name]), name


def test_a_model_card_is_kept_and_weights_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    _method(8).save_pretrained(tmp_path)
    _method(9).save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"
    assert ToyMethod.from_pretrained(tmp_path).config.width == 9


def test_names_are_strict_and_nothing_is_changed(tmp_path: Path) -> None:
    method = _method()
    method.save_pretrained(tmp_path)
    tensors = read_safetensors(tmp_path / "model.safetensors")
    frozen = {name: value for name, value in tensors.items() if name != "lift.weight"}
    write_safetensors(tmp_path / "model.safetensors", frozen)
    assert "missing: lift.weight" in _refused(tmp_path)
    write_safetensors(tmp_path / "model.safetensors", tensors | {"more": torch.ones(2)})
    assert "unexpected: more" in _refused(tmp_path)
    write_safetensors(tmp_path / "model.safetensors", tensors | {"lift.bias": torch.ones(2)})
    assert "lift.bias ([2] there, [8] here)" in _refused(tmp_path)
    before = {name: value.clone() for name, value in method.state_dict().items()}
    with pytest.raises(UserError, match="do not fit"):
        checkpoint.load_weights(method, tmp_path)
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())


def test_other_methods_and_other_folders_are_refused(tmp_path: Path) -> None:
    _method().save_pretrained(tmp_path / "toy")
    assert "holds a toy, not a nearest_view" in _refused(tmp_path / "toy", NearestView)
    (tmp_path / "empty").mkdir()
    assert "holds no pretrained method" in _refused(tmp_path / "empty")
    assert "neither a folder nor the name of a hub model" in _refused("/no/such/folder")
    (tmp_path / "toy" / "config.json").write_text('{"library": "parallax"}')
    assert "names no method" in _refused(tmp_path / "toy")


def test_a_hub_model_is_fetched_or_the_command_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _method().save_pretrained(tmp_path)
    asked: list[object] = []

    def snapshot(name: str, revision: str | None = None, patterns: tuple[str, ...] = ()) -> Path:
        asked.append((name, patterns))
        if name == "someone/toy":
            return tmp_path
        raise UserError(f"the model {name} cannot be fetched from the hub (no network)")

    monkeypatch.setattr("dataloader.hub.snapshot", snapshot)
    assert ToyMethod.from_pretrained("someone/toy").config.width == 8
    assert asked == [("someone/toy", ("config.json", "model.safetensors"))]
    assert "hf download someone/else --local-dir DIR" in _refused("someone/else")


def test_a_checkpoint_of_a_run_gives_its_average(tmp_path: Path) -> None:
    train_toy(tmp_path, {"training.steps": 4})
    method = ToyMethod.from_pretrained(tmp_path / "iter_4")
    average = read_safetensors(tmp_path / "iter_4" / "ema.safetensors")
    assert torch.equal(method.network[1].weight, average["network.1.weight"])


def test_it_starts_and_continues_a_run(tmp_path: Path) -> None:
    method = _method()
    method.save_pretrained(tmp_path / "given")
    assert is_pretrained(tmp_path / "given")
    changes = {"training.steps": 1, "training.learning_rate": 1e-9, "model.bad": ()}
    train_toy(tmp_path / "init", changes | {"training.init_from": str(tmp_path / "given")})
    train_toy(tmp_path / "resumed", changes, str(tmp_path / "given"))
    for run in ("init", "resumed"):
        weights = read_safetensors(tmp_path / run / "iter_1" / "model.safetensors")
        torch.testing.assert_close(weights["network.1.weight"], method.network[1].weight.detach())


def test_methods_by_name(tmp_path: Path) -> None:
    DepthWarp.create(DepthWarp.Config(max_angle=70.0)).save_pretrained(tmp_path / "warp")
    made = load_pretrained(tmp_path / "warp")
    assert isinstance(made, DepthWarp)
    assert made.max_angle == 70.0


def test_a_method_that_needs_a_scene_gets_it(tmp_path: Path) -> None:
    scene = toy.make_scene(1, n_views=3, height=12, width=16)
    method = VertexColors.create(replace(VertexColors.Config(), rays=7), scene)
    with torch.no_grad():
        method.colors.uniform_()
    method.save_pretrained(tmp_path)
    assert "needs a scene with a mesh" in _refused(tmp_path, VertexColors)
    again = VertexColors.from_pretrained(tmp_path, scene)
    assert again.rays == 7
    assert torch.equal(again.colors, method.colors)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_knows_its_name(name: str) -> None:
    assert method_class(name).method_name == name
