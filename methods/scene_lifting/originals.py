"""Reads the original's checkpoints, and those of ZoeDepth, into ours (specs/scene_lifting 2.3)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common.errors import UserError
from engine.tensor_files import read_torch
from methods.scene_lifting.config import NetworkConfig

_BLOCK = r"core\.core\.pretrained\.model\.blocks\.(\d+)\."
_REFINE = r"core\.core\.scratch\.refinenet(\d)\."
_READOUT = r"core\.core\.pretrained\.act_postprocess(\d)\."
_HEAD = r"(seed_bin_regressor|seed_projector|projectors\.\d|attractors\.\d)\._net\."


def _layer(match: re.Match[str]) -> str:
    return f"backbone.beit.layers.{match[1]}."


def _fusion(match: re.Match[str]) -> str:
    return f"neck.fusion_stage.layers.{4 - int(match[1])}."


# Patterns of the original's names -> ours; the first that matches whole names them.
_RULES: tuple[tuple[str, Any], ...] = (
    (r"core\.core\.pretrained\.model\.cls_token", "backbone.beit.embeddings.cls_token"),
    (
        r"core\.core\.pretrained\.model\.patch_embed\.proj\.(\w+)",
        r"backbone.beit.embeddings.patch_embeddings.projection.\1",
    ),
    (_BLOCK + r"gamma_(\d)", lambda m: f"{_layer(m)}lambda_{m[2]}"),
    (_BLOCK + r"norm1\.(\w+)", lambda m: f"{_layer(m)}layernorm_before.{m[2]}"),
    (_BLOCK + r"norm2\.(\w+)", lambda m: f"{_layer(m)}layernorm_after.{m[2]}"),
    (_BLOCK + r"attn\.([qv])_bias", lambda m: f"{_layer(m)}attention.{m[2]}_proj.bias"),
    (_BLOCK + r"attn\.proj\.(\w+)", lambda m: f"{_layer(m)}attention.o_proj.{m[2]}"),
    (
        _BLOCK + r"attn\.relative_position_bias_table",
        lambda m: f"{_layer(m)}relative_position_bias.relative_position_bias_table",
    ),
    (_BLOCK + r"mlp\.(fc\d\.\w+)", lambda m: f"{_layer(m)}mlp.{m[2]}"),
    (_READOUT + r"0\.project\.0\.(\w+)", lambda m: f"{_neck('readout_projects', m)}.0.{m[2]}"),
    (_READOUT + r"3\.(\w+)", lambda m: f"{_neck('layers', m)}.projection.{m[2]}"),
    (_READOUT + r"4\.(\w+)", lambda m: f"{_neck('layers', m)}.resize.{m[2]}"),
    (r"core\.core\.scratch\.layer(\d)_rn\.weight", lambda m: f"neck.convs.{int(m[1]) - 1}.weight"),
    (_REFINE + r"out_conv\.(\w+)", lambda m: f"{_fusion(m)}projection.{m[2]}"),
    (
        _REFINE + r"resConfUnit(\d)\.conv(\d)\.(\w+)",
        lambda m: f"{_fusion(m)}residual_layer{m[2]}.convolution{m[3]}.{m[4]}",
    ),
    (
        r"core\.core\.scratch\.output_conv\.([024])\.(\w+)",
        lambda m: f"relative_head.conv{int(m[1]) // 2 + 1}.{m[2]}",
    ),
    (r"conv2\.(\w+)", r"metric_head.conv2.\1"),
    (_HEAD + r"([02])\.(\w+)", lambda m: f"metric_head.{m[1]}.conv{int(m[2]) // 2 + 1}.{m[3]}"),
    (r"(conditional_log_binomial\.mlp\.[02]\.\w+)", r"metric_head.\1"),
)
_QKV = re.compile(_BLOCK + r"attn\.qkv\.weight")
# Constants, and layers that are given nothing.
_UNUSED = re.compile(
    r".*\.attn\.relative_position_index"
    r"|core\.core\.pretrained\.model\.(fc_norm|head)\.\w+"
    r"|core\.core\.scratch\.refinenet4\.resConfUnit1\..*"
    r"|conditional_log_binomial\.log_binomial_transform\.(k_idx|K_minus_1)"
)


def _neck(part: str, match: re.Match[str]) -> str:
    return f"neck.reassemble_stage.{part}.{int(match[1]) - 1}"


def convert_state_dict(weights: Mapping[str, Tensor], source: Path | str) -> dict[str, Tensor]:
    """An original state dict under the names of `network.build_zoedepth`; constants are left out.

    Raises UserError that names a key the original network does not have.
    """
    found: dict[str, Tensor] = {}
    for name, value in weights.items():
        name = name.removeprefix("module.")  # of DataParallel
        if match := _QKV.fullmatch(name):
            parts = value.chunk(3)
            found |= {
                f"{_layer(match)}attention.{part}_proj.weight": rows
                for part, rows in zip("qkv", parts, strict=True)
            }
        elif not _UNUSED.fullmatch(name):
            found[_our_name(name, source)] = value
    return found


def _our_name(name: str, source: Path | str) -> str:
    for pattern, replacement in _RULES:
        match = re.fullmatch(pattern, name)
        if match:
            return replacement(match) if callable(replacement) else match.expand(replacement)
    raise UserError(f"{source} has the weight {name}, which the depth-completion network does not have")


def read_state_dict(file: Path) -> dict[str, Tensor]:
    """The state dict of a file of the original: bare, or below 'model'. Nothing in the file is run.

    Raises UserError when it holds no tensors.
    """
    weights = _state_dict(read_torch(file))
    if weights is None:
        raise UserError(f"{file} holds no weights of a network: get it again")
    return weights


def _state_dict(values: Any) -> dict[str, Tensor] | None:
    """The tensors by name in what a file holds; None where it holds something else."""
    if isinstance(values, dict) and isinstance(values.get("model"), dict):
        values = values["model"]
    if not isinstance(values, dict) or not all(isinstance(value, Tensor) for value in values.values()):
        return None
    return values


def find_weights(file: Path) -> dict[str, Tensor] | None:
    """The state dict of a file of the original, known by a name of its network; None for other files."""
    weights = _state_dict(read_torch(file)) or {}
    names = (name.removeprefix("module.") for name in weights)
    known = any(name.startswith("core.core.pretrained.model.patch_embed") for name in names)
    return weights if known else None


def infer_config(weights: Mapping[str, Tensor]) -> NetworkConfig:
    """The network's settings, read off the shapes of converted weights.

    What shapes do not tell is as published: input of 384x512 and heads of 64 channels (at least two heads),
    and the four hooks spread evenly.
    """
    table = weights["backbone.beit.layers.0.relative_position_bias.relative_position_bias_table"]
    hidden = weights["backbone.beit.embeddings.cls_token"].shape[-1]
    layers = len({name.split(".")[3] for name in weights if name.startswith("backbone.beit.layers.")})
    return NetworkConfig(
        hidden=hidden,
        layers=layers,
        heads=table.shape[1],
        mlp=len(weights["backbone.beit.layers.0.mlp.fc1.bias"]),
        window=round((((len(table) - 3) ** 0.5) + 1) / 2),
        hooks=tuple(layers * (i + 1) // 4 for i in range(4)),
        reassemble=tuple(len(weights[f"neck.reassemble_stage.layers.{i}.projection.bias"]) for i in range(4)),
        features=len(weights["neck.fusion_stage.layers.0.projection.bias"]),
        bins=len(weights["metric_head.seed_bin_regressor.conv2.bias"]),
        bin_embedding=len(weights["metric_head.seed_projector.conv2.bias"]),
    )


def find_file(folder: Path) -> Path | None:
    """The original's checkpoint in a folder: its only .pt file, `invisible-stitch.pt` before others; or the
    file itself.

    Raises UserError where there are several to choose from.
    """
    if folder.is_file():
        return folder
    files = sorted(folder.glob("*.pt"))
    published = [file for file in files if file.name == "invisible-stitch.pt"]
    if len(published or files) > 1:
        raise UserError(f"{folder} holds several .pt files ({', '.join(f.name for f in files)}): keep one")
    return next(iter(published or files), None)


def widened(weights: dict[str, Tensor], channels: int) -> dict[str, Tensor]:
    """Converted weights whose patch embedding of 3 channels has zeros for those beyond; others unchanged."""
    name = "backbone.beit.embeddings.patch_embeddings.projection.weight"
    weight = weights[name]
    if weight.shape[1] >= channels:
        return weights
    extra = torch.zeros(len(weight), channels - weight.shape[1], *weight.shape[2:])
    return weights | {name: torch.cat([weight.float(), extra], dim=1)}
