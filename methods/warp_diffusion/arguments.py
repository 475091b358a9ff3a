"""The method's own flags: those of the original's scripts, and what a photo needs."""

from __future__ import annotations

import argparse
from pathlib import Path

from common.cli import add_boolean, positive
from common.errors import UserError
from engine.config import Experiment
from engine.method import Script
from methods.warp_diffusion.config import WarpDiffusionConfig
from methods.warp_diffusion.original_configs import MEGASCENES

DATASETS = ("megascenes", "dtu", "re10k", "mipnerf")


def add_arguments(parser: argparse.ArgumentParser, script: Script) -> None:
    """Add the flags of `train.py`, `test.py` or `video_script.py`."""
    adders = {"train": _add_training, "test": _add_test, "video": _add_video}
    adders[script](parser)


def _add_training(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-f", "--finetune", type=Path, metavar="FILE", help="original checkpoint to start from"
    )


def _add_test(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--dataset",
        choices=DATASETS,
        default="megascenes",
        help="others than megascenes are folders of posed scenes, data.root=FOLDER (default: megascenes)",
    )
    parser.add_argument(
        "--released_ckpt", metavar="NAME", help="weights file in iter_N, such as zeronvs.ckpt"
    )


def _add_video(parser: argparse.ArgumentParser) -> None:
    add_boolean(parser, "-z", "--zeronvs", help="the model sees no warp (8 channels); warps are written")
    add_boolean(parser, "-w", "--warponly", help="the model is told of no pose")
    add_boolean(parser, "--ckpt_file", help="load iter_N/zeronvs.ckpt")
    parser.add_argument(
        "-b", "--batch_size", type=positive(int), help="samples per view (model.sampling.samples)"
    )
    parser.add_argument(
        "--repeat", type=positive(int), default=10, help="views per network call (default 10)"
    )
    parser.add_argument("--depth", type=Path, metavar="FILE", help="z-depth of the photo given with -i")
    parser.add_argument(
        "--focal",
        type=positive(float),
        metavar="PX",
        help="its focal length (default: EXIF, else 53 degrees)",
    )
    add_boolean(
        parser,
        "--original_camera",
        help="the original's lens (80 pixels of 256, whatever the photo) and lengths of paths",
    )


def apply_arguments(args: argparse.Namespace, experiment: Experiment) -> None:
    """Let the flags change the experiment. Raises UserError for flags that contradict it."""
    model: WarpDiffusionConfig = experiment.model
    if getattr(args, "finetune", None) is not None:
        model.finetune = str(args.finetune)
    if getattr(args, "released_ckpt", None):
        model.checkpoint_file = args.released_ckpt
    if getattr(args, "dataset", "megascenes") != "megascenes":
        _choose_scenes(args, experiment)
    if not hasattr(args, "zeronvs"):
        return
    if args.zeronvs and model.warp != "none":
        raise UserError(
            f"-z is for models that see no warp, and {args.exp_dir} has model.warp={model.warp}: leave it out"
        )
    if args.warponly:
        model.token = "image"
    if args.ckpt_file:
        model.checkpoint_file = "zeronvs.ckpt"
    if args.batch_size is not None:
        model.sampling.samples = args.batch_size
    model.sampling.batch = args.repeat * model.sampling.samples


def _choose_scenes(args: argparse.Namespace, experiment: Experiment) -> None:
    """Evaluate on scenes in the shared formats. Raises UserError where `data.root` still is the pairs'."""
    if experiment.data.format == "megascenes" and experiment.data.root == MEGASCENES["root"]:
        raise UserError(f"--dataset {args.dataset}: name the folder of its scenes with data.root=FOLDER")
    if experiment.data.format == "megascenes":
        experiment.data.format = "auto"
