"""Prepare the MegaScenes image pairs: pair files, aligned depth, warps."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any, get_args

from common.cli import add_boolean, command_parser, setup_logging
from common.errors import UserError, command
from dataloader.megascenes.places import Layout

EXAMPLES = """
python scripts/megascenes.py convert-pairs splits/trainsplit.pkl splits/trainsplit.safetensors
python scripts/megascenes.py align-depth disparity/Castle reconstruct/012/345/sparses/0 depths/Castle
python scripts/megascenes.py prepare-warps splits/testsplit.safetensors photos/ depths/ warps/ --workers 8
python scripts/megascenes.py prepare-warps splits/trainsplit.safetensors photos/ depths/ warps/ --shard 3/16
python scripts/submit.py --shards 16 --cpus 8 -- python scripts/megascenes.py prepare-warps \
splits/trainsplit.safetensors photos/ depths/ warps/ --workers 8
"""


def parse() -> argparse.Namespace:
    parser = command_parser(__doc__ or "", EXAMPLES)
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="{convert-pairs,align-depth,prepare-warps}"
    )
    shared = {"epilog": parser.epilog, "formatter_class": parser.formatter_class, "allow_abbrev": False}
    add_convert_pairs(commands, shared)
    add_align_depth(commands, shared)
    add_prepare_warps(commands, shared)
    return parser.parse_args()


def add_convert_pairs(commands: Any, shared: dict[str, Any]) -> None:
    sub = commands.add_parser(
        "convert-pairs",
        help="split pickle -> pair file that opens at once and runs nothing",
        description="Read a split file of MegaScenes NVS (trainsplit.pkl, testsplit.pkl) without running "
        "anything it holds, check every pair and write a table, which is mapped and not loaded: 16 bytes per "
        "pair and about 230 per photo. Takes about 4 kB of memory per pair, once: 8 GB for two million.",
        **shared,
    )
    sub.add_argument("split", type=Path, metavar="SPLIT.pkl", help="split file to read")
    sub.add_argument("out", type=Path, metavar="OUT.safetensors", help="table to write")


def add_align_depth(commands: Any, shared: dict[str, Any]) -> None:
    sub = commands.add_parser(
        "align-depth",
        help="monocular disparity maps + COLMAP model -> depth maps in the model's units",
        description="For each photo of the model with a map DISPARITIES/NAME.npy (disparity, any size), fit "
        "scale and shift to the sparse points it sees, outliers apart, and write z-depth to OUT/NAME.npy. "
        "Maps that are there are kept: a killed run continues.",
        **shared,
    )
    sub.add_argument("disparities", type=Path, metavar="DISPARITIES", help="folder of .npy disparity maps")
    sub.add_argument("model", type=Path, metavar="MODEL", help="folder of cameras, images and points3D")
    sub.add_argument("out", type=Path, metavar="OUT", help="folder for the .npy depth maps")


def add_prepare_warps(commands: Any, shared: dict[str, Any]) -> None:
    sub = commands.add_parser(
        "prepare-warps",
        help="photos + depth -> the warp of every pair, as PNG",
        description="Lift the first photo of every pair by its depth and render it for the second's camera. "
        "The depth of PHOTOS/a/b.jpg is DEPTHS/a/b.npy. Files are named as the original names them. Warps "
        "that are there are kept: a killed run continues. Several runs may share OUT, each with its --shard.",
        **shared,
    )
    sub.add_argument("pairs", type=Path, metavar="PAIRS", help="table of convert-pairs, or a split pickle")
    sub.add_argument("photos", type=Path, metavar="PHOTOS", help="folder of the photos")
    sub.add_argument("depths", type=Path, metavar="DEPTHS", help="folder of the depth maps")
    sub.add_argument("out", type=Path, metavar="OUT", help="folder for the warps")
    sub.add_argument(
        "--layout",
        choices=get_args(Layout),
        default="auto",
        help="how PHOTOS is laid out (default: by looking)",
    )
    sub.add_argument(
        "--max_size",
        type=int,
        default=0,
        metavar="N",
        help="long side to which photos and warps are reduced, in pixels; 0 keeps them (default: 0). 512 is "
        "enough for a model of 256 pixels, and much faster",
    )
    add_boolean(
        sub,
        "--alpha",
        default=True,
        help="keep what is covered as alpha; False writes the original's plain RGB",
    )
    sub.add_argument("--shard", default="0/1", metavar="I/N", help="part I of N, from 0 (default: 0/1)")
    sub.add_argument(
        "--workers",
        type=int,
        default=0,
        metavar="N",
        help="processes, 0.7 GB each and 0.7 kB per pixel of a photo; 0 works in this one (default: 0)",
    )
    sub.add_argument(
        "--max_failures",
        type=int,
        default=100,
        metavar="N",
        help="stop when more pairs than this cannot be made (default: %(default)s)",
    )


def convert_pairs(args: argparse.Namespace) -> None:
    from dataloader.megascenes.pair_table import collect_pairs, write_pairs
    from dataloader.megascenes.split_pickle import read_split_pickle

    if args.out.suffix != ".safetensors":
        raise UserError(f"{args.out}: name a file that ends in .safetensors")
    table = collect_pairs(read_split_pickle(args.split), str(args.split))
    write_pairs(table, args.out)
    print(f"{args.out}: {len(table)} pairs of {len(table.columns['text_end'])} photos")


def align_depth(args: argparse.Namespace) -> None:
    from dataloader.megascenes.model_depths import align_folder

    done = align_folder(args.disparities, args.model, args.out)
    for message in done.failed:
        print(f"not aligned: {message}")
    if done.failed and not done.made + done.present:
        raise UserError(f"none of the {len(done.failed)} disparity maps could be aligned: see above")
    print(
        f"{args.out}: {done.made} depth maps made, {done.present} there already, {len(done.failed)} failed; "
        f"{done.absent} photos without a disparity map"
    )


def prepare_warps(args: argparse.Namespace) -> None:
    from dataloader.megascenes.prepare import WarpJob, prepare_warps

    match = re.fullmatch(r"(\d+)/(\d+)", args.shard)
    if match is None:
        raise UserError(f"--shard is {args.shard!r}: write it as 0/16 to 15/16")
    job = WarpJob(args.pairs, args.photos, args.depths, args.out, args.layout, args.alpha, args.max_size)
    done = prepare_warps(job, int(match[1]), int(match[2]), args.workers, args.max_failures)
    print(f"{args.out}: {done.made} warps made, {done.present} there already, {len(done.failed)} failed")


@command
def main() -> None:
    args = parse()
    setup_logging()
    {"convert-pairs": convert_pairs, "align-depth": align_depth, "prepare-warps": prepare_warps}[
        args.command
    ](args)


if __name__ == "__main__":
    main()
