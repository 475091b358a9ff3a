"""The original's files: checkpoints `epoch:NNNNN.pth.tar`, and the camera that it saw through."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common.errors import UserError
from geometry.cameras import Cameras

_TABLE = "spatial_enc.params"
_DECODER = "render_net_c."


def original_cameras(cameras: Cameras) -> Cameras:
    """The same cameras as the original takes them: fx = fy = K[1][1], centred, no skew (spec 3.4)."""
    K = torch.zeros_like(cameras.K)
    K[..., 0, 0] = K[..., 1, 1] = cameras.K[..., 1, 1]
    K[..., 0, 2], K[..., 1, 2], K[..., 2, 2] = cameras.width / 2, cameras.height / 2, 1
    return Cameras(K, cameras.c2w, cameras.height, cameras.width, cameras.time)


def find_checkpoint(folder: Path) -> Path | None:
    """The original's checkpoint in a folder (its latest epoch, else `best.pth.tar`, else None), or the file
    itself.
    """
    if folder.is_file():
        return folder
    epochs = sorted(folder.glob("epoch:*.pth.tar"))
    best = folder / "best.pth.tar"
    return epochs[-1] if epochs else best if best.is_file() else None


def read_checkpoint(path: Path, features: int) -> dict[str, Tensor]:
    """An original checkpoint as weights of `HashManifold`. features: per level of the grid.

    Raises UserError when the file is damaged or is not such a checkpoint.
    """
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, OSError, ValueError, KeyError) as error:
        raise UserError(
            f"cannot read {path} ({str(error).splitlines()[0]}): is it a whole checkpoint?"
        ) from None
    return convert(saved, path, features)


def convert(saved: Any, path: Path, features: int) -> dict[str, Tensor]:
    """The dictionary that the original saves -> names and shapes of `HashManifold`."""
    try:
        table = saved["spatial_encoding_dict"][_TABLE]
        weights = {"field.grid.params": table.reshape(-1, features)}
        for name, value in saved["shading_machine_dict"].items():
            weights["field.decoder." + name.removeprefix(_DECODER)] = value
        weights["field.lighting.weight"] = saved["l_embeddings_list"]["0.weight"]
        if "x_embeddings_list" in saved:
            weights["field.exposure.weight"] = saved["x_embeddings_list"]["0.weight"]
    except (KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise UserError(f"{path} is not a checkpoint of XScale-NVS ({error!r} in it)") from None
    return weights
