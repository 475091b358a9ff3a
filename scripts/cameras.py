"""Convert posed photo sets between camera formats, and check them with one picture."""

from __future__ import annotations

import argparse
from pathlib import Path

from common.cli import command_parser, progress, setup_logging
from common.errors import UserError, command
from dataloader.formats import FORMATS, detect_formats, open_scene, write_scene

EXAMPLES = """
python scripts/cameras.py check data/fox
python scripts/cameras.py check data/fox --from llff --images images_4 --out fox.png
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


def parse() -> argparse.Namespace:
    parser = command_parser(__doc__ or "", EXAMPLES)
    parser.epilog = FORMATS_HELP + "\n" + (parser.epilog or "")
    commands = parser.add_subparsers(dest="command", required=True, metavar="{convert,check}")
    convert = commands.add_parser("convert", help="write a scene in another format", allow_abbrev=False)
    convert.add_argument("src", type=Path, metavar="SRC", help="scene folder")
    convert.add_argument("dst", type=Path, metavar="DST", help="new or empty folder")
    convert.add_argument("--to", required=True, choices=list(FORMATS), help="format to write")
    check = commands.add_parser("check", help="print and draw what the cameras say", allow_abbrev=False)
    check.add_argument("src", type=Path, metavar="SRC", help="scene folder")
    check.add_argument("--out", type=Path, default=Path("cameras.png"), help="picture (default: cameras.png)")
    for sub, text in ((convert, "format to read"), (check, "check this format alone")):
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
    return parser.parse_args()


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


@command
def main() -> None:
    args = parse()
    setup_logging()
    {"convert": convert, "check": check}[args.command](args)


if __name__ == "__main__":
    main()
