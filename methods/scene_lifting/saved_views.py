"""Finished views on the disk, each with a fingerprint of everything that it was made from."""

from __future__ import annotations

import hashlib
import json
import logging
import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from common.files import replacing
from dataloader.images import write_image
from engine.sheets import contact_sheet, depth_map
from methods.scene_lifting.config import GenerationConfig
from methods.scene_lifting.plan import PlannedView
from methods.scene_lifting.seeing import Seen
from methods.scene_lifting.state import LiftedScene, LiftedView

log = logging.getLogger(__name__)

_FORMAT = 1  # of the files and of the way views are made; raise it to have all of them made anew
# What of the settings decides a view; cameras, prompts and seeds are in its plan, the rest in the points.
_SETTINGS = ("next_scale", "rendering", "snap_threshold", "snap_erosion", "seams", "seam_reach")


def fingerprint(scene: LiftedScene, plan: PlannedView, config: GenerationConfig, models: str) -> str:
    """32 hexadecimal digits that depend on all that a view is made from, and on nothing else.

    scene: as it is before the view; its points stand for the photo and all earlier views.
    """
    words = {
        "format": _FORMAT,
        "settings": {name: getattr(config, name) for name in _SETTINGS},
        "prompt": [plan.prompt, plan.negative_prompt, plan.seed],
        "size": [plan.camera.height, plan.camera.width],
        "models": models,
    }
    digest = hashlib.blake2b(json.dumps(words, sort_keys=True).encode(), digest_size=16)
    for tensor in (plan.camera.K, plan.camera.c2w, scene.points, scene.colors):
        digest.update(_array(tensor).tobytes())
    return digest.hexdigest()


def view_path(folder: Path, name: str) -> Path:
    """The file of a view: an .npz with image, depth, known, K, c2w, prompt and the fingerprint `key`."""
    return folder / f"{name}.npz"


def write_view(folder: Path, view: LiftedView, key: str) -> None:
    """Write a view, whole or not at all. Raises UserError when the folder cannot be written."""
    arrays = {
        "image": _array(view.image),
        "depth": _array(view.depth),
        "known": _array(view.known),
        "K": _array(view.camera.K),
        "c2w": _array(view.camera.c2w),
        "prompt": np.array(view.prompt),
        "key": np.array(key),
    }
    with replacing(view_path(folder, view.name)) as partial, partial.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def read_view(folder: Path, plan: PlannedView, key: str, device: torch.device) -> LiftedView | None:
    """The planned view, where the folder holds one of this fingerprint; a damaged file counts as none."""
    path = view_path(folder, plan.name)
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            if str(file["key"]) != key:
                log.info("%s was made from something else: it is made anew", path)
                return None
            image, depth, known = (torch.from_numpy(file[n]).to(device) for n in ("image", "depth", "known"))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        log.warning("%s cannot be read (%s): the view is made anew", path, error)
        return None
    return LiftedView(image, plan.camera, depth, known, plan.name, plan.prompt)


def write_preview(folder: Path, seen: Seen, view: LiftedView) -> None:
    """Write NAME.png: what the scene showed of a view, what was to be painted, the view, and its depth."""
    hole = seen.hole.float().expand(3, -1, -1)
    pictures = [seen.image, hole, view.image, depth_map(view.depth[None].cpu())]
    sheet = contact_sheet([[picture.cpu() for picture in pictures]], ["seen", "to paint", "view", "depth"])
    write_image(sheet, folder / f"{view.name}.png")


def _array(tensor: Tensor) -> np.ndarray:
    return np.ascontiguousarray(tensor.detach().cpu().numpy())
