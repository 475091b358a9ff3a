"""Make clips of a camera rig: from video files to frames, poses, plates, mattes, archives and paths."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from common.cli import command_parser, setup_logging
from common.errors import UserError, command
from dataloader.rig.prepare.arguments import NAMES, add_commands
from dataloader.scene import ImageSize
from engine.outputs import write_provenance
from geometry.rig_paths import RIG_PATHS

EXAMPLES = """
python scripts/rig.py from-videos videos/ clips/street --step 4 --calibration calib.json --size 960 540
python scripts/rig.py undistort raw/ clips/street --calibration calib_1080.pkl --size 960 540
python scripts/rig.py calibrate clips/street --frames 0 30 60
python scripts/rig.py background clips/street
python scripts/rig.py mattes clips/street
python scripts/rig.py from-frames clips/street clips/street/frames --range 0 60 --path
python scripts/rig.py path clips/street spiral.txt --spiral --frames 60
python scripts/rig.py pack clips/street mvcam/train/scene000.h5 --size 640 360
python scripts/rig.py pack clips/street --folder mvcam/train --size 640 360
"""


def parse() -> argparse.Namespace:
    parser = command_parser(__doc__ or "", EXAMPLES)
    commands = parser.add_subparsers(dest="command", required=True, metavar="{" + ",".join(NAMES) + "}")
    shared = {"epilog": parser.epilog, "formatter_class": parser.formatter_class, "allow_abbrev": False}
    add_commands(commands, shared)
    return parser.parse_args()


def size_of(args: argparse.Namespace) -> ImageSize | None:
    """--size W H as (height, width)."""
    return (args.size[1], args.size[0]) if args.size else None


def check_quality(args: argparse.Namespace) -> None:
    if args.quality > 100:
        raise UserError(f"--quality {args.quality}: JPEG quality goes from 1 to 100")


def from_videos(args: argparse.Namespace) -> None:
    from dataloader.rig.prepare.videos import Extraction, extract_rig, list_videos

    check_quality(args)
    if args.size and not args.calibration:
        raise UserError("--size resamples with a calibration: give --calibration, or leave it out")
    options = Extraction(args.step, args.start, args.end, args.quality, args.png, args.shortest)
    made = extract_rig(list_videos(args.videos), args.out, options, args.calibration, size_of(args), args.fov)
    write_provenance(args.out, {**vars(args), "cameras": made}, seed=0)
    print(f"{args.out}: {len(made)} cameras; next: scripts/rig.py calibrate {args.out}")


def from_frames(args: argparse.Namespace) -> None:
    from dataloader.rig.prepare.frame_folders import PATH, write_frame_folders
    from dataloader.rig.prepare.frames import open_rig
    from dataloader.rig.prepare.paths import write_path

    start, end = args.range or (0, None)
    made = write_frame_folders(open_rig(args.frames), args.out, start, end, size_of(args))
    path = args.out / f"{start:05d}" / PATH
    if args.path:
        write_path(args.frames, path)
    write_provenance(args.out, vars(args), seed=0)
    print(f"{args.out}: {made} frame folders made" + (f", camera path {path}" if args.path else ""))


def calibrate(args: argparse.Namespace) -> None:
    from dataloader.rig.folders import POSES
    from dataloader.rig.prepare.frames import open_rig
    from dataloader.rig.prepare.poses import WORK, PoseOptions, calibrate

    out = args.out or args.frames / POSES
    options = PoseOptions(tuple(args.moments), tuple(args.focal), args.refine_focal)
    figures = calibrate(open_rig(args.frames), out, options)
    write_provenance(args.frames / WORK, {**vars(args), "figures": figures}, seed=1)
    print(f"{out}: {figures['poses']}; {figures['cameras']}")


def undistort(args: argparse.Namespace) -> None:
    from dataloader.rig.prepare.frames import open_rig
    from dataloader.rig.prepare.undistort import undistort_frames

    check_quality(args)
    rig, size = open_rig(args.frames), size_of(args)
    made = undistort_frames(rig, args.out, args.calibration, size, args.fov, args.quality, args.png)
    write_provenance(args.out, vars(args), seed=0)
    print(f"{args.out}: {made} frames made; next: scripts/rig.py calibrate {args.out}")


def background(args: argparse.Namespace) -> None:
    from dataloader.rig.prepare.frames import open_rig
    from dataloader.rig.prepare.plates import PlateOptions, write_plates

    rig, out = open_rig(args.frames), args.out or args.frames / "background"
    options = PlateOptions(args.every, args.statistic, args.memory)
    made = write_plates(rig, out, options)
    write_provenance(out, vars(args), seed=0)
    count = len(options.chosen(len(rig)))
    print(f"{out}: {made} plates made, {len(rig.cameras) - made} there already, of {count} frames each")


def mattes(args: argparse.Namespace) -> None:
    from dataloader.rig.prepare.frames import open_rig
    from dataloader.rig.prepare.mattes import MatteOptions, write_mattes

    out = args.out or args.frames / "foreground"
    plates = args.background or args.frames / "background"
    made = write_mattes(open_rig(args.frames), plates, out, MatteOptions(args.low, args.high, args.rim))
    write_provenance(out, vars(args), seed=0)
    print(f"{out}: {made} mattes made")


def pack(args: argparse.Namespace) -> None:
    from dataloader.rig.archives import write_archive
    from dataloader.rig.folders import open_frames
    from dataloader.rig.prepare.packing import pack_into

    if (args.out is None) == (args.folder is None):
        raise UserError("pack writes one archive: name OUT.h5, or a folder with --folder")
    if args.out is not None and args.out.suffix != ".h5":
        raise UserError(f"{args.out}: name a file that ends in .h5")
    clip = open_frames(args.clip, args.background)
    clip.need_plates()
    if args.folder is not None:
        out, written = pack_into(clip, args.clip, args.folder, size_of(args))
    else:
        out, written = args.out, True
        write_archive(clip, out, size_of(args))
    with_mattes = "without mattes" if clip.mattes is None else "with mattes"
    done = "" if written else " (there already)"
    print(f"{out}: {len(clip.cameras)} cameras, {len(clip)} frames, {with_mattes}{done}")


def path(args: argparse.Namespace) -> None:
    from dataloader.rig.prepare.paths import write_path

    names = [name for name in RIG_PATHS if getattr(args, name)]
    print(f"{args.out}: {write_path(args.clip, args.out, names, args.frames, args.fps)} cameras")


RUN: dict[str, Callable[[argparse.Namespace], None]] = {
    "from-videos": from_videos,
    "from-frames": from_frames,
    "calibrate": calibrate,
    "undistort": undistort,
    "background": background,
    "mattes": mattes,
    "pack": pack,
    "path": path,
}


@command
def main() -> None:
    args = parse()
    setup_logging()
    RUN[args.command](args)


if __name__ == "__main__":
    main()
