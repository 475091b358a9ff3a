"""Prepare what depth completion is trained and validated on: teacher depth, hole masks, NYU's test split."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.cli import add_boolean, command_parser, positive, setup_logging
from common.errors import UserError, command
from dataloader.depth.marigold import DEFAULT_TEACHER, TeacherSettings

if TYPE_CHECKING:
    from dataloader.depth.jobs import Selection, Worked

EXAMPLES = """
python scripts/download.py hub prs-eth/marigold-depth-v1-0
python scripts/depth.py predict-teacher --dataset nyu --root nyu/sync --out_path nyu/teacher --batch 10 --half
python scripts/depth.py predict-teacher --dataset places --root places/train --out_path places/depth
python scripts/depth.py project-masks --depth_root places/depth --out_path places/masks
python scripts/depth.py project-masks --depth_root places/depth --out_path places/masks --categories attic
python scripts/depth.py nyu-splits --labelled nyu_depth_v2_labeled.mat --splits splits.mat --out_path nyu/test
python scripts/submit.py --shards 20 --gpus 1 --cpus 4 --mem 32 --time 2880 -- python scripts/depth.py \
predict-teacher --dataset nyu --root nyu/sync --out_path nyu/teacher
python scripts/submit.py --shards 20 --cpus 4 --mem 16 --time 1440 -- python scripts/depth.py project-masks \
--depth_root places/depth --out_path places/masks
"""


def parse() -> argparse.Namespace:
    parser = command_parser(__doc__ or "", EXAMPLES)
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="{predict-teacher,project-masks,nyu-splits}"
    )
    shared = {"epilog": parser.epilog, "formatter_class": parser.formatter_class, "allow_abbrev": False}
    add_predict_teacher(commands, shared)
    add_project_masks(commands, shared)
    add_nyu_splits(commands, shared)
    return parser.parse_args()


def add_predict_teacher(commands: Any, shared: dict[str, Any]) -> None:
    sub = commands.add_parser(
        "predict-teacher",
        help="photos -> relative depth by Marigold",
        description="Write OUT/CLASS/NAME.npy, depth in [0, 1], for the photos ROOT/CLASS/NAME.jpg. nyu: the "
        "photos rgb_*.jpg without their white border, where the depth is 0. Depth maps that are there are "
        "kept: a killed run continues.",
        **shared,
    )
    sub.add_argument("--dataset", choices=("nyu", "places"), required=True, help="how the photos are treated")
    sub.add_argument("--root", type=Path, required=True, metavar="ROOT", help="folder of the class folders")
    sub.add_argument("--out_path", type=Path, required=True, metavar="OUT", help="folder for the depth maps")
    sub.add_argument(
        "--model", default=DEFAULT_TEACHER, help="Marigold's hub id or a folder (default: %(default)s)"
    )
    add_number(sub, "--steps", TeacherSettings.steps, "denoising steps")
    add_number(sub, "--ensemble", TeacherSettings.ensemble, "maps per photo, of which the median is kept")
    add_number(sub, "--resolution", TeacherSettings.resolution, "long side the network works on, in pixels")
    add_number(sub, "--batch", TeacherSettings.batch, "maps made at a time; more are faster on a large GPU")
    add_boolean(sub, "--half", help="16-bit floats: half the memory, on GPUs only")
    add_selection(sub)


def add_project_masks(commands: Any, shared: dict[str, Any]) -> None:
    sub = commands.add_parser(
        "project-masks",
        help="depth maps -> masks of the holes that open when the camera moves",
        description="Lift each depth map ROOT/CLASS/NAME.npy, move the camera at random and write what it "
        "finds empty to OUT/CLASS/NAME.npy (1 = hole) and, to look at, NAME.png. Masks that are there are "
        "kept: a killed run continues.",
        **shared,
    )
    sub.add_argument(
        "--depth_root", type=Path, required=True, metavar="ROOT", help="folder of the depth maps' classes"
    )
    sub.add_argument("--out_path", type=Path, required=True, metavar="OUT", help="folder for the masks")
    add_selection(sub)


def add_nyu_splits(commands: Any, shared: dict[str, Any]) -> None:
    sub = commands.add_parser(
        "nyu-splits",
        help="nyu_depth_v2_labeled.mat -> the 654 test photos with sensor depth",
        description="Write OUT/SCENE/rgb_XXXXX.jpg and sync_depth_XXXXX.png (millimetres, 16 bits) of the "
        "official test split, and nyudepthv2_test_files_with_gt.txt, their list. Files that are there are "
        "kept.",
        **shared,
    )
    sub.add_argument(
        "--labelled", type=Path, required=True, metavar="MAT", help="nyu_depth_v2_labeled.mat, 2.8 GB"
    )
    sub.add_argument(
        "--splits", type=Path, required=True, metavar="MAT", help="splits.mat, which numbers the test photos"
    )
    sub.add_argument("--out_path", type=Path, required=True, metavar="OUT", help="folder for the test split")


def add_number(sub: argparse.ArgumentParser, flag: str, default: int, meaning: str) -> None:
    sub.add_argument(
        flag, type=positive(int), default=default, metavar="N", help=f"{meaning} (default: {default})"
    )


def add_selection(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--seed", type=int, default=0, help="of the random numbers, with the file's name")
    sub.add_argument(
        "--categories", nargs="+", default=[], metavar="CLASS", help="class folders (default: all)"
    )
    sub.add_argument(
        "--shard", default="0/1", metavar="I/N", help="part I of N of the class folders (default: 0/1)"
    )
    sub.add_argument(
        "--max_failures",
        type=int,
        default=100,
        metavar="N",
        help="stop when more files than this cannot be made (default: %(default)s)",
    )


def selection_of(args: argparse.Namespace) -> Selection:
    from dataloader.depth.jobs import Selection
    from dataloader.re10k.pack import Shard

    return Selection(tuple(args.categories), Shard.parse(args.shard), args.max_failures)


def report(done: Worked, out: Path, what: str) -> None:
    """Say what a run did. Raises UserError when nothing came of it."""
    if done.failed and not done.made + done.present:
        raise UserError(f"none of the {len(done.failed)} {what} could be made: see above")
    print(f"{out}: {done.made} {what} made, {done.present} there already, {len(done.failed)} failed")


def predict_teacher(args: argparse.Namespace) -> None:
    from dataloader.depth.jobs import predict_teacher
    from dataloader.depth.marigold import load_teacher
    from engine.device import best_device

    device = best_device()
    if args.half and device.type != "cuda":
        raise UserError("--half needs a GPU: leave it out")
    settings = TeacherSettings(
        args.steps, args.ensemble, args.resolution, args.batch, half=args.half, seed=args.seed
    )
    load = partial(load_teacher, args.model, settings, device)
    done = predict_teacher(args.dataset, args.root, args.out_path, load, selection_of(args))
    report(done, args.out_path, "depth maps")


def project_masks(args: argparse.Namespace) -> None:
    from dataloader.depth.jobs import project_masks

    done = project_masks(args.depth_root, args.out_path, args.seed, selection_of(args))
    report(done, args.out_path, "masks")


def nyu_splits(args: argparse.Namespace) -> None:
    from dataloader.depth.nyu_splits import write_test_split

    made, present = write_test_split(args.labelled, args.splits, args.out_path)
    print(f"{args.out_path}: {made} test photos made, {present} there already")


RUN: dict[str, Callable[[argparse.Namespace], None]] = {
    "predict-teacher": predict_teacher,
    "project-masks": project_masks,
    "nyu-splits": nyu_splits,
}


@command
def main() -> None:
    args = parse()
    setup_logging()
    RUN[args.command](args)


if __name__ == "__main__":
    main()
