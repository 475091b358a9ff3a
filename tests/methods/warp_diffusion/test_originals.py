"""Checkpoints of the original: every container gives the same weights, and what does not fit is named."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from common.errors import UserError
from engine.checkpoint import assign, load_weights
from methods.warp_diffusion.config import WarpDiffusionConfig
from methods.warp_diffusion.method import WarpDiffusion
from methods.warp_diffusion.originals import find_file
from methods.warp_diffusion.weights import read_weights
from tests.methods.warp_diffusion.original_files import (
    original_state_dict,
    small_config,
    write_accelerate,
    write_bin,
    write_lightning,
)

UNET = "model.diffusion_model."
FIRST = UNET + "input_blocks.0.0.weight"


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    """An 11-channel model by the original's names."""
    return original_state_dict(small_config())


@pytest.fixture
def folder(tmp_path: Path, weights: dict[str, Tensor]) -> Path:
    return write_accelerate(tmp_path / "iter_112000", weights)


def loaded(place: Path, config: WarpDiffusionConfig) -> dict[str, Tensor]:
    """The weights of a method that loads a checkpoint folder as the scripts do."""
    method = WarpDiffusion.create(config)
    load_weights(method, place)
    return method.state_dict()


def refusal(place: Path, config: WarpDiffusionConfig | None = None) -> str:
    with pytest.raises(UserError) as caught:
        loaded(place, config or small_config())
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_container_gives_the_same_weights(
    tmp_path: Path, folder: Path, weights: dict[str, Tensor]
) -> None:
    write_lightning(tmp_path / "iter_0/zeronvs.ckpt", weights)
    write_bin(tmp_path / "iter_1", weights, "module.")
    first, *others = (
        loaded(place, small_config()) for place in (folder, tmp_path / "iter_0", tmp_path / "iter_1")
    )
    assert torch.equal(first["model.unet.conv_in.weight"], weights[FIRST])
    assert torch.equal(first["model.cc_projection.bias"], weights["cc_projection.bias"])
    joined = weights["cond_stage_model.model.visual.transformer.resblocks.1.attn.in_proj_weight"]
    parts = [
        first[f"model.image_encoder.network.vision_model.encoder.layers.1.self_attn.{which}_proj.weight"]
        for which in "qkv"
    ]
    assert torch.equal(torch.cat(parts), joined)
    for other in others:
        assert other.keys() == first.keys()
        assert all(torch.equal(other[name], value) for name, value in first.items())


def test_half_precision_files_give_single_precision_weights(tmp_path: Path) -> None:
    weights = original_state_dict(small_config(), dtype=torch.float16)
    found = loaded(write_accelerate(tmp_path / "iter_1", weights), small_config())
    assert {value.dtype for value in found.values()} == {torch.float32}


def test_averages_are_taken_where_they_are_asked_for(folder: Path, weights: dict[str, Tensor]) -> None:
    raw, averaged = loaded(folder, small_config()), loaded(folder, small_config(ema_of_original=True))
    for name, stored in (("raw", FIRST), ("averaged", "model_ema.diffusion_modelinput_blocks00weight")):
        found = {"raw": raw, "averaged": averaged}[name]
        assert torch.equal(found["model.unet.conv_in.weight"], weights[stored])
    assert all(torch.equal(averaged[n], raw[n]) for n in raw if not n.startswith("model.unet."))
    bare = {name: value for name, value in weights.items() if not name.startswith("model_ema.")}
    write_accelerate(folder.parent / "iter_1", bare)
    assert "no averaged weights" in refusal(folder.parent / "iter_1", small_config(ema_of_original=True))
    assert loaded(folder.parent / "iter_1", small_config()).keys() == raw.keys()


@pytest.mark.parametrize(
    ("stored", "wanted", "advice"), [("pixels", "none", "pixels"), ("none", "pixels", "none")]
)
def test_another_variant_is_named_with_the_option_that_fits(
    tmp_path: Path, stored: str, wanted: str, advice: str
) -> None:
    place = write_accelerate(tmp_path / "iter_5", original_state_dict(small_config(stored)))
    line = refusal(place, small_config(wanted))
    assert "conv_in.weight" in line
    assert f"pass model.warp={advice}" in line


@pytest.mark.parametrize(
    ("missing", "named"),
    [
        (FIRST, "unet.conv_in.weight"),
        ("first_stage_model.decoder.conv_out.bias", "autoencoder.network.decoder.conv_out.bias"),
        ("cond_stage_model.model.visual.proj", "image_encoder.network.visual_projection.weight"),
        ("cc_projection.bias", "cc_projection.bias"),
    ],
)
def test_a_missing_weight_is_named(
    tmp_path: Path, weights: dict[str, Tensor], missing: str, named: str
) -> None:
    """Of any part, trained or not."""
    place = write_accelerate(tmp_path / "iter_5", {n: v for n, v in weights.items() if n != missing})
    line = refusal(place)
    assert named in line
    assert str(place) in line


@pytest.mark.parametrize(
    "name",
    ["some_other_model.weight", UNET + "side_blocks.0.weight", UNET + "output_blocks.30.0.in_layers.0.weight",
     "cond_stage_model.model.visual.transformer.resblocks.0.attn.extra", "first_stage_model.encoder.extra"],
)  # fmt: skip
def test_an_unknown_weight_is_named(tmp_path: Path, weights: dict[str, Tensor], name: str) -> None:
    place = write_accelerate(tmp_path / "iter_5", weights | {name: torch.zeros(2)})
    assert name.rpartition(".")[2] in refusal(place)


def test_another_width_is_named(folder: Path) -> None:
    config = small_config()
    config.image_encoder.width = 128
    assert "of another shape" in refusal(folder, config)


class Hostile:
    """Runs a command when it is unpickled by anything that trusts it."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.system, (f"touch {self.mark}",)


def test_a_hostile_file_runs_nothing(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    mark = tmp_path / "it_ran"
    saved = {"state_dict": weights, "callbacks": Hostile(mark), Hostile: [Hostile(mark)]}
    place = tmp_path / "iter_0"
    place.mkdir()
    torch.save(saved, place / "zeronvs.ckpt")
    assert "model.unet.conv_in.weight" in loaded(place, small_config())
    (tmp_path / "iter_1").mkdir()
    (tmp_path / "iter_1/pytorch_model.bin").write_bytes(pickle.dumps(Hostile(mark)))
    refusal(tmp_path / "iter_1")
    torch.save(Hostile(mark), place / "zeronvs.ckpt")
    refusal(place)
    assert not mark.exists()


@pytest.mark.parametrize("part", [0.0, 0.3, 0.999])
def test_a_truncated_file_is_named(tmp_path: Path, weights: dict[str, Tensor], part: float) -> None:
    few = {name: weights[name] for name in list(weights)[:40]}
    for file in (
        write_lightning(tmp_path / "iter_0/zeronvs.ckpt", few),
        write_accelerate(tmp_path / "iter_1", few) / "model.safetensors",
        write_bin(tmp_path / "iter_2", few) / "pytorch_model.bin",
    ):
        data = file.read_bytes()
        file.write_bytes(data[: int(part * len(data))])
        assert str(file) in refusal(file.parent)


def test_files_that_hold_something_else_are_named(tmp_path: Path) -> None:
    place = tmp_path / "iter_0"
    place.mkdir()
    assert "is empty" in refusal(place)
    (place / "notes.txt").write_text("weights will come")
    assert "holds no model.safetensors" in refusal(place)
    for content in ({"state_dict": {"weight": torch.zeros(1)}}, torch.zeros(1), [1], {"state_dict": 3}):
        torch.save(content, place / "some.ckpt")
        assert str(place / "some.ckpt") in refusal(place)
    with zipfile.ZipFile(place / "some.ckpt", "w") as archive:
        archive.writestr("data.txt", "nothing")
    assert str(place / "some.ckpt") in refusal(place)
    (place / "other.ckpt").touch()
    assert "several checkpoints (other.ckpt, some.ckpt)" in refusal(place)
    named = small_config(checkpoint_file="third.ckpt")
    assert f"{place / 'third.ckpt'} does not exist" in refusal(place, named)


def test_the_file_of_a_folder(tmp_path: Path) -> None:
    """safetensors before pickles, any .ckpt by whatever name."""
    assert find_file(tmp_path) is None
    for name in ("zero123-xl.ckpt", "pytorch_model.bin", "model.safetensors"):
        (tmp_path / name).touch()
        assert find_file(tmp_path) == tmp_path / name


def test_a_single_file_is_a_place_too(folder: Path, weights: dict[str, Tensor]) -> None:
    """As `-f` and `model.pretrained` name them."""
    found = read_weights(folder / "model.safetensors", small_config())
    assign(WarpDiffusion.create(small_config()), found, folder)
    with pytest.raises(UserError, match=r"none\.ckpt does not exist"):
        read_weights(folder / "none.ckpt", small_config())


def test_frozen_parts_come_from_a_checkpoint_that_fits(folder: Path, weights: dict[str, Tensor]) -> None:
    """What our own checkpoints do not hold: autoencoder, image encoder, a frozen projection."""
    config = small_config(pretrained=str(folder), freeze_projection=True)
    method = WarpDiffusion.create(config)
    method.load_frozen()
    state = method.state_dict()
    assert torch.equal(state["model.cc_projection.weight"], weights["cc_projection.weight"])
    assert {name for name, value in state.items() if value.is_meta} == {
        name for name in state if name.startswith("model.unet.")
    }
    config.image_encoder.width = 128
    with pytest.raises(UserError, match=r"fits another model: model\.image_encoder\..* there, .* here"):
        WarpDiffusion.create(config).load_frozen()
