"""The method's own flags: those of the original's `run.py`, and what a photo needs."""

from __future__ import annotations

import argparse
from pathlib import Path

from common.cli import positive
from common.errors import UserError
from engine.config import Experiment
from engine.method import Script
from geometry.scene_paths import MODES
from methods.scene_lifting.config import SceneLiftingConfig


def add_arguments(parser: argparse.ArgumentParser, script: Script) -> None:
    """Add the flags of `video_script.py` and `scripts/generate_scene.py` (script 'video')."""
    if script != "video":
        return
    group = parser.add_argument_group("the scene around a photo")
    group.add_argument("--prompt", help="what is around the photo, for all views (model.generation.prompt)")
    group.add_argument("--negative_prompt", help="what shall not be there (model.generation.negative_prompt)")
    group.add_argument("--mode", choices=tuple(MODES), help="which views are made (default: stage)")
    group.add_argument("--seed", type=int, help="of what is painted (default: 0)")
    group.add_argument(
        "--inpainter",
        metavar="NAME",
        help="hub id or folder of an inpainting pipeline; 'none' paints nothing (model.inpainter.name)",
    )
    group.add_argument(
        "--depth", type=Path, metavar="FILE", help="z-depth of the photo, 0 where it is unknown"
    )
    group.add_argument(
        "--focal",
        type=positive(float),
        metavar="PX",
        help="focal length of the photo (default: EXIF, else 53.13 degrees)",
    )


def apply_arguments(args: argparse.Namespace, experiment: Experiment) -> None:
    """Let the flags that were given change the experiment. Raises UserError for values that do not fit."""
    model: SceneLiftingConfig = experiment.model
    for name in ("prompt", "negative_prompt", "mode", "seed"):
        value = getattr(args, name, None)
        if value is not None:
            setattr(model.generation, name, value)
    for flag in ("depth", "focal"):
        if getattr(args, flag, None) is not None and args.inputimg is None:
            raise UserError(f"--{flag} is of a photo: name the photo with -i")
    model.generation.__post_init__()
    if getattr(args, "inpainter", None) is not None:
        model.inpainter.name = args.inpainter
        model.inpainter.__post_init__()
    if getattr(args, "inputimg", None) is not None:
        _need_prompt(model)


def _need_prompt(model: SceneLiftingConfig) -> None:
    """Raise UserError where views of a photo shall be painted and nobody says what."""
    settings = model.generation
    painted = model.inpainter.name != "none" and (settings.mode != "single" or settings.path)
    if painted and not settings.prompt.strip() and not settings.prompts:
        raise UserError(
            "there is no prompt: say what is around the photo with --prompt, or paint nothing with "
            "--inpainter none"
        )
