"""Convert posed photo sets between camera formats, check them with one picture, show them in space."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.cli import add_boolean, command_parser, positive, progress, setup_logging, split_overrides
from common.errors import UserError, command
from dataloader.formats import FORMATS, detect_formats, open_scene, write_scene
from dataloader.scene import Scene
from dataloader.scene_sets import SceneSets

if TYPE_CHECKING:
    from dataloader.camera_figure import ViewGroup
    from engine.config import DataConfig

EXAMPLES = """
python scripts/cameras.py check data/fox
python scripts/cameras.py check data/fox --from llff --images images_4 --out fox.png
python scripts/cameras.py show data/fox --out fox.html
python scripts/cameras.py show -e configs/baselines/depth_warp --views 4 data.root=scenes/fox
python scripts/cameras.py convert data/fox fox_llff --to llff
python scripts/cameras.py convert data/fox fox_colmap --from nerfstudio --to colmap
"""
FORMATS_HELP = """
formats, found by what SRC holds:
  colmap      sparse/0 or sparse (binary or text); distorted photos are undistorted when they are loaded
  nerfstudio  transforms.json (also Instant NGP's); distortion as above
  mvsnet      cams/NAME_cam.txt for images/NAME.*, or cams_4 for images_4
  llff        poses_bounds.npy; one focal length per photo, principal point at the centre
"""


_PHOTO_SIDE = 256  # pixels of the photos that are shown


def parse() -> argparse.Namespace:
    parser = command_parser(__doc__ or "", EXAMPLES)
    parser.epilog = FORMATS_HELP + "\n" + (parser.epilog or "")
    commands = parser.add_subparsers(dest="command", required=True, metavar="{convert,check,show}")
    convert = commands.add_parser("convert", help="write a scene in another format", allow_abbrev=False)
    convert.add_argument("src", type=Path, metavar="SRC", help="scene folder")
    convert.add_argument("dst", type=Path, metavar="DST", help="new or empty folder")
    convert.add_argument("--to", required=True, choices=list(FORMATS), help="format to write")
    check = commands.add_parser("check", help="print and draw what the cameras say", allow_abbrev=False)
    check.add_argument("src", type=Path, metavar="SRC", help="scene folder")
    check.add_argument("--out", type=Path, default=Path("cameras.png"), help="picture (default: cameras.png)")
    show = commands.add_parser("show", help="draw frusta, photos and rays as a page", allow_abbrev=False)
    show.add_argument("src", type=Path, nargs="?", metavar="SRC", help="scene folder (or -e)")
    show.add_argument(
        "-e", "--exp_dir", type=Path, help="experiment: its source and target views; key=value changes it"
    )
    show.add_argument("--out", type=Path, default=Path("cameras.html"), help="page (default: cameras.html)")
    show.add_argument(
        "--views", type=positive(int), default=12, metavar="N", help="of each kind at most (default: 12)"
    )
    show.add_argument(
        "--distance", type=positive(float), help="of the image planes, world units (default: by the cameras)"
    )
    add_boolean(show, "--photos", default=True, help="draw the photos (default: True)")
    add_boolean(show, "--rays", default=True, help="draw rays and their colours (default: True)")
    for sub, text in (
        (convert, "format to read"),
        (check, "check this format alone"),
        (show, "format to read"),
    ):
        sub.add_argument(
            "--from",
            dest="format",
            default="auto",
            choices=["auto", *FORMATS],
            help=f"{text} (default: auto)",
        )
        sub.add_argument(
            "--images", default="images", metavar="NAME", help="photo folder inside SRC (default: images)"
        )
        sub.formatter_class = parser.formatter_class
        sub.epilog = parser.epilog
    overrides, words = split_overrides(sys.argv[1:])
    args = parser.parse_args(words)
    args.overrides = overrides
    if overrides and not getattr(args, "exp_dir", None):
        raise UserError(f"{overrides[0]}: key=value words change an experiment, name one with show -e")
    return args


def convert(args: argparse.Namespace) -> None:
    scene = open_scene(args.src, args.format, images=args.images)
    left_out = write_scene(scene, args.dst, args.to)
    print(f"{len(scene)} photos with cameras written to {args.dst} ({args.to})")
    for sentence in left_out:
        print(f"note: {sentence}")


def check(args: argparse.Namespace) -> None:
    from dataloader.camera_checks import agreement, borrow_points, summary
    from dataloader.camera_plots import draw_check

    if args.out.suffix.lower() != ".png":
        raise UserError(f"--out {args.out}: the picture is a PNG, give a name that ends in .png")
    scene = open_scene(args.src, args.format, images=args.images)
    borrow_points(scene, args.src, args.images)
    for record in progress(scene.records, "photos", unit="photo", leave=False):
        record.load()
    formats = detect_formats(args.src) if args.format == "auto" else [args.format]
    rows = [("format", formats[0] if formats else "built in"), *summary(scene)]
    if len(formats) > 1:
        found = agreement(scene, args.src, args.images)
        rows += [
            (f"{name} against {formats[0]}", f"at most {found[name]:.2g} px apart") for name in formats[1:]
        ]
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:<{width}}  {value}")
    draw_check(scene, args.out)
    print(f"picture: {args.out}")


def show(args: argparse.Namespace) -> None:
    from dataloader.camera_figure import draw_views

    if args.out.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--out {args.out}: it is a page, give a name that ends in .html")
    if (args.src is None) == (args.exp_dir is None):
        raise UserError("show takes a scene folder or -e EXPERIMENT, one of them")
    scene, data = _scene_of(args)
    draw_views(_groups(scene, data, args.views, args.photos), args.out, args.distance, args.rays)
    print(f"page: {args.out} ({args.out.stat().st_size / 1e6:.1f} MB)")


def _scene_of(args: argparse.Namespace) -> tuple[Any, DataConfig]:
    """A scene, or an experiment's data, and what is used of it."""
    from engine.config import DataConfig

    if args.exp_dir is None:
        scene = open_scene(args.src, args.format, images=args.images)
        return scene, DataConfig(max_size=_PHOTO_SIDE)
    from methods import load_experiment, open_data

    experiment, kind = load_experiment(args.exp_dir, args.overrides)
    return open_data(experiment, kind), replace(experiment.data, max_size=_PHOTO_SIDE)


def _groups(scene: Any, data: DataConfig, count: int, photos: bool) -> list[ViewGroup]:
    """Source and target views, as many of each."""
    from dataloader.camera_figure import ViewGroup
    from engine.data import view_size
    from engine.pairs import pair_batches

    if isinstance(scene, SceneSets):
        return _task_groups(scene, data, photos)
    if not isinstance(scene, Scene):  # pairs: the first, which have their own world each
        _, batch = next(pair_batches(scene.split(data.source), [0], 1))
        pair = (("source", batch.source), ("target", batch.target))
        return [ViewGroup(label, views.cameras, views.images if photos else None) for label, views in pair]
    groups = []
    for label, split in (("source", data.source), ("target", data.target)):
        indices = scene.split(split)
        chosen = [
            indices[len(indices) * i // min(count, len(indices))] for i in range(min(count, len(indices)))
        ]
        if not chosen:
            continue
        size = view_size(scene, data)
        if photos:
            views = scene.views(chosen, size)
            groups.append(ViewGroup(label, views.cameras, views.images))
        else:
            groups.append(ViewGroup(label, scene.cameras(chosen, size)))
    return groups


def _task_groups(sets: SceneSets, data: DataConfig, photos: bool) -> list[ViewGroup]:
    """What is given and what is made of the first scene that has a task, else all views of the first."""
    from dataloader.camera_figure import ViewGroup

    scenes, tasks = sets.split(data.target), sets.tasks.get(data.target)
    scene = scenes.scene(tasks[0].scene if tasks else 0)
    lists = {"source": tasks[0].source, "target": tasks[0].target} if tasks else {"view": range(len(scene))}
    groups = []
    for label, indices in lists.items():
        images = scene.views(list(indices)).images if photos else None
        groups.append(ViewGroup(label, scene.cameras(list(indices)), images))
    return groups


@command
def main() -> None:
    args = parse()
    setup_logging()
    {"convert": convert, "check": check, "show": show}[args.command](args)


if __name__ == "__main__":
    main()
