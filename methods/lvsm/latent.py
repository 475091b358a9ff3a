"""The latent variant: an autoencoder around the transformer, and rays brought to its resolution (specs/lvsm
2.3).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from common.errors import UserError
from methods.lvsm.config import LatentConfig, LoraConfig

_STABLE_DIFFUSION: dict[str, Any] = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 4,
}
# name -> (hub id, subfolder, settings of `AutoencoderKL`)
AUTOENCODERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "sd15": (
        "stable-diffusion-v1-5/stable-diffusion-v1-5",
        "vae",
        {**_STABLE_DIFFUSION, "scaling_factor": 0.18215},
    ),
    "sd21": (
        "stabilityai/stable-diffusion-2-1",
        "vae",
        {**_STABLE_DIFFUSION, "scaling_factor": 0.18215},
    ),
    "sdxl": (
        "madebyollin/sdxl-vae-fp16-fix",
        "",
        {**_STABLE_DIFFUSION, "scaling_factor": 0.13025},
    ),
    "sd35": (
        "stabilityai/stable-diffusion-3.5-large",
        "vae",
        {
            **_STABLE_DIFFUSION,
            "latent_channels": 16,
            "scaling_factor": 1.5305,
            "shift_factor": 0.0609,
            "use_quant_conv": False,
            "use_post_quant_conv": False,
        },
    ),
}
_RAY_CHANNELS, _LAST_CHANNELS = 6, 16


class ChannelNorm(nn.Module):
    """LayerNorm over the channels of [N, C, H, W], with weight and bias."""

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        shape = (x.shape[1],)
        x = nn.functional.layer_norm(x.movedim(1, -1), shape, self.weight, self.bias, self.eps)
        return x.movedim(-1, 1)


class RayDownsampler(nn.Sequential):
    """Ray maps [N, 6, H, W] -> [N, channels, H / factor, W / factor], by halving convolutions."""

    def __init__(self, channels: int, factor: int) -> None:
        steps = int(math.log2(factor))
        widths = [int(w) for w in torch.linspace(_RAY_CHANNELS, _LAST_CHANNELS, steps + 1).tolist()]
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            layers += [nn.Conv2d(before, after, 2, stride=2, bias=False), ChannelNorm(after), nn.GELU()]
        super().__init__(*layers, nn.Conv2d(widths[-1], channels, 1, bias=False))

    def start(self) -> None:
        """Give the convolutions their starting values."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)


def autoencoder_settings(config: LatentConfig) -> dict[str, Any]:
    """The settings of the `AutoencoderKL` that a config names: known ones, or read from a folder or hub.

    Raises UserError where they cannot be had.
    """
    from diffusers import AutoencoderKL

    if config.autoencoder in AUTOENCODERS:
        return AUTOENCODERS[config.autoencoder][2]
    place, subfolder = _place(config)
    try:
        return dict(AutoencoderKL.load_config(place, subfolder=subfolder))
    except (OSError, ValueError) as error:
        raise _missing(config, error) from None


def build_autoencoder(settings: Mapping[str, Any]) -> nn.Module:
    """An `AutoencoderKL` without trained weights, frozen."""
    from diffusers import AutoencoderKL

    names = {key: value for key, value in settings.items() if not key.startswith("_")}
    network: Any = AutoencoderKL(**names)
    return network.requires_grad_(False).eval()


def read_autoencoder(config: LatentConfig) -> dict[str, Tensor]:
    """The weights of the autoencoder that a config names, float32. Raises UserError where there are none."""
    from diffusers import AutoencoderKL

    place, subfolder = _place(config)
    try:
        return AutoencoderKL.from_pretrained(place, subfolder=subfolder).float().state_dict()
    except (OSError, ValueError) as error:
        raise _missing(config, error) from None


def _place(config: LatentConfig) -> tuple[str, str | None]:
    """Hub id or folder, and the folder in it."""
    if config.autoencoder in AUTOENCODERS:
        place, subfolder, _ = AUTOENCODERS[config.autoencoder]
        return place, subfolder or None
    folder = Path(config.autoencoder)
    alone = (folder / "config.json").is_file()  # of the autoencoder itself
    return config.autoencoder, None if alone else config.subfolder or None


def _missing(config: LatentConfig, error: Exception) -> UserError:
    place = _place(config)[0]
    return UserError(
        f"model.latent.autoencoder={config.autoencoder}: no autoencoder there "
        f"({str(error).splitlines()[0][:120]}); get it with python scripts/download.py hub {place}, "
        "or name a diffusers folder"
    )


def encode(autoencoder: Any, images: Tensor, config: LatentConfig, noise: Tensor | None = None) -> Tensor:
    """Images [N, 3, H, W] in [0, 1] -> latents [N, C, h, w], one image at a time.

    noise: of the latents' shape, for stochastic encoding; None takes the mean.
    """
    moments = [autoencoder.encode(_given(image, config)).latent_dist for image in images.split(1)]
    mean = torch.cat([m.mean for m in moments])
    if noise is not None:
        mean = mean + torch.cat([m.std for m in moments]) * noise
    return scale(autoencoder, mean, config)


def scale(autoencoder: Any, latents: Tensor, config: LatentConfig) -> Tensor:
    """Latents of the autoencoder -> as the transformer sees them: shifted and scaled to unit variance."""
    if config.compat:
        return latents
    settings = autoencoder.config
    return (latents - (settings.shift_factor or 0.0)) * settings.scaling_factor


def decode(autoencoder: Any, latents: Tensor, config: LatentConfig) -> Tensor:
    """The inverse of `encode`: latents [N, C, h, w] -> images [N, 3, H, W] in [0, 1], one at a time."""
    settings = autoencoder.config
    if not config.compat:
        latents = latents / settings.scaling_factor + (settings.shift_factor or 0.0)
    images = torch.cat([autoencoder.decode(latent).sample for latent in latents.split(1)])
    return (images if config.compat else (images + 1) / 2).clamp(0, 1)


def _given(images: Tensor, config: LatentConfig) -> Tensor:
    return images if config.compat else images * 2 - 1


def add_lora(autoencoder: nn.Module, config: LoraConfig) -> None:
    """Put trainable low-rank updates on every linear and convolution layer of the decoder.

    W becomes W + (B A) alpha / sqrt(rank), rank-stabilised (Kalajdzievski 2023), as minLoRA has it with
    convolutions flattened to matrices.
    """
    from peft import LoraConfig as PeftConfig
    from peft import inject_adapter_in_model

    layers = [
        f"decoder.{name}"
        for name, module in autoencoder.get_submodule("decoder").named_modules()
        if isinstance(module, (nn.Linear, nn.Conv2d))
    ]
    settings = PeftConfig(
        r=config.rank,
        lora_alpha=config.alpha,  # type: ignore[arg-type]
        lora_dropout=config.dropout,
        use_rslora=True,
        target_modules=layers,
    )
    inject_adapter_in_model(settings, autoencoder)


def merge_lora(autoencoder: nn.Module) -> None:
    """Add the low-rank updates to the weights they belong to, so that they cost nothing."""
    from peft.tuners.lora import LoraLayer

    for module in autoencoder.modules():
        if isinstance(module, LoraLayer) and not module.merged:
            module.merge()


def lora_weights(
    weights: Mapping[str, Tensor], lora: Mapping[str, tuple[Tensor, Tensor]]
) -> dict[str, Tensor]:
    """An original's autoencoder weights with its (A, B) pairs, under the names that `add_lora` gives.

    weights: by name in the autoencoder. lora: per layer A [rank, in] and B [out, rank].
    """
    renamed = {}
    for name, value in weights.items():
        layer, _, last = name.rpartition(".")
        renamed[f"{layer}.base_layer.{last}" if layer in lora else name] = value
    for layer, (a, b) in lora.items():
        kernel = weights[f"{layer}.weight"].shape[1:]
        square = len(kernel) == 3
        renamed[f"{layer}.lora_A.default.weight"] = a.reshape(-1, *kernel)
        renamed[f"{layer}.lora_B.default.weight"] = b[:, :, None, None] if square else b
    return renamed
