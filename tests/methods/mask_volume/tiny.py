"""Small models of mask_volume, and views of small rigs for them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.config import DataConfig, Experiment, TrainingConfig
from geometry.views import Views
from methods.mask_volume.config import MaskVolumeConfig, RenderConfig
from methods.mask_volume.losses import LossConfig
from methods.mask_volume.method import MaskVolume
from tests.dataloader.rig.makers import make_clip

HEIGHT, WIDTH = 18, 26
AS_PUBLISHED: dict[str, Any] = {
    "sampling": "original",
    "premultiplied": False,
    "own_colours": False,
    "backdrop": False,
}
_PARTS = {"conv": 0, "norm": 2}


def tiny_config(stage: str = "mask", **changes: Any) -> MaskVolumeConfig:
    """Four planes, two channels, and the plane renderer that need not be compiled."""
    config = MaskVolumeConfig(
        stage=stage,  # type: ignore[arg-type]
        width=2,
        planes=4,
        loss=LossConfig("l1_ssim" if stage == "mpi" else "l1_ssim_mask"),
        render=RenderConfig(backend="twin"),
    )
    return replace(config, **changes)


def tiny_method(config: MaskVolumeConfig | None = None, seed: int = 0) -> MaskVolume:
    """A method with random weights whose last layers are large enough to say something."""
    torch.manual_seed(seed)
    method = MaskVolume.create(config or tiny_config())
    with torch.no_grad():
        for net in (method.model.mpi_net, method.model.mask_net):
            if net is not None:
                net.conv7_3.conv.weight.mul_(4)
    return method.eval()


def rig_views(cameras: int = 3, moment: int = 0, seed: int = 0, size: tuple[int, int] = (18, 26)) -> Views:
    """What the cameras of a small rig see at a moment, in noise: photos, plates, mattes, bounds."""
    return make_clip(cameras, 3, *size, seed=seed).scene(moment).views()


def toy_experiment(stage: str = "mask", **training: Any) -> Experiment:
    """A short training on two procedural clips of three cameras."""
    data = DataConfig(root="builtin:rigs")
    rig = replace(
        data.rig, seeds="0:2", test_seeds="100000:100001", frames=2, size=(HEIGHT, WIDTH), cameras=3
    )
    settings = {"steps": 20, "log_every": 1, "save_every": 20, "tracker": "none", "learning_rate": 1e-3}
    return Experiment(
        "mask_volume",
        tiny_config(stage, margin=0.125),
        replace(data, rig=rig),
        TrainingConfig(**{**settings, **training}),
    )


def write_original(method: MaskVolume, path: Path) -> Path:
    """A method's weights as a training file of the original, with a part of its loss."""
    weights: dict[str, Tensor] = {"loss.vgg.layers.0.weight": torch.zeros(2)}
    for name, value in method.model.state_dict().items():
        net, layer, part, last = name.split(".")
        weights[f"models.{net}.{layer}.model.{_PARTS[part]}.{last}"] = value.clone()
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": weights, "epoch": 1, "global_step": 7}, path)
    return path
