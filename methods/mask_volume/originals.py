"""Checkpoints of the original, of both stages: its names -> ours (specs/mask_volume 2.5).

Lightning's `.ckpt`, or the same state dict without the envelope. Nothing in such a file is run.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from common.errors import UserError
from engine.tensor_files import read_safetensors, read_torch
from methods.mask_volume.config import MaskVolumeConfig

log = logging.getLogger(__name__)

_SUFFIXES = (".ckpt", ".pt", ".pth", ".safetensors")
_FIRST = "models.mpi_net.conv1_1.model.0.weight"
_LOSS = "loss."  # VGG and its statistics, which drifted while it was trained with
_NAME = re.compile(r"models\.(mpi_net|mask_net)\.(conv[1-7]_[1-3])\.model\.([02])\.(weight|bias)")
_PARTS = {"0": "conv", "2": "norm"}


@dataclass
class Original:
    """The weights of an original's checkpoint under our names. dropped: names left out on purpose."""

    weights: dict[str, Tensor]
    dropped: list[str] = field(default_factory=list)

    @property
    def views(self) -> int:
        """How many source views its multi-plane images are made of."""
        return self.weights["mpi_net.conv1_1.conv.weight"].shape[1] // 3

    @property
    def width(self) -> int:
        """Channels of its first layer."""
        return self.weights["mpi_net.conv1_1.conv.weight"].shape[0]

    @property
    def has_mask(self) -> bool:
        """Whether it is of stage 2."""
        return any(name.startswith("mask_net.") for name in self.weights)


def find_file(place: Path) -> Path | None:
    """The weights file in a folder, or the file itself; None where there is none.

    Raises UserError when a folder holds several.
    """
    if place.is_file():
        return place
    files = sorted(path for path in place.iterdir() if path.suffix in _SUFFIXES)
    if len(files) > 1:
        raise UserError(f"{place} holds several checkpoints ({', '.join(f.name for f in files)}): keep one")
    return files[0] if files else None


def is_original(path: Path) -> bool:
    """Whether a file holds weights of the original, of either stage."""
    return path.suffix in _SUFFIXES and _FIRST in read_state_dict(path)


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by the original's names. Raises UserError for an unreadable file."""
    values = read_safetensors(path) if path.suffix == ".safetensors" else read_torch(path)
    if isinstance(values, Mapping) and isinstance(values.get("state_dict"), Mapping):
        values = values["state_dict"]
    if not isinstance(values, Mapping):
        raise UserError(f"{path} holds no state dict: take a .ckpt of Deep 3D Mask Volume")
    return {str(name): value for name, value in values.items() if isinstance(value, Tensor)}


def read_original(path: Path) -> Original:
    """Read a checkpoint file, memory-mapped.

    Raises UserError for an unreadable file, one of another program, or names that belong to no known part.
    """
    return convert(read_state_dict(path), path)


def convert(weights: Mapping[str, Tensor], source: Path) -> Original:
    """Rename a state dict: `models.NET.LAYER.model.0.*` -> `NET.LAYER.conv.*`, model.2 -> norm.

    The loss's network is left out. Raises UserError for other names, and where the MPI network is missing.
    """
    if _FIRST not in weights:
        raise UserError(f"{source} holds no weights of Deep 3D Mask Volume: {_FIRST} is not in it")
    found = Original({})
    unknown: list[str] = []
    for name, value in weights.items():
        match = _NAME.fullmatch(name)
        if match is not None:
            found.weights[f"{match[1]}.{match[2]}.{_PARTS[match[3]]}.{match[4]}"] = value
        elif name.startswith(_LOSS):
            found.dropped.append(name)
        else:
            unknown.append(name)
    if unknown:
        raise UserError(f"{source} holds weights of unknown parts: {', '.join(sorted(unknown)[:4])}")
    return found


def infer_config(path: Path) -> MaskVolumeConfig:
    """The settings of the model in a checkpoint file: what shapes tell, and what published weights need."""
    original = read_original(path)
    return MaskVolumeConfig(
        stage="mask" if original.has_mask else "mpi",
        views=original.views,
        width=original.width,
        sampling="original",
        premultiplied=False,
        own_colours=False,
        backdrop=False,
    )


def read_weights(place: Path, config: MaskVolumeConfig) -> dict[str, Tensor] | None:
    """The weights of an original's file, or of the one in a folder, under the names of `PlaneModel`.

    None where there is no such file. Of a stage-2 file, stage 1 takes the MPI network alone; stage 2 can
    begin with a stage-1 file. Raises UserError where the file is unreadable or of another size of model.
    """
    path = find_file(place)
    if path is None:
        return None
    original = read_original(path)
    for name, there, here in (
        ("views", original.views, config.views),
        ("width", original.width, config.width),
    ):
        if there != here:
            raise UserError(f"{path} is of a model with {name} {there}: set model.{name}={there}")
    if not config.as_published:
        log.warning(
            "%s was trained on other plane sweeps than these settings make: configs/mask_volume/original "
            "shows it as it was meant",
            path,
        )
    weights, left_out = original.weights, list(original.dropped)
    if config.stage == "mpi" and original.has_mask:
        left_out += [name for name in weights if name.startswith("mask_net.")]
        weights = {name: value for name, value in weights.items() if name.startswith("mpi_net.")}
    if left_out:
        log.info("%s: %d weights left out, such as %s", path, len(left_out), left_out[0])
    return weights
