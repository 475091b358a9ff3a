"""Checkpoints of MegaScenes NVS and ZeroNVS at a reduced width: the original's names, containers, leftovers.

The names are those of the full-size files (tests/parity/fixtures/warp_diffusion/full_state_dict_shapes.json);
the shapes follow from a model of the same structure and a smaller width.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

from methods.warp_diffusion.config import (
    AutoencoderConfig,
    ImageEncoderConfig,
    SamplingConfig,
    UNetConfig,
    WarpDiffusionConfig,
)
from methods.warp_diffusion.originals import convert_state_dict
from methods.warp_diffusion.weights import build_empty

SHAPES = Path(__file__).parents[2] / "parity/fixtures/warp_diffusion/full_state_dict_shapes.json"
LAYERS = 2  # of the reduced image encoder

# `key=value` words that give a full-size experiment the widths of `small_config`.
SMALL_WORDS = [
    "model.unet.width=32", "model.unet.context=64", "model.autoencoder.width=32", "model.resolution=64",
    f"model.image_encoder.layers={LAYERS}", "model.image_encoder.width=64", "model.image_encoder.heads=1",
    "model.image_encoder.patch=32", "model.image_encoder.projection=64",
]  # fmt: skip


class Callback:
    """Stands for what Lightning keeps beside the weights: an object of a class that no reader may trust."""

    def __init__(self, monitor: str) -> None:
        self.monitor = monitor


def small_config(warp: str = "pixels", resolution: int = 64, **changes: object) -> WarpDiffusionConfig:
    """The structure of the full-size networks at a tenth of their width. changes: of the other settings."""
    settings: dict[str, object] = {
        "warp": warp,
        "resolution": resolution,
        "unet": UNetConfig(width=32, context=64),
        "autoencoder": AutoencoderConfig(width=32),
        "image_encoder": ImageEncoderConfig(layers=LAYERS, width=64, heads=1, patch=32, projection=64),
        "sampling": SamplingConfig(steps=2),
    }
    return WarpDiffusionConfig(**(settings | changes))  # type: ignore[arg-type]


def full_shapes() -> dict[str, list[int]]:
    """Names and shapes of the full-size warp model's file."""
    return json.loads(SHAPES.read_text())


def original_names(layers: int) -> dict[str, list[int]]:
    """`full_shapes` less the image encoder's layers beyond `layers`."""
    return {
        name: shape
        for name, shape in full_shapes().items()
        if ".resblocks." not in name or int(name.split(".resblocks.")[1].split(".")[0]) < layers
    }


def original_shapes(config: WarpDiffusionConfig) -> dict[str, torch.Size]:
    """Names and shapes of the file that the original would write of such a model."""
    own = {name: value.shape for name, value in build_empty(config).state_dict().items()}
    levels, blocks = len(config.unet.multipliers), config.unet.blocks
    shapes: dict[str, torch.Size] = {}
    for name, full in original_names(config.image_encoder.layers).items():
        marker = torch.empty(full, device="meta")
        found = convert_state_dict({name: marker}, levels, blocks, len(config.autoencoder.multipliers), name)
        if found:
            shapes[name] = _as_stored([own[new] for new in found], name, len(full))
        elif not name.startswith("model_ema.diffusion_model"):
            reduced = [min(size, config.image_encoder.projection) for size in full]
            shapes[name] = torch.Size(full if full == [1000] else reduced)
    averaged = {
        "model_ema." + name.removeprefix("model.").replace(".", ""): shape
        for name, shape in shapes.items()
        if name.startswith("model.diffusion_model.")
    }
    return shapes | averaged


def _as_stored(shapes: list[torch.Size], name: str, ndim: int) -> torch.Size:
    """The original's shape of a weight that is found under our names with these shapes."""
    if len(shapes) > 1:  # query, key and value are one tensor there
        return torch.Size([sum(shape[0] for shape in shapes), *shapes[0][1:]])
    if name.endswith("visual.proj"):
        return shapes[0][::-1]
    return torch.Size([*shapes[0], *[1] * (ndim - len(shapes[0]))])  # attention by 1x1 convolutions


def original_state_dict(
    config: WarpDiffusionConfig, seed: int = 0, dtype: torch.dtype = torch.float32
) -> dict[str, Tensor]:
    """Random weights of such a model by the original's names, its averages and leftovers included."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: _random(name, shape, generator).to(torch.int64 if name.endswith("num_updates") else dtype)
        for name, shape in original_shapes(config).items()
    }


def _random(name: str, shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Values that keep activations of order one: norms near 1, weights by their number of inputs."""
    values = torch.randn(shape, generator=generator)
    if len(shape) > 1:
        return values / shape[1:].numel() ** 0.5
    return 0.1 * values + float(name.endswith("weight"))


def write_lightning(path: Path, weights: dict[str, Tensor]) -> Path:
    """A `.ckpt` of PyTorch Lightning: weights, optimiser states and an object of a foreign class."""
    path.parent.mkdir(parents=True, exist_ok=True)
    saved = {
        "epoch": 7,
        "global_step": 100,
        "pytorch-lightning_version": "1.4.2",
        "state_dict": weights,
        "callbacks": {Callback: Callback("val/loss")},
        "optimizer_states": [{"state": {0: {"step": 3, "exp_avg": torch.zeros(4)}}, "param_groups": []}],
        "lr_schedulers": [],
    }
    torch.save(saved, path)
    return path


def write_accelerate(folder: Path, weights: dict[str, Tensor]) -> Path:
    """A folder of `accelerator.save_state`, as MegaScenes published its models."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, folder / "model.safetensors")
    torch.save({"state": {}, "param_groups": [{"lr": 1e-4}]}, folder / "optimizer.bin")
    torch.save({"last_epoch": 112_000}, folder / "scheduler.bin")
    torch.save({"step": 112_000, "random_state": Callback("python")}, folder / "random_states_0.pkl")
    return folder


def write_bin(folder: Path, weights: dict[str, Tensor], prefix: str = "") -> Path:
    """A folder of an older accelerate, whose file is `pytorch_model.bin`. prefix: of the names, 'module.'."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({prefix + name: value for name, value in weights.items()}, folder / "pytorch_model.bin")
    return folder
