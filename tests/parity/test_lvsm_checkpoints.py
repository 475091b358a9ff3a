"""Published LVSM checkpoints: every kind of file loads, strictly, under its own architecture."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from accelerate import init_empty_weights
from torch import Tensor

from common.errors import UserError
from methods import load_pretrained
from methods.lvsm.config import LvsmConfig
from methods.lvsm.model import LvsmModel
from methods.lvsm.originals import convert, infer_config, read_original
from methods.lvsm.weights import model_weights, read_weights
from tests.parity.cases import parity_folder

FOLDER = parity_folder() / "lvsm"
KEYS = FOLDER / "checkpoint_keys.json"


def shapes(name: str) -> dict[str, Tensor]:
    """Empty tensors of the shapes of a published file."""
    listed = json.loads(KEYS.read_text())
    found = next(keys for key, keys in listed.items() if key.startswith(name))
    return {key: torch.empty(shape, device="meta") for key, shape in found.items()}


def fit(weights: dict[str, Tensor], base: LvsmConfig | None = None) -> LvsmConfig:
    """The inferred settings, whose model has exactly these weights."""
    original = convert(weights, "published")
    config = infer_config(original, base)
    with init_empty_weights(include_buffers=False):
        model = LvsmModel(config)
    own = model.state_dict()
    found = model_weights(original, config)
    assert found.keys() == own.keys()
    assert {name: t.shape for name, t in found.items()} == {name: t.shape for name, t in own.items()}
    return config


@pytest.mark.skipif(not KEYS.is_file(), reason="needs ../shared/parity/lvsm/checkpoint_keys.json")
@pytest.mark.parametrize(
    ("name", "kind", "layers", "heads", "millions"),
    [
        ("official/scene_decoder_only_256", "full", 24, 12, 170.795520),
        ("official/scene_encoder_decoder_256", "encoder_decoder", 12, 12, 173.154816),
        ("unofficial/lvsm_small", "masked", 6, 16, 57.520128),
        ("unofficial/lvsm_reference", "masked", 24, 16, 227.419392),
        ("unofficial/lvsm_vae_4x4 ", "masked", 6, 16, 57.423570 + 83.819683),
    ],
)
def test_the_published_sizes_fit(name: str, kind: str, layers: int, heads: int, millions: float) -> None:
    weights = shapes(name)
    config = fit(weights)
    t = config.transformer
    assert (t.kind, t.layers, t.heads, t.width, t.head_dim) == (kind, layers, heads, 768, 64)
    assert sum(w.numel() for w in weights.values()) == round(millions * 1e6)


@pytest.mark.skipif(not KEYS.is_file(), reason="needs ../shared/parity/lvsm/checkpoint_keys.json")
def test_updates_of_the_published_decoder_fit() -> None:
    start = "vae.vae.decoder."
    updated = {start + key: value for key, value in shapes("unofficial/lvsm_vae_4x4_lora").items()}
    plain = {k: v for k, v in shapes("unofficial/lvsm_vae_4x4 ").items() if not k.startswith(start)}
    config = fit({**plain, **updated})
    assert config.latent.lora.rank == 8
    assert len(convert({**plain, **updated}, "published").lora) == 39


@pytest.mark.skipif(not KEYS.is_file(), reason="needs ../shared/parity/lvsm/checkpoint_keys.json")
def test_weights_of_the_loss_are_left_out_and_named() -> None:
    start = "loss_computer.perceptual_loss_module."
    extra = {start + key: value for key, value in shapes("official/extra_keys").items()}
    original = convert({**shapes("official/scene_decoder_only_256"), **extra}, "published")
    assert sorted(original.dropped) == sorted(extra)


@pytest.mark.parametrize("name", ["kh_lightning_plain.ckpt", "kh_lightning_compiled.ckpt"])
def test_lightning_files_of_both_kinds_hold_the_same_weights(name: str) -> None:
    if not (FOLDER / "kh_lightning_plain.ckpt").is_file():
        pytest.skip("needs ../shared/parity/lvsm")
    plain = read_original(FOLDER / "kh_lightning_plain.ckpt").weights
    other = read_original(FOLDER / name).weights
    assert plain.keys() == other.keys()
    assert all(torch.equal(plain[key], other[key]) for key in plain)


def test_a_folder_of_the_official_code_loads(tmp_path: Path) -> None:
    source = FOLDER / "off_ckpt_decoder_only_0000000000000001.pt"
    if not source.is_file():
        pytest.skip("needs ../shared/parity/lvsm")
    (tmp_path / source.name).write_bytes(source.read_bytes())
    config = infer_config(read_original(source))
    weights = read_weights(tmp_path, config)
    assert weights is not None
    LvsmModel(config).load_state_dict(weights)
    with pytest.raises(UserError, match=r"official LVSM code .full.*configs/lvsm/official"):
        read_weights(tmp_path, LvsmConfig())


def test_a_foreign_checkpoint_is_refused() -> None:
    with pytest.raises(UserError, match="no LVSM weights"):
        convert({"encoder.weight": torch.zeros(1)}, "other.pt")
    with pytest.raises(UserError, match=r"unknown parts: surprise\.weight"):
        convert({"tokenize_input.1.weight": torch.zeros(1), "surprise.weight": torch.zeros(1)}, "a.ckpt")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("kh_lightning_plain.ckpt", "masked"),
        ("kh_lightning_compiled.ckpt", "masked"),
        ("off_ckpt_decoder_only_0000000000000001.pt", "full"),
    ],
)
def test_a_file_alone_is_enough(name: str, kind: str, tmp_path: Path) -> None:
    if not (FOLDER / name).is_file():
        pytest.skip("needs ../shared/parity/lvsm")
    method = load_pretrained(FOLDER / name)
    assert method.config.transformer.kind == kind
    method.save_pretrained(tmp_path / "out")
    again = load_pretrained(tmp_path / "out")
    assert again.config == method.config
    values = method.state_dict()
    assert all(torch.equal(value, values[key]) for key, value in again.state_dict().items())


def test_another_file_is_told(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(UserError, match="no original's checkpoint"):
        load_pretrained(tmp_path / "other.pt")
