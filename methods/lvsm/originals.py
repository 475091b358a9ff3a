"""Checkpoints of both public LVSM code lines: their names -> ours, their layouts -> ours (specs/lvsm 2.6).

Unofficial (KaiHelli/lvsm): Lightning `.ckpt`, compiled or not. Official (Haian-Jin/LVSM): `.pt`. Ours has
patches flattened channel by channel and rays as (direction, moment), which is the unofficial layout; the
official weights are permuted once.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from torch import Tensor

from common.errors import UserError
from dataloader.framing import Framing
from engine.tensor_files import read_safetensors, read_torch
from methods.lvsm.config import LatentConfig, LoraConfig, LvsmConfig, TransformerConfig

CodeLine = Literal["unofficial", "official"]

_SUFFIXES = (".ckpt", ".pt", ".bin", ".safetensors")
_PREFIXES = ("model._orig_mod.", "_orig_mod.", "module.", "model.")
_NORM_PARTS = {"q_layer_norm": "queries", "k_layer_norm": "keys", "q_norm": "queries", "k_norm": "keys"}

# Whole names, without .weight and .bias
_UNOFFICIAL = {
    "tokenize_input.1": "source_tokens",
    "tokenize_target.1": "target_tokens",
    "untokenize_output.0": "output",
    "norm_in": "norm_in",
    "norm_out": "norm_out",
    "transformer.encoder.norm": "norm_last",
}
_OFFICIAL = {
    "image_tokenizer.1": "source_tokens",
    "target_pose_tokenizer.1": "target_tokens",
    "image_token_decoder.0": "norm_out",
    "image_token_decoder.1": "output",
    "transformer_input_layernorm": "norm_in",
    "transformer_input_layernorm_decoder": "norm_in",
}
_UNOFFICIAL_LAYER = re.compile(r"transformer\.encoder\.layers\.(\d+)\.(.+)\.(weight|bias)")
_OFFICIAL_LAYER = re.compile(r"transformer_(blocks|encoder|decoder)\.(\d+)\.(.+)\.(weight|bias)")
_LAYER_PARTS = {
    "norm1": "norm1",
    "norm2": "norm2",
    "self_attn.qkv_proj": "attention.qkv",
    "self_attn.o_proj": "attention.out",
    "self_attn.qk_scale.qk_scaling": "attention.norm",
    "self_attn.qk_scale.q_layer_norm": "attention.norm.queries",
    "self_attn.qk_scale.k_layer_norm": "attention.norm.keys",
    "mlp.0": "mlp1",
    "mlp.3": "mlp2",
    "attn.to_qkv": "attention.qkv",
    "attn.fc": "attention.out",
    "attn.q_norm": "attention.norm.queries",
    "attn.k_norm": "attention.norm.keys",
    "mlp.mlp.0": "mlp1",
    "mlp.mlp.2": "mlp2",
}
_LORA = re.compile(r"(.+)\.parametrizations\.weight\.(original|0\.lora_A|0\.lora_B)")


@dataclass
class Original:
    """The weights of an original's checkpoint under our names, and what it is.

    weights: 'network.', 'rays.' and 'autoencoder.' names. lora: per layer of the autoencoder its (A, B).
    dropped: names left out on purpose: of the perceptual network, of dropout masks.
    """

    line: CodeLine
    weights: dict[str, Tensor]
    lora: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    dropped: list[str] = field(default_factory=list)


def find_file(folder: Path) -> Path | None:
    """The weights file of an original in a folder (of several `.pt` the last by name, as the official code
    takes it), or the file itself; None if there is none.

    Raises UserError when there are several `.ckpt`.
    """
    if folder.is_file():
        return folder
    files = sorted(path for path in folder.iterdir() if path.suffix in _SUFFIXES)
    light = [path for path in files if path.suffix == ".ckpt"]
    if len(light) > 1:
        raise UserError(f"{folder} holds several checkpoints ({', '.join(f.name for f in light)}): keep one")
    return light[0] if light else files[-1] if files else None


def is_original(path: Path) -> bool:
    """Whether a file holds LVSM weights of either code line."""
    return path.suffix in _SUFFIXES and _line(read_state_dict(path)) is not None


def read_original(path: Path) -> Original:
    """Read a checkpoint file of either code line, memory-mapped.

    Raises UserError for an unreadable file, one of another program, or names that belong to no known part.
    """
    return convert(read_state_dict(path), str(path))


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by the original's names, wrapping prefixes removed."""
    values = read_safetensors(path) if path.suffix == ".safetensors" else read_torch(path)
    for key in ("state_dict", "model"):
        if isinstance(values, Mapping) and isinstance(values.get(key), Mapping):
            values = values[key]
            break
    if not isinstance(values, Mapping):
        raise UserError(f"{path} holds no state dict: take a .ckpt or .pt file of LVSM")
    tensors = {str(name): value for name, value in values.items() if isinstance(value, Tensor)}
    for prefix in _PREFIXES:
        if tensors and all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return tensors


def code_line(names: Mapping[str, Tensor], source: str) -> CodeLine:
    """Which code line a state dict is of. Raises UserError when of neither."""
    line = _line(names)
    if line is None:
        raise UserError(
            f"{source} holds no LVSM weights: neither tokenize_input nor image_tokenizer is in it"
        )
    return line


def _line(names: Mapping[str, Tensor]) -> CodeLine | None:
    if "tokenize_input.1.weight" in names:
        return "unofficial"
    return "official" if "image_tokenizer.1.weight" in names else None


def convert(weights: Mapping[str, Tensor], source: str) -> Original:
    """Rename and re-arrange a state dict. Raises UserError for names that belong to no known part."""
    line = code_line(weights, source)
    found = Original(line, {})
    lora: dict[str, dict[str, Tensor]] = {}
    unknown: list[str] = []
    for name, value in weights.items():
        if name.startswith("loss_computer.") or name.endswith("lora_dropout_mask"):
            found.dropped.append(name)
        elif match := _LORA.fullmatch(name):
            lora.setdefault(match[1].removeprefix("vae.vae."), {})[match[2]] = value
        elif name.startswith("vae.vae."):
            found.weights["autoencoder." + name.removeprefix("vae.vae.")] = value
        elif name.startswith("downsample_rays."):
            found.weights["rays." + name.removeprefix("downsample_rays.")] = value
        elif (new := _network_name(name, line)) is None:
            unknown.append(name)
        else:
            found.weights["network." + new] = value
    if unknown:
        raise UserError(f"{source} holds weights of unknown parts: {', '.join(sorted(unknown)[:4])}")
    for layer, parts in lora.items():
        found.weights[f"autoencoder.{layer}.weight"] = parts["original"]
        found.lora[layer] = (parts["0.lora_A"], parts["0.lora_B"])
    if line == "official":
        _to_our_layout(found.weights)
    return found


def _network_name(name: str, line: CodeLine) -> str | None:
    """Our name of a weight of the transformer, None if it is no known one."""
    if name == "n_light_field_latent":
        return "latents"
    place, _, last = name.rpartition(".")
    whole = (_UNOFFICIAL if line == "unofficial" else _OFFICIAL).get(place)
    if whole is not None:
        return f"{whole}.{last}"
    if line == "unofficial":
        match = _UNOFFICIAL_LAYER.fullmatch(name)
        parts = None if match is None else ("blocks", match[1], match[2], match[3])
    else:
        match = _OFFICIAL_LAYER.fullmatch(name)
        parts = None if match is None else (match[1], match[2], match[3], match[4])
    if parts is None or parts[2] not in _LAYER_PARTS:
        return None
    stack, index, part, last = parts
    return f"{stack}.{index}.{_LAYER_PARTS[part]}.{last}"


def _to_our_layout(weights: dict[str, Tensor]) -> None:
    """Official token layouts -> ours: columns (row, column, channel) with rays (moment, direction) ->
    (channel, row, column) with rays (direction, moment); output rows likewise.
    """
    source = [0, 1, 2, 6, 7, 8, 3, 4, 5]
    for name, channels in (("source_tokens", source), ("target_tokens", [3, 4, 5, 0, 1, 2])):
        key = f"network.{name}.weight"
        weights[key] = _permute_columns(weights[key], channels)
    key = "network.output.weight"
    weights[key] = _permute_columns(weights[key].T, [0, 1, 2]).T.contiguous()


def _permute_columns(matrix: Tensor, channels: list[int]) -> Tensor:
    """[width, p p C] -> [width, C p p] with the channels in that order."""
    size = math.isqrt(matrix.shape[1] // len(channels))
    cube = matrix.unflatten(1, (size, size, len(channels)))[..., channels]
    return cube.permute(0, 3, 1, 2).flatten(1)


def infer_config(original: Original, base: LvsmConfig | None = None) -> LvsmConfig:
    """The settings that fit a checkpoint, from the shapes of its weights.

    base: settings of everything that shapes do not tell (head_dim without norms of queries and keys, the
    activation, the autoencoder's name). Raises UserError when a shape contradicts itself.
    """
    if base is None:
        side = 256 if original.line == "official" else 192
        base = LvsmConfig(images=Framing(side, side, original.line))
    return _official(original, base) if original.line == "official" else _unofficial(original, base)


def _transformer(weights: Mapping[str, Tensor], base: TransformerConfig) -> TransformerConfig:
    """What both lines tell alike."""
    stack = "encoder" if "network.encoder.0.norm1.weight" in weights else "blocks"
    first = f"network.{stack}.0."
    norm = weights.get(first + "attention.norm.queries.weight")
    scale = weights.get(first + "attention.norm.weight")
    inner = len(weights[first + "attention.qkv.weight"]) // 3
    head_dim = len(norm) if norm is not None else base.head_dim
    if scale is not None:
        head_dim = inner // len(scale)
    return replace(
        base,
        width=weights["network.source_tokens.weight"].shape[0],
        layers=_count(weights, stack),
        heads=inner // head_dim,
        head_dim=head_dim,
        mlp=len(weights[first + "mlp1.weight"]),
        bias="network.source_tokens.bias" in weights,
    )


def _official(original: Original, base: LvsmConfig) -> LvsmConfig:
    weights = original.weights
    both = "network.latents" in weights
    transformer = replace(
        _transformer(weights, base.transformer),
        kind="encoder_decoder" if both else "full",
        patch=math.isqrt(weights["network.source_tokens.weight"].shape[1] // 9),
        qk_norm="rms"
        if "network.decoder.0.attention.norm.queries.weight" in weights
        or "network.blocks.0.attention.norm.queries.weight" in weights
        else "none",
        two_norms=False,
    )
    if both:
        transformer.latents = len(weights["network.latents"])
        transformer.decoder_layers = _count(weights, "decoder")
    return replace(base, transformer=transformer, signed_images=True, frame="official")


def _unofficial(original: Original, base: LvsmConfig) -> LvsmConfig:
    weights = original.weights
    norms = [name for name in weights if ".attention.norm." in name]
    kind = "none"
    if norms:
        kind = "layer" if any(name.endswith("queries.weight") for name in norms) else "l2"
    latent = LatentConfig()
    columns = weights["network.source_tokens.weight"].shape[1]
    channels = 9
    last = [
        value for name, value in weights.items() if name.startswith("rays.") and value.shape[2:] == (1, 1)
    ]
    if last:  # the convolution to the latents' channels
        channels = 2 * len(last[0])
        latent = replace(
            base.latent, autoencoder=base.latent.autoencoder or _autoencoder(weights), compat=True
        )
        if original.lora:
            rank = len(next(iter(original.lora.values()))[0])
            latent = replace(latent, lora=LoraConfig(rank, base.latent.lora.alpha))
    transformer = replace(
        _transformer(weights, base.transformer),
        kind="masked",
        patch=math.isqrt(columns // channels),
        qk_norm=kind,  # type: ignore[arg-type]
        two_norms=True,
        initialisation="unofficial",
    )
    return replace(base, transformer=transformer, latent=latent, signed_images=False, frame="sources")


def _autoencoder(weights: Mapping[str, Tensor]) -> str:
    """The published autoencoder that the weights are shaped like: by its latent channels."""
    channels = weights["autoencoder.decoder.conv_in.weight"].shape[1]
    return "sd35" if channels == 16 else "sd15"


def _count(weights: Mapping[str, Tensor], stack: str) -> int:
    """How many layers a stack has."""
    start = f"network.{stack}."
    return 1 + max(int(name[len(start) :].split(".")[0]) for name in weights if name.startswith(start))
