"""What a module's weights are to a checkpoint: which are kept, and how they are put back, strictly."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from common.errors import UserError
from engine.tensor_files import sha256_tensors


def saved_tensors(module: nn.Module) -> dict[str, Tensor]:
    """What `model.safetensors` holds: trainable parameters and persistent buffers, each tensor once.

    Where the module says `keeps_frozen`, parameters that are not trained count as well.
    """
    kept = getattr(module, "keeps_frozen", False)
    frozen = {id(p) for p in module.parameters() if not (p.requires_grad or kept)}
    found: dict[int, tuple[str, Tensor]] = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        if id(tensor) not in frozen:
            found.setdefault(id(tensor), (name, tensor))  # tied weights go by their first name
    return dict(found.values())


def all_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Every parameter, trained or not, and every persistent buffer, each tensor once."""
    found: dict[int, tuple[str, Tensor]] = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        found.setdefault(id(tensor), (name, tensor))
    return dict(found.values())


def frozen_hashes(module: nn.Module) -> dict[str, str]:
    """SHA-256 of the parameters that are not trained, per top-level part of the module."""
    parts: dict[str, dict[str, Tensor]] = {}
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            parts.setdefault(name.split(".")[0], {})[name] = parameter
    return {part: sha256_tensors(tensors) for part, tensors in parts.items()}


@torch.no_grad()
def assign(module: nn.Module, tensors: Mapping[str, Tensor], source: Path) -> None:
    """Copy tensors into a module, strictly: all that a checkpoint holds, nothing unknown, equal shapes.

    Tensors that have no memory yet (of the 'meta' device) are replaced by the checkpoint's own, as float32;
    those it must bring too, trained or not.
    Raises UserError that names what differs, and then copies nothing.
    """
    known = module.state_dict(keep_vars=True)
    empty = [name for name, tensor in known.items() if tensor.is_meta]
    faults = {
        "missing": [
            name for name in {**saved_tensors(module), **dict.fromkeys(empty)} if name not in tensors
        ],
        "unexpected": [name for name in tensors if name not in known],
        "of another shape": [
            f"{name} ({list(tensor.shape)} there, {list(known[name].shape)} here)"
            for name, tensor in tensors.items()
            if name in known and tensor.shape != known[name].shape
        ],
    }
    if any(faults.values()):
        listed = "; ".join(f"{what}: {shorten(names)}" for what, names in faults.items() if names)
        raise UserError(f"the weights in {source} do not fit this model: {listed}")
    put(module, tensors)


@torch.no_grad()
def put(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy tensors into a module that has them all, in equal shapes; see `assign`."""
    known = module.state_dict(keep_vars=True)
    for name, tensor in tensors.items():
        if known[name].is_meta:
            _replace(module, name, tensor)
        else:
            known[name].copy_(tensor)


def _replace(module: nn.Module, name: str, tensor: Tensor) -> None:
    """Put a tensor in the place of a parameter or buffer, which stays as trainable as it was."""
    place, _, last = name.rpartition(".")
    owner = module.get_submodule(place)
    old = getattr(owner, last)
    new = tensor.to(old.dtype)
    setattr(owner, last, nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new)


def shorten(names: list[str], limit: int = 4) -> str:
    """The first few names, and how many more there are."""
    rest = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + rest
