"""Checkpoints of MegaScenes NVS, ZeroNVS and their kin: their names -> ours (specs/warp_diffusion 2.5).

Files: a Lightning `.ckpt` (weights below `state_dict`), or an accelerate folder with `model.safetensors` or
`pytorch_model.bin`. Nothing is copied or converted before it is needed: files are memory-mapped.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from common.errors import UserError
from engine.tensor_files import read_safetensors, read_torch

_FILES = ("model.safetensors", "pytorch_model.bin")
_UNET, _VAE, _CLIP = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.model."
_EMA = "model_ema."

# What a checkpoint holds beside weights that are used: the schedule's buffers, and the text tower's remains.
_BUFFERS = (
    "betas",
    "alphas_cumprod",
    "sqrt_alphas_cumprod",
    "sqrt_one_minus_alphas_cumprod",
    "log_one_minus_alphas_cumprod",
    "sqrt_recip",
    "posterior_",
    "lvlb_weights",
    "logvar",
)  # beginnings of names
_TEXT = ("token_embedding.", "positional_embedding", "ln_final.", "text_projection", "logit_scale")
_TEXT_TOWER = "transformer."  # of text; deleted in the published files, harmless where it is still there


def find_file(folder: Path) -> Path | None:
    """The weights file of an original's checkpoint folder, None if it holds none.

    A single `.ckpt` is taken whatever its name is. Raises UserError when there are several.
    """
    for name in _FILES:
        if (folder / name).is_file():
            return folder / name
    files = sorted(folder.glob("*.ckpt"))
    if len(files) > 1:
        raise UserError(f"{folder} holds several checkpoints ({', '.join(f.name for f in files)}): keep one")
    return files[0] if files else None


def read_original(
    path: Path, levels: int, blocks: int, vae_levels: int, ema: bool = False
) -> dict[str, Tensor]:
    """The weights of a file under our names ('unet.', 'autoencoder.', 'image_encoder.', 'cc_projection.').

    levels, blocks: of the UNet. vae_levels: of the autoencoder. ema: take the averaged UNet weights. Raises
    UserError for an unreadable file, one without such weights, or names that belong to no known part.
    """
    weights = read_state_dict(path)
    if not any(name.startswith(_UNET) for name in weights):
        raise UserError(f"{path} holds no weights of a latent diffusion model (no name begins with {_UNET})")
    return convert_state_dict(weights, levels, blocks, vae_levels, str(path), ema)


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by the original's names, memory-mapped; a prefix 'module.' is removed."""
    values = read_safetensors(path) if path.suffix == ".safetensors" else read_torch(path)
    if isinstance(values, Mapping) and isinstance(values.get("state_dict"), Mapping):
        values = values["state_dict"]
    if not isinstance(values, Mapping):
        raise UserError(f"{path} holds no state dict")
    return {
        name.removeprefix("module."): value for name, value in values.items() if isinstance(value, Tensor)
    }


def convert_state_dict(
    weights: Mapping[str, Tensor], levels: int, blocks: int, vae_levels: int, source: str, ema: bool = False
) -> dict[str, Tensor]:
    """Rename a state dict of the original. Raises UserError for names that belong to no known part."""
    found: dict[str, Tensor] = {}
    unknown: list[str] = []
    for name, value in weights.items():
        if name.startswith(_UNET):
            chosen = _averaged(weights, name, source) if ema else value
            found["unet." + unet_name(name.removeprefix(_UNET), levels, blocks)] = chosen
        elif name.startswith(_VAE):
            new = vae_name(name.removeprefix(_VAE), vae_levels)
            matrix = value.ndim == 4 and ".attentions." in new  # the attention's 1x1 convolutions
            found["autoencoder.network." + new] = value[:, :, 0, 0] if matrix else value
        elif name.startswith(_CLIP + "visual."):
            found.update(_clip(name.removeprefix(_CLIP + "visual."), value))
        elif name.startswith("cc_projection."):
            found[name] = value
        elif not _ignored(name):
            unknown.append(name)
    if unknown:
        raise UserError(f"{source} holds weights of unknown parts: {', '.join(sorted(unknown)[:4])}")
    return found


def _ignored(name: str) -> bool:
    return name.startswith((*_BUFFERS, _EMA)) or any(
        name.startswith(_CLIP + part) for part in (*_TEXT, _TEXT_TOWER)
    )


def _averaged(weights: Mapping[str, Tensor], name: str, source: str) -> Tensor:
    """The moving average of a UNet weight, whose name has no dots."""
    key = _EMA + name.removeprefix("model.").replace(".", "")
    if key not in weights:
        raise UserError(f"{source} holds no averaged weights: set model.ema_of_original=False")
    return weights[key]


_RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
_UNET_ENDS = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}


def unet_name(name: str, levels: int, blocks: int) -> str:
    """A name inside the original's UNet -> that of `UNet2DConditionModel`."""
    stem, _, kind = name.rpartition(".")
    if stem in _UNET_ENDS:
        return f"{_UNET_ENDS[stem]}.{kind}"
    middle = re.fullmatch(r"middle_block\.(\d)\.(.+)", name)
    if middle:
        part = "attentions.0" if middle[1] == "1" else f"resnets.{int(middle[1]) // 2}"
        return f"mid_block.{part}.{_inside(middle[2])}"
    match = re.fullmatch(r"(input|output)_blocks\.(\d+)\.(\d+)\.(.+)", name)
    if match is None:
        raise UserError(f"{_UNET}{name} is no weight of a UNet of this family")
    number, attends, rest = int(match[2]), match[3] != "0", match[4]
    if match[1] == "input":
        level, block = divmod(number - 1, blocks + 1)
        if rest.startswith("op."):
            return f"down_blocks.{level}.downsamplers.0.conv.{kind}"
        return f"down_blocks.{level}.{'attentions' if attends else 'resnets'}.{block}.{_inside(rest)}"
    level, block = divmod(number, blocks + 1)
    if rest.startswith("conv."):
        return f"up_blocks.{level}.upsamplers.0.conv.{kind}"
    return f"up_blocks.{level}.{'attentions' if attends else 'resnets'}.{block}.{_inside(rest)}"


def _inside(name: str) -> str:
    """A name inside a residual block or a transformer; the latter's are the same."""
    for old, new in _RESNET.items():
        if name.startswith(old + "."):
            return new + name.removeprefix(old)
    return name


def vae_name(name: str, levels: int) -> str:
    """A name inside the original's autoencoder -> that of `AutoencoderKL`."""
    name = re.sub(r"\bdown\.(\d+)\.block\.(\d+)", r"down_blocks.\1.resnets.\2", name)
    name = re.sub(r"\bdown\.(\d+)\.downsample", r"down_blocks.\1.downsamplers.0", name)
    up = lambda m: f"up_blocks.{levels - 1 - int(m[1])}"  # noqa: E731 (the decoder counts backwards)
    name = re.sub(r"\bup\.(\d+)(?=\.block)", up, name).replace(".block.", ".resnets.")
    name = re.sub(r"\bup\.(\d+)(?=\.upsample)", up, name).replace(".upsample.", ".upsamplers.0.")
    name = name.replace("nin_shortcut", "conv_shortcut").replace("norm_out", "conv_norm_out")
    name = re.sub(r"mid\.block_(\d)", lambda m: f"mid_block.resnets.{int(m[1]) - 1}", name)
    attention = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
    return re.sub(
        r"mid\.attn_1\.(norm|q|k|v|proj_out)\b",
        lambda m: f"mid_block.attentions.0.{attention[m[1]]}",
        name,
    )


_CLIP_ENDS: dict[str, tuple[str, Callable[[Tensor], Tensor]]] = {
    "class_embedding": ("vision_model.embeddings.class_embedding", lambda x: x),
    "positional_embedding": ("vision_model.embeddings.position_embedding.weight", lambda x: x),
    "conv1.weight": ("vision_model.embeddings.patch_embedding.weight", lambda x: x),
    "proj": ("visual_projection.weight", lambda x: x.T),
}
_CLIP_BLOCK = {
    "attn.out_proj": "self_attn.out_proj",
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}


def _clip(name: str, value: Tensor) -> dict[str, Tensor]:
    """A weight of OpenAI's image tower -> those of `CLIPVisionModelWithProjection` (three for q, k, v)."""
    prefix = "image_encoder.network."
    if name in _CLIP_ENDS:
        new, change = _CLIP_ENDS[name]
        return {prefix + new: change(value)}
    stem, _, kind = name.rpartition(".")
    if stem in ("ln_pre", "ln_post"):
        norm = "pre_layrnorm" if stem == "ln_pre" else "post_layernorm"
        return {f"{prefix}vision_model.{norm}.{kind}": value}
    match = re.fullmatch(r"transformer\.resblocks\.(\d+)\.(.+)", name)
    if match is None:
        raise UserError(f"{_CLIP}visual.{name} is no weight of CLIP's image tower")
    block = f"{prefix}vision_model.encoder.layers.{match[1]}."
    joined = re.fullmatch(r"attn\.in_proj_(weight|bias)", match[2])
    if joined:
        parts = zip("qkv", value.chunk(3), strict=True)
        return {f"{block}self_attn.{which}_proj.{joined[1]}": part for which, part in parts}
    inner, _, kind = match[2].rpartition(".")
    if inner not in _CLIP_BLOCK:
        raise UserError(f"{_CLIP}visual.{name} is no weight of CLIP's image tower")
    return {f"{block}{_CLIP_BLOCK[inner]}.{kind}": value}


def widen(weights: dict[str, Tensor], shapes: Mapping[str, torch.Size]) -> list[str]:
    """Give the first convolution and the projection zero weights for inputs that a checkpoint lacks (5.2).

    The new inputs come last. Changes `weights`; returns the names that were widened. Raises UserError when
    the checkpoint's are wider than the model's.
    """
    widened: list[str] = []
    for name in ("unet.conv_in.weight", "cc_projection.weight"):
        if name not in weights:
            continue
        have, want = weights[name].shape[1], shapes[name][1]
        if have > want:
            raise UserError(
                f"{name} takes {have} inputs in the checkpoint, {want} here: fine-tuning only adds"
            )
        if have < want:
            old = weights[name]
            new = old.new_zeros(old.shape[0], want, *old.shape[2:])
            new[:, :have] = old
            weights[name] = new
            widened.append(name)
    return widened
