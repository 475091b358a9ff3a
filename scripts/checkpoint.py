"""Checkpoints: rewrite one of ours or of an original implementation for use elsewhere."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from common.cli import command_parser, setup_logging, split_overrides
from common.errors import UserError, command
from engine.checkpoint import find_trained, load_averaged, load_for_inference, open_folder
from engine.method import Method
from engine.outputs import prepare_folder, write_provenance
from methods import create_method, load_experiment, load_original, open_data

EXAMPLES = """
python scripts/checkpoint.py convert configs/warp_plus_pose -r 112000 outputs/warp_plus_pose
python scripts/checkpoint.py convert configs/zeronvs_original -r 0 outputs/zeronvs
python scripts/checkpoint.py convert configs/warp_diffusion/toy -r latest outputs/toy --dtype float16
python scripts/checkpoint.py save-pretrained configs/warp_diffusion/toy outputs/toy_pretrained
python scripts/checkpoint.py save-pretrained scene_decoder_only_256.pt outputs/lvsm_official
python scripts/checkpoint.py save-pretrained outputs/fox/iter_600 outputs/fox_pretrained data.root=scenes/fox
"""

DTYPES = ("float32", "float16", "bfloat16")


def build_parser() -> argparse.ArgumentParser:
    """The sub-commands and their flags."""
    parser = command_parser(__doc__ or "", EXAMPLES)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    convert = commands.add_parser(
        "convert",
        help="write a checkpoint as diffusers and transformers save theirs",
        description="Write a checkpoint in the folders of diffusers and transformers (averaged weights where "
        "it has them). The folder loads as an iter_N of the same experiment.",
        epilog=parser.epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    convert.add_argument("exp_dir", type=Path, help="experiment folder")
    convert.add_argument("out", type=Path, help="folder to write, new or empty")
    convert.add_argument("-r", "--resume", default="latest", help="checkpoint: N or latest (default)")
    convert.add_argument("--dtype", default="float32", choices=DTYPES, help="default: float32")
    convert.add_argument("--output_dir", type=Path, help="where the iter_N folders are (default: EXP_DIR)")
    save = commands.add_parser(
        "save-pretrained",
        help="write a checkpoint as a folder that from_pretrained, init_from and -r take",
        description="Write config.json, model.safetensors (averaged weights where the checkpoint has them, "
        "those that are not trained too) and a model card. key=value words change the experiment.",
        epilog=parser.epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    save.add_argument(
        "source",
        type=Path,
        help="experiment folder, one of our iter_N, or an original's .ckpt or .pt (lvsm, scene_lifting)",
    )
    save.add_argument("out", type=Path, help="folder to write; a README.md in it is kept")
    save.add_argument("--dtype", default="float32", choices=DTYPES, help="of the file (default: float32)")
    save.add_argument("-r", "--resume", default="latest", help="checkpoint: N or latest (default)")
    save.add_argument("--output_dir", type=Path, help="where the iter_N folders are (default: SOURCE)")
    return parser


def convert(args: argparse.Namespace) -> None:
    """Load, check strictly, write."""
    if args.out.exists() and (not args.out.is_dir() or any(args.out.iterdir())):
        raise UserError(f"{args.out} is there already: name a folder that is new or empty")
    experiment, kind = load_experiment(args.exp_dir)
    if not kind.trains:
        raise UserError(f"{experiment.method} has no weights to convert")
    found = find_trained(args.output_dir or args.exp_dir, args.resume)
    method = create_method(experiment)
    load_for_inference(method, found)
    method.to(getattr(torch, args.dtype))
    for folder in method.export(prepare_folder(args.out)):
        print(folder)
    write_provenance(args.out, {"checkpoint": str(found.path)}, experiment.training.seed)


def save_pretrained(args: argparse.Namespace, overrides: list[str]) -> None:
    """Load, check strictly, write."""
    if args.source.is_file():
        if overrides:
            raise UserError(f"{overrides[0]}: the settings of {args.source} are read off its weights")
        write_pretrained(load_original(args.source), args)
        return
    experiment, kind = load_experiment(args.source, overrides)
    if not kind.trains:
        raise UserError(f"{experiment.method} has no weights to save")
    if (args.source / "manifest.json").exists():
        found = open_folder(args.source)
    else:
        found = find_trained(args.output_dir or args.source, args.resume)
    method = create_method(experiment, open_data(experiment, kind) if kind.needs_scene else None)
    load_averaged(method, found)
    write_pretrained(method, args)


def write_pretrained(method: Method, args: argparse.Namespace) -> None:
    """Write a folder for `from_pretrained` and say what is in it."""
    method.to(getattr(torch, args.dtype))
    prepare_folder(args.out)
    for file in method.save_pretrained(args.out):
        print(file)


@command
def main() -> None:
    setup_logging()
    overrides, words = split_overrides(sys.argv[1:])
    args = build_parser().parse_args(words)
    if args.command == "save-pretrained":
        save_pretrained(args, overrides)
    elif overrides:
        raise UserError(f"{overrides[0]}: convert takes the experiment as it is")
    else:
        convert(args)


if __name__ == "__main__":
    main()
