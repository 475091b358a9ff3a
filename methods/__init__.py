"""The methods, by name. Importing this module imports no method and no heavy library."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.cli import split_overrides
from common.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.config import Experiment
    from engine.method import Method, Script

METHODS = {
    # baselines
    "nearest_view": "methods.baselines.photos:NearestView",
    "mean_view": "methods.baselines.photos:MeanView",
    "single_plane": "methods.baselines.photos:SinglePlane",
    "depth_warp": "methods.baselines.depth_warp:DepthWarp",
    "photo_blend": "methods.baselines.photo_blend:PhotoBlend",
    "vertex_colors": "methods.baselines.vertex_colors:VertexColors",
    "hash_manifold": "methods.hash_manifold.method:HashManifold",
    "warp_diffusion": "methods.warp_diffusion.method:WarpDiffusion",
    "lvsm": "methods.lvsm.method:Lvsm",
    "scene_lifting": "methods.scene_lifting.method:SceneLifting",
    "mask_volume": "methods.mask_volume.method:MaskVolume",
}

# Readers of the originals' own config files: a parsed one -> ours, or None if it is not theirs.
ORIGINAL_CONFIGS = (
    "methods.warp_diffusion.original_configs:translate",
    "methods.lvsm.original_configs:translate",
    "methods.mask_volume.original_configs:translate",
)

BASELINES = tuple(name for name, place in METHODS.items() if place.startswith("methods.baselines."))


def method_class(name: str) -> type[Method]:
    """The class registered under a name. Raises UserError for an unknown one."""
    if name not in METHODS:
        raise UserError(f"unknown method {name!r}: choose from {', '.join(METHODS)}")
    return _find(METHODS[name])


def _find(place: str) -> Any:
    """What lies at 'module:attribute'."""
    module, _, attribute = place.partition(":")
    return getattr(importlib.import_module(module), attribute)


def load_experiment(folder: Path, overrides: Sequence[str] = ()) -> tuple[Experiment, type[Method]]:
    """Read an experiment folder, or an original's config file, and find its method."""
    from engine.config import config_file, read_config, resolve

    raw = read_config(folder, overrides, translate_original)
    if "method" not in raw:
        raise UserError(f"{config_file(folder)} names no method: add a line 'method: NAME'")
    kind = method_class(str(raw["method"]))
    return resolve(raw, kind.Config), kind


def translate_original(raw: dict[str, Any]) -> dict[str, Any]:
    """A parsed config file as it is, or as one of ours where it is an original implementation's."""
    if "method" in raw:
        return raw
    translated = (_find(place)(raw) for place in ORIGINAL_CONFIGS)
    return next((config for config in translated if config is not None), raw)


def parse_experiment(
    parser: argparse.ArgumentParser, script: Script, words: Sequence[str] | None = None
) -> tuple[argparse.Namespace, Experiment, type[Method]]:
    """Parse a script's command line: the experiment `-e` first, then its method adds its flags.

    parser: with the script's own flags, among them `-e/--exp_dir` and `--output_dir`. script: which one it
    is. words: the command line; None means sys.argv. Words of the form key.path=value override the
    experiment's config.
    """
    overrides, flags = split_overrides(list(sys.argv[1:] if words is None else words))
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("-e", "--exp_dir", type=Path)
    folder = finder.parse_known_args(flags)[0].exp_dir
    if folder is None:
        parser.parse_args(flags)  # shows the help that was asked for, or says that -e is missing
        parser.error("-e names the experiment folder")
    experiment, kind = load_experiment(folder, overrides)
    kind.add_arguments(parser, script)
    args = parser.parse_args(flags)
    if folder.is_file():  # an original's config file: its results go to a folder of its name
        args.exp_dir, args.output_dir = folder.parent, args.output_dir or folder.with_suffix("")
    kind.apply_arguments(args, experiment)
    return args, experiment, kind


def create_method(experiment: Experiment, scene: Any = None) -> Method:
    """Build an experiment's method. Raises UserError when its config does not fit the scene."""
    return method_class(experiment.method).create(experiment.model, scene)


def load_pretrained(place: str | Path, scene: Any = None) -> Method:
    """The method in a folder of `save_pretrained`, one of our iter_N, or a model of the hub (OWNER/NAME).

    A file is an original implementation's checkpoint. scene: for methods that need one. Raises UserError when
    there is none, or its weights do not fit.
    """
    from engine.checkpoint import open_pretrained
    from engine.pretrained import locate, read_config

    if Path(place).is_file():
        return load_original(Path(place))
    folder = locate(place)
    return open_pretrained(method_class(read_config(folder)[0]), folder, scene)


def load_original(file: Path) -> Method:
    """The method in an original implementation's checkpoint file. Raises UserError when none knows it."""
    kinds = [method_class(name) for name in METHODS if name not in BASELINES]
    found = next((method for kind in kinds if (method := kind.from_original(file)) is not None), None)
    if found is None:
        raise UserError(
            f"{file} is no original's checkpoint whose architecture can be read off its weights: put it into "
            "an iter_N folder of its experiment"
        )
    return found


def open_data(experiment: Experiment, kind: type[Method]) -> Any:
    """What `train.py` would start from, with the method's own flags at their defaults."""
    parser = argparse.ArgumentParser(add_help=False)
    kind.add_arguments(parser, "train")
    args = parser.parse_args([])
    kind.apply_arguments(args, experiment)
    return kind.open(args, experiment)


def open_trained(folder: Path, scene: Any) -> tuple[str, Method]:
    """The name and the method of the newest checkpoint in a folder, built by the config saved with it.

    Raises UserError when the folder holds no checkpoint of ours.
    """
    from engine.checkpoint import find, load_for_inference

    found = find(folder, "latest")
    assert found is not None  # 'latest' raises where there is none
    experiment, _ = load_experiment(found.path)
    method = create_method(experiment, scene)
    load_for_inference(method, found)
    return experiment.method, method


def open_experiment(
    args: argparse.Namespace, experiment: Experiment, kind: type[Method], partly: bool = False
) -> tuple[Any, Method]:
    """What test.py and video_script.py start from: the scene (or pairs), and the method with its weights.

    args: with `exp_dir`, `output_dir` and `resume`. partly: where the checkpoint is not there, be content
    with a method that does what needs none (`Method.without_weights`). Raises UserError when a trained method
    comes without -r.
    """
    if kind.needs_weights(experiment.model):
        require_resume(args, experiment)
    scene = kind.open(args, experiment)
    return scene, open_method(args, experiment, kind, scene, partly)


def require_resume(args: argparse.Namespace, experiment: Experiment) -> None:
    """Raise UserError where no checkpoint is named."""
    if args.resume is None:
        raise UserError(f"{experiment.method} is trained: name its checkpoint with -r latest or -r N")


def open_method(
    args: argparse.Namespace,
    experiment: Experiment,
    kind: type[Method],
    scene: Any = None,
    partly: bool = False,
) -> Method:
    """An experiment's method, for a scene or none, with the weights that `args` names, as above."""
    from engine.checkpoint import MissingCheckpointError, find_trained, load_for_inference

    if not kind.needs_weights(experiment.model):
        return create_method(experiment, scene)
    require_resume(args, experiment)
    try:
        found = find_trained(args.output_dir or args.exp_dir, args.resume)
    except MissingCheckpointError as error:
        message = f"{error}; {kind.weights_hint}" if kind.weights_hint else str(error)
        less = kind.without_weights(experiment.model, scene, message) if partly else None
        if less is None:
            raise MissingCheckpointError(message) from None
        return less
    method = create_method(experiment, scene)
    load_for_inference(method, found)
    return method
