"""The published checkpoint's list of names and shapes, against the full-size network; checkpoint files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from common.errors import UserError
from engine.checkpoint import load_weights
from methods import load_pretrained
from methods.scene_lifting.config import NetworkConfig, SceneLiftingConfig
from methods.scene_lifting.method import SceneLifting
from methods.scene_lifting.originals import convert_state_dict, infer_config
from tests.parity.cases import parity_folder
from tests.parity.scene_lifting_network import TINY, tiny_file, tiny_network, tiny_state_dict

KEYS = parity_folder() / "scene_lifting" / "checkpoint_keys.json"
WHOLE = (KEYS, KEYS.with_name("zoe_dc_full_tiny.safetensors"))
pytestmark = pytest.mark.skipif(
    not all(path.is_file() for path in WHOLE), reason="../shared/parity is not at hand"
)


def published() -> list[dict[str, Any]]:
    return json.loads(KEYS.read_text())["keys"]


def on_meta(entries: list[dict[str, Any]]) -> dict[str, Tensor]:
    return {entry["key"]: torch.empty(entry["shape"], device="meta") for entry in entries}


def test_every_published_name_fits_the_full_size_network() -> None:
    entries = published()
    assert len(entries) == 535
    found = convert_state_dict(on_meta(entries), "the list")
    method = SceneLifting.create(SceneLiftingConfig())
    own = method.completer.zoedepth.state_dict()
    assert {name: value.shape for name, value in found.items()} == {n: v.shape for n, v in own.items()}
    assert infer_config(found) == NetworkConfig()


def test_names_are_those_of_the_library() -> None:
    listed = {name for entry in published() for name in entry["hf_v5"]}
    unused = {name for name in listed if name.startswith("neck.fusion_stage.layers.0.residual_layer1.")}
    assert len(unused) == 4
    assert set(convert_state_dict(on_meta(published()), "the list")) == listed - unused


def tiny_config() -> SceneLiftingConfig:
    return SceneLiftingConfig(network=replace(TINY))


def write_original(path: Path, prefix: str = "", bare: bool = False) -> Path:
    """The tiny checkpoint as the original writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    weights = {prefix + name: value for name, value in tiny_state_dict().items()}
    torch.save(weights if bare else {"model": weights, "optimizer": None, "epoch": 3}, path)
    return path


@pytest.mark.parametrize(("prefix", "bare"), [("", False), ("module.", False), ("", True)])
def test_original_file_loads_strictly(tmp_path: Path, prefix: str, bare: bool) -> None:
    write_original(tmp_path / "iter_0" / "invisible-stitch.pt", prefix, bare)
    method = SceneLifting.create(tiny_config())
    load_weights(method, tmp_path / "iter_0")
    x = tiny_file()["input.x"]
    with torch.no_grad():
        assert torch.equal(method.eval().completer(x), tiny_network()(x))


def test_original_file_loads_by_itself(tmp_path: Path) -> None:
    file = write_original(tmp_path / "ZoeDepthv1_latest.pt")
    method = load_pretrained(file)
    assert isinstance(method, SceneLifting)
    assert method.config.network.hooks == TINY.hooks
    own = tiny_network().zoedepth.state_dict()
    assert all(
        torch.equal(value, own[name]) for name, value in method.completer.zoedepth.state_dict().items()
    )


def test_missing_and_foreign_weights_are_named(tmp_path: Path) -> None:
    weights = tiny_state_dict()
    removed = weights.pop("conv2.bias")
    (tmp_path / "iter_0").mkdir()
    torch.save({"model": weights}, tmp_path / "iter_0" / "a.pt")
    with pytest.raises(UserError, match=r"metric_head\.conv2\.bias"):
        load_weights(SceneLifting.create(tiny_config()), tmp_path / "iter_0")
    torch.save({"model": weights | {"conv9.bias": removed}}, tmp_path / "iter_0" / "a.pt")
    with pytest.raises(UserError, match=r"conv9\.bias"):
        load_weights(SceneLifting.create(tiny_config()), tmp_path / "iter_0")


def zoedepth_file(path: Path) -> Path:
    """ZoeDepth as it is published: three channels."""
    weights = tiny_state_dict()
    name = "core.core.pretrained.model.patch_embed.proj.weight"
    torch.save({"model": weights | {name: weights[name][:, :3].clone()}}, path)
    return path


def test_a_started_network_first_gives_zoedepths_depth(tmp_path: Path) -> None:
    config = tiny_config()
    config.start = str(zoedepth_file(tmp_path / "ZoeD_M12_N.pt"))
    method = SceneLifting.create(config)
    method.initialise()
    plain = tiny_network()
    plain.zoedepth.backbone.beit.embeddings.patch_embeddings.projection.weight.data[:, 3:] = 0
    x = tiny_file()["input.x"]
    with torch.no_grad():
        assert torch.equal(method.eval().completer(x), plain(x))
        empty = torch.cat([x[:, :3], torch.zeros_like(x[:, 3:])], dim=1)
        assert torch.equal(method.completer(empty), method.completer(x))


def test_the_embedding_can_be_drawn_anew(tmp_path: Path) -> None:
    config = tiny_config()
    config.start = str(zoedepth_file(tmp_path / "ZoeD_M12_N.pt"))
    config.network.embedding = "reinit"
    torch.manual_seed(0)
    network = SceneLifting.create(config)
    network.initialise()
    weight = network.completer.zoedepth.get_submodule(
        "backbone.beit.embeddings.patch_embeddings.projection"
    ).weight
    bound = 1 / (5 * 16 * 16) ** 0.5
    assert weight.abs().max() <= bound
    assert weight[:, 3:].abs().max() > 0.9 * bound


def test_midas_weights_leave_the_head_random(tmp_path: Path) -> None:
    weights = {
        k.removeprefix("core.core."): v for k, v in tiny_state_dict().items() if k.startswith("core.core.")
    }
    name = "pretrained.model.patch_embed.proj.weight"
    torch.save(weights | {name: weights[name][:, :3].clone()}, tmp_path / "dpt_beit_large_384.pt")
    config = tiny_config()
    config.start = str(tmp_path / "dpt_beit_large_384.pt")
    network = SceneLifting.create(config)
    network.initialise()
    own, recorded = network.completer.zoedepth.state_dict(), tiny_network().zoedepth.state_dict()
    assert torch.equal(own["relative_head.conv1.weight"], recorded["relative_head.conv1.weight"])
    assert not torch.equal(own["metric_head.conv2.weight"], recorded["metric_head.conv2.weight"])


def test_a_folder_of_the_library_starts_a_network(tmp_path: Path) -> None:
    from methods.scene_lifting.network import build_zoedepth

    plain = build_zoedepth(TINY, channels=3)
    plain.save_pretrained(tmp_path / "zoe")
    config = tiny_config()
    config.start = str(tmp_path / "zoe")
    network = SceneLifting.create(config)
    network.initialise()
    own = network.completer.zoedepth.state_dict()
    assert torch.equal(own["metric_head.conv2.weight"], plain.state_dict()["metric_head.conv2.weight"])


def test_absent_start_weights_name_the_command() -> None:
    config = tiny_config()
    config.start = "Intel/no-such-zoedepth"
    network = SceneLifting.create(config)
    with pytest.raises(UserError, match=r"download\.py hub Intel/no-such-zoedepth"):
        network.initialise()
