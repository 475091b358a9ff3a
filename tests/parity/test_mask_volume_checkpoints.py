"""Published checkpoints of mask_volume: every name and shape has its place in our networks, nothing else."""

from __future__ import annotations

import json
import logging
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from common.errors import UserError
from methods.mask_volume.config import MaskVolumeConfig
from methods.mask_volume.model import PlaneModel
from methods.mask_volume.originals import find_file, infer_config, is_original, read_original, read_weights
from tests.parity.cases import parity_folder

KEYS = parity_folder() / "mask_volume" / "checkpoint_keys.json"
STAGES = {"stage1_pretrained_mpi": ("mpi", 576_994), "stage2_mask": ("mask", 1_170_235)}
PUBLISHED: dict[str, Any] = {
    "sampling": "original",
    "premultiplied": False,
    "own_colours": False,
    "backdrop": False,
}


class Callback:
    """An object of a class that a reader must not make."""

    def __init__(self) -> None:
        raise AssertionError("the file ran code")

    def __reduce__(self) -> tuple[Any, ...]:
        return (Callback, ())


def state_dict(stage: str) -> dict[str, Tensor]:
    """Random weights with the names and shapes of a published file."""
    generator = torch.Generator().manual_seed(0)
    shapes = json.loads(KEYS.read_text())[stage]
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def write_lightning(path: Path, weights: dict[str, Tensor], loss: str) -> None:
    """A training checkpoint of Lightning 1.4, with the loss's VGG in it twice."""
    vgg = {f"{loss}.layers.0.weight": torch.zeros(4, 3, 3, 3), f"{loss}.slice1.0.weight": torch.zeros(4)}
    torch.save(
        {
            "epoch": 3,
            "global_step": 1200,
            "pytorch-lightning_version": "1.4.9",
            "state_dict": OrderedDict({**weights, **vgg}),
            "callbacks": {"checkpoint": object.__new__(Callback)},
            "optimizer_states": [{"state": {0: {"step": 1, "exp_avg": torch.zeros(2)}}, "param_groups": []}],
            "lr_schedulers": [{"last_epoch": 3}],
            "hyper_parameters": {"lr": 5e-4, "img_wh": [640, 360], "loss_type": "vgg"},
        },
        path,
    )


@pytest.mark.parametrize("stage", STAGES)
def test_every_name_and_shape_has_its_place(stage: str, tmp_path: Path) -> None:
    weights, path = state_dict(stage), tmp_path / "last.ckpt"
    write_lightning(path, weights, "loss.vgg" if stage.startswith("stage1") else "loss.vgg_loss.vgg")
    assert is_original(path)
    config = infer_config(path)
    kind, count = STAGES[stage]
    assert (config.stage, config.views, config.width, config.as_published) == (kind, 2, 8, True)
    original = read_original(path)
    assert len(original.dropped) == 2
    assert all(name.startswith("loss.") for name in original.dropped)
    model = PlaneModel(config)
    model.load_state_dict(original.weights)  # strictly
    assert sum(p.numel() for p in model.parameters()) == count
    loaded = model.state_dict()
    name = "models.mpi_net.conv4_2.model.2.bias"
    assert torch.equal(loaded["mpi_net.conv4_2.norm.bias"], weights[name])
    assert torch.equal(
        loaded["mpi_net.conv7_3.conv.weight"], weights["models.mpi_net.conv7_3.model.0.weight"]
    )


def test_weights_without_the_envelope_are_the_same(tmp_path: Path) -> None:
    weights = state_dict("stage2_mask")
    write_lightning(tmp_path / "a.ckpt", weights, "loss.vgg_loss.vgg")
    (tmp_path / "only").mkdir()
    torch.save(weights, tmp_path / "only" / "exp.ckpt")
    config = MaskVolumeConfig(**PUBLISHED)
    whole = read_weights(tmp_path / "a.ckpt", config)
    alone = read_weights(tmp_path / "only", config)
    assert whole is not None
    assert alone is not None
    assert whole.keys() == alone.keys()
    assert all(torch.equal(whole[name], alone[name]) for name in whole)


def test_each_stage_takes_what_it_has(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    second, first = tmp_path / "second.ckpt", tmp_path / "first.ckpt"
    torch.save(state_dict("stage2_mask"), second)
    torch.save(state_dict("stage1_pretrained_mpi"), first)
    taken = read_weights(second, MaskVolumeConfig(stage="mpi", **PUBLISHED))
    assert taken is not None
    assert len(taken) == 58
    assert "58 weights left out, such as mask_net." in caplog.text
    begun = read_weights(first, MaskVolumeConfig(**PUBLISHED))
    assert begun is not None
    assert begun.keys() == taken.keys()
    caplog.clear()
    read_weights(first, MaskVolumeConfig())  # mended plane sweeps
    assert "configs/mask_volume/original" in caplog.text


def test_what_does_not_fit_is_told_in_one_line(tmp_path: Path) -> None:
    weights = state_dict("stage1_pretrained_mpi")
    path = tmp_path / "a.ckpt"
    torch.save({**weights, "models.feature_net.weight": torch.zeros(1)}, path)
    with pytest.raises(UserError, match=r"a\.ckpt holds weights of unknown parts: models\.feature_net"):
        read_original(path)
    torch.save({**weights, "models.mpi_net.conv8_1.model.0.weight": torch.zeros(1)}, path)
    with pytest.raises(UserError, match=r"unknown parts: models\.mpi_net\.conv8_1"):
        read_original(path)
    torch.save({"model": {"weight": torch.zeros(1)}}, path)
    assert not is_original(path)
    with pytest.raises(UserError, match="no weights of Deep 3D Mask Volume"):
        read_original(path)
    torch.save(weights, path)
    with pytest.raises(UserError, match=r"model with views 2: set model\.views=2"):
        read_weights(path, MaskVolumeConfig(views=3, **PUBLISHED))
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(UserError, match="get it again"):
        is_original(path)


def test_one_file_to_a_folder(tmp_path: Path) -> None:
    assert find_file(tmp_path) is None
    assert read_weights(tmp_path, MaskVolumeConfig()) is None
    for name in ("a.ckpt", "b.ckpt", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(UserError, match=r"several checkpoints .a\.ckpt, b\.ckpt.: keep one"):
        find_file(tmp_path)
