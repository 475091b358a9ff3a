"""Make scenes: from your own photos to cameras and a mesh."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from common.cli import command_parser, setup_logging
from common.errors import command
from dataloader.prepare.pipeline import PrepareOptions, prepare
from dataloader.prepare.sfm import CAMERA_MODELS
from engine.device import best_device
from engine.outputs import write_provenance

EXAMPLES = """
python scripts/scene.py prepare photos/ scenes/fox
python scripts/scene.py prepare video_frames/ scenes/walk --matcher sequential --max_size 1000
"""
_DEFAULTS = PrepareOptions()


def parse() -> argparse.Namespace:
    parser = command_parser(__doc__ or "", EXAMPLES)
    commands = parser.add_subparsers(dest="command", required=True, metavar="{prepare}")
    sub = commands.add_parser(
        "prepare",
        help="photos -> cameras (structure from motion), undistorted photos, mesh",
        description="Photos of one static scene to a scene folder: OUT/images, OUT/sparse (COLMAP) and "
        "OUT/mesh.ply. Distances have no absolute scale: the median depth becomes 5, z is up. A killed run "
        "continues where it was; OUT/work may be deleted when it is done.",
        epilog=parser.epilog,
        formatter_class=parser.formatter_class,
        allow_abbrev=False,
    )
    sub.add_argument("photos", type=Path, metavar="PHOTOS_DIR", help="folder of photos, 3 or more")
    sub.add_argument("out", type=Path, metavar="OUT", help="scene folder to make, new or empty")
    sub.add_argument(
        "--max_size",
        type=int,
        default=_DEFAULTS.max_size,
        help="long side of the photos used and written, in pixels; 0 keeps them (default: %(default)s)",
    )
    sub.add_argument(
        "--camera_model",
        choices=CAMERA_MODELS,
        default=_DEFAULTS.camera_model,
        help="lens model to estimate, one per photo size (default: %(default)s)",
    )
    sub.add_argument(
        "--matcher",
        choices=("exhaustive", "sequential"),
        default=_DEFAULTS.matcher,
        help="match all pairs, or neighbours in file-name order (video frames; faster from about 100 photos)",
    )
    sub.add_argument(
        "--depth_size",
        type=int,
        default=_DEFAULTS.depth_size,
        help="long side of the depth maps in pixels: larger is slower and finer (default: %(default)s)",
    )
    return parser.parse_args()


def prepare_scene(args: argparse.Namespace) -> None:
    options = PrepareOptions(args.max_size, args.camera_model, args.matcher, args.depth_size)
    figures = prepare(args.photos, args.out, options, best_device())
    write_provenance(args.out, {"photos": str(args.photos), **asdict(options), "figures": figures}, seed=1)
    print(f"scene written to {args.out}: use it with data.root={args.out}")


@command
def main() -> None:
    args = parse()
    setup_logging()
    {"prepare": prepare_scene}[args.command](args)


if __name__ == "__main__":
    main()
