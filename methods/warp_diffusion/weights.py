"""Where weights come from: checkpoint folders and files of the originals, and diffusers-style folders."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from common.errors import UserError
from engine.tensor_files import read_safetensors
from methods.warp_diffusion.config import WarpDiffusionConfig
from methods.warp_diffusion.model import LatentDiffusion
from methods.warp_diffusion.originals import find_file, read_original, widen

# Folders of a diffusers-style checkpoint: our part's name -> (folder, file).
PARTS = {
    "unet.": ("unet", "diffusion_pytorch_model.safetensors"),
    "autoencoder.network.": ("vae", "diffusion_pytorch_model.safetensors"),
    "image_encoder.network.": ("image_encoder", "model.safetensors"),
    "cc_projection.": ("cc_projection", "model.safetensors"),
}


def build_empty(config: WarpDiffusionConfig) -> LatentDiffusion:
    """The networks without memory for weights, which are put in their places later."""
    from accelerate import init_empty_weights

    with init_empty_weights(include_buffers=False):
        return LatentDiffusion(config)


def read_weights(place: Path, config: WarpDiffusionConfig) -> dict[str, Tensor]:
    """All weights in a file or folder, under the names of `WarpDiffusion` ('model.unet. ...').

    Raises UserError when there is nothing to read, or it belongs to something else.
    """
    if place.is_dir() and (place / "unet").is_dir():
        weights = _read_parts(place)
    else:
        file = _weights_file(place, config.checkpoint_file)
        levels, blocks = len(config.unet.multipliers), config.unet.blocks
        vae_levels = len(config.autoencoder.multipliers)
        weights = read_original(file, levels, blocks, vae_levels, config.ema_of_original)
    return {f"model.{name}": value for name, value in weights.items()}


def _weights_file(place: Path, name: str) -> Path:
    if place.is_dir() and name:
        if not (place / name).is_file():
            raise UserError(f"{place / name} does not exist: put the checkpoint there, or name another one")
        return place / name
    file = find_file(place) if place.is_dir() else place
    if file is None:
        raise UserError(f"{place} holds no model.safetensors, pytorch_model.bin or .ckpt file")
    if not file.is_file():
        raise UserError(
            f"{file} does not exist: see python scripts/download.py weights zeronvs_original, or name "
            "another checkpoint with -f"
        )
    return file


def _read_parts(folder: Path) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for prefix, (name, file) in PARTS.items():
        if (folder / name).is_dir():
            part = read_safetensors(folder / name / file)
            found |= {prefix + key: value for key, value in part.items()}
    return found


def report_misfit(weights: dict[str, Tensor], module: nn.Module, latent: int, place: Path) -> None:
    """Raise UserError when weights are those of another variant, and say which option fits them.

    latent: channels of the latents.
    """
    first = "model.unet.conv_in.weight"
    own = module.state_dict(keep_vars=True)
    if first in weights and weights[first].shape[1] != own[first].shape[1]:
        extra = weights[first].shape[1] - 2 * latent
        kinds = {0: "none", 3: "pixels", latent + 1: "latent"}
        advice = f"pass model.warp={kinds[extra]}" if extra in kinds else "it is of another family"
        raise UserError(
            f"{place} is of another variant: unet.conv_in.weight takes {weights[first].shape[1]} channels "
            f"there, {own[first].shape[1]} here; {advice}"
        )


def widen_to(weights: dict[str, Tensor], module: nn.Module) -> list[str]:
    """Widen weights, in place, to the inputs that a method has (5.2); returns what was widened."""
    shapes = {name.removeprefix("model."): t.shape for name, t in module.state_dict(keep_vars=True).items()}
    bare = {name.removeprefix("model."): value for name, value in weights.items()}
    widened = widen(bare, shapes)
    for name in widened:
        weights[f"model.{name}"] = bare[name]
    return widened


def write_diffusers(model: LatentDiffusion, folder: Path) -> list[Path]:
    """Write the networks as `diffusers` and `transformers` save theirs, one folder each; returns the folders.

    `vae` and `image_encoder` are left out where the model has none of that kind.
    """
    from safetensors.torch import save_file

    written = []
    parts = {"unet": model.unet, "vae": getattr(model.autoencoder, "network", None)}
    parts["image_encoder"] = None if model.image_encoder is None else model.image_encoder.network
    for name, network in parts.items():
        if network is not None:
            network.save_pretrained(folder / name)
            written.append(folder / name)
    (folder / "cc_projection").mkdir(parents=True, exist_ok=True)
    state = {name: value.contiguous() for name, value in model.cc_projection.state_dict().items()}
    save_file(state, folder / "cc_projection" / "model.safetensors")
    return [*written, folder / "cc_projection"]
