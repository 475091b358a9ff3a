"""The methods, by name. Importing this module imports no method and no heavy library."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from common.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from dataloader.scene import Scene
    from engine.config import Experiment
    from engine.method import Method

METHODS = {
    "nearest_view": "methods.baselines.photos:NearestView",
    "mean_view": "methods.baselines.photos:MeanView",
    "single_plane": "methods.baselines.photos:SinglePlane",
    "depth_warp": "methods.baselines.depth_warp:DepthWarp",
    "photo_blend": "methods.baselines.photo_blend:PhotoBlend",
    "vertex_colors": "methods.baselines.vertex_colors:VertexColors",
}


def method_class(name: str) -> type[Method]:
    """The class registered under a name. Raises UserError for an unknown one."""
    if name not in METHODS:
        raise UserError(f"unknown method {name!r}: choose from {', '.join(METHODS)}")
    module, _, attribute = METHODS[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def load_experiment(folder: Path, overrides: Sequence[str] = ()) -> tuple[Experiment, type[Method]]:
    """Read an experiment folder and find its method."""
    from engine.config import read_config, resolve

    raw = read_config(folder, overrides)
    if "method" not in raw:
        raise UserError(f"{folder / 'config.yaml'} names no method: add a line 'method: NAME'")
    kind = method_class(str(raw["method"]))
    return resolve(raw, kind.Config), kind


def create_method(experiment: Experiment, scene: Scene | None = None) -> Method:
    """Build an experiment's method. Raises UserError when its config does not fit the scene."""
    return method_class(experiment.method).create(experiment.model, scene)
