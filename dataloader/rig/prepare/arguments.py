"""The sub-commands of scripts/rig.py and their flags."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from common.cli import add_boolean, positive
from dataloader.rig.prepare.videos import Moment
from geometry.rig_paths import RIG_PATHS

NAMES = ("from-videos", "from-frames", "calibrate", "undistort", "background", "mattes", "pack", "path")


def add_commands(commands: Any, shared: dict[str, Any]) -> None:
    """Add every sub-command. shared: options that all their parsers take."""
    for add in (add_from_videos, add_from_frames, add_calibrate, add_undistort):
        add(commands, shared)
    for add in (add_background, add_mattes, add_pack, add_path):
        add(commands, shared)


def add_from_videos(commands: Any, shared: dict[str, Any]) -> None:
    sub = commands.add_parser(
        "from-videos",
        help="one video file per camera -> frames",
        description="Write OUT/cam00/00000.jpg ... of the video files in VIDEOS: the first by name becomes "
        "cam00. The videos must start at the same moment and have one frame rate. With --calibration the "
        "frames are undistorted on the way. Cameras that are complete are kept: a killed run continues.",
        **shared,
    )
    sub.add_argument("videos", type=Path, metavar="VIDEOS", help="folder of video files (mp4, mov, avi, ...)")
    sub.add_argument("out", type=Path, metavar="OUT", help="folder of frames to make, new or empty")
    add_number(sub, "--step", 1, "take every N-th frame; 4 turns 120 frames per second into 30")
    sub.add_argument("--start", type=moment, default=Moment(0), metavar="T", help="frame (75) or time (2.5s)")
    sub.add_argument(
        "--end", type=moment, metavar="T", help="frame or time not taken any more (default: all)"
    )
    add_boolean(sub, "--shortest", help="cut all cameras to the shortest one instead of refusing")
    add_files(sub)
    sub.add_argument("--calibration", type=Path, metavar="FILE", help="undistort; as undistort takes it")
    add_target(sub)


def add_from_frames(commands: Any, shared: dict[str, Any]) -> None:
    sub = commands.add_parser(
        "from-frames",
        help="a folder per camera -> a folder per frame, to render from",
        description="Write OUT/00000/images/000.jpg ... (one file per camera) and "
        "OUT/00000/poses_bounds.npy from FRAMES/camXX/ and FRAMES/poses_bounds.npy. Files are copied as they "
        "are unless --size is given. Folders that are there are kept: a killed run continues.",
        **shared,
    )
    add_frames(sub)
    sub.add_argument("out", type=Path, metavar="OUT", help="folder of frame folders to make")
    sub.add_argument(
        "--range", type=int, nargs=2, metavar=("START", "END"), help="frames START ... END - 1 (default: all)"
    )
    add_size(sub, "resize to this (Lanczos, PNG) into images_WxH/")
    add_boolean(sub, "--path", help="write a camera path, qual_path.txt, into the first folder; see path")


def add_calibrate(commands: Any, shared: dict[str, Any]) -> None:
    sub = commands.add_parser(
        "calibrate",
        help="frames -> camera poses, poses_bounds.npy (structure from motion)",
        description="Estimate the poses of the cameras, 3 or more, from one frame of each, or from several "
        "(the cameras stand still: all tell of the same poses). The frames must be free of distortion. The "
        "unit of length is arbitrary. Focal lengths are those of undistort, those of --focal, or estimated: "
        "cameras that look the same way say little about them. Works in FRAMES/calibration; a killed run "
        "continues.",
        **shared,
    )
    add_frames(sub)
    sub.add_argument(
        "--frames",
        type=int,
        nargs="+",
        default=[0],
        metavar="N",
        dest="moments",
        help="frames to use, counted from 0; several give more features (default: 0)",
    )
    sub.add_argument(
        "--focal", type=positive(float), nargs="+", default=[], metavar="F", help="known, pixels; one or each"
    )
    add_boolean(sub, "--refine_focal", help="improve known focal lengths instead of keeping them")
    sub.add_argument(
        "--out", type=Path, metavar="FILE", help="file to write (default: FRAMES/poses_bounds.npy)"
    )


def add_undistort(commands: Any, shared: dict[str, Any]) -> None:
    sub = commands.add_parser(
        "undistort",
        help="frames of fisheye or other lenses -> frames of ideal pinhole cameras",
        description="Resample FRAMES/camXX/ to OUT/camXX/ as centred pinholes of --fov see it. FILE is JSON, "
        '{"cameras": [{"model": "fisheye" or "opencv", "K": 3x3, "D": 4 numbers (opencv: 4, 5 or 8), '
        '"width": W, "height": H}, ...]} with what OpenCV calibrates, or calib_*.pkl of the multi-camera '
        "data set; its cameras are in the order of the folders' names. A killed run continues.",
        **shared,
    )
    add_frames(sub)
    sub.add_argument("out", type=Path, metavar="OUT", help="folder of frames to make, new or empty")
    sub.add_argument("--calibration", type=Path, required=True, metavar="FILE", help=".json or .pkl")
    add_target(sub)
    add_files(sub)


def add_background(commands: Any, shared: dict[str, Any]) -> None:
    sub = commands.add_parser(
        "background",
        help="frames -> background plates without what moves",
        description="Write FRAMES/background/camXX.png: per pixel the colour that most frames agree on "
        "(mode), which finds a background that is seen less than half of the time, or the exact median. "
        "What stands still for most of the clip stays in the plate. Plates that are there are kept.",
        **shared,
    )
    add_frames(sub)
    sub.add_argument(
        "--every",
        type=positive(int),
        default=0,
        metavar="N",
        help="take every N-th frame; 25 as the original does (default: 50 to 99 frames over the whole clip)",
    )
    sub.add_argument("--statistic", choices=("mode", "median"), default="mode", help="(default: mode)")
    add_number(sub, "--memory", 256, "MB for pixels; with less, frames are read more often")
    sub.add_argument("--out", type=Path, metavar="DIR", help="folder to make (default: FRAMES/background)")


def add_mattes(commands: Any, shared: dict[str, Any]) -> None:
    sub = commands.add_parser(
        "mattes",
        help="frames and plates -> foreground mattes",
        description="Write FRAMES/foreground/camXX/00000.png (RGBA, black where alpha is 0): where a frame "
        "differs from its plate. Shadows and reflections count as foreground; what has the colour of the "
        "background behind it is missed. A killed run continues.",
        **shared,
    )
    add_frames(sub)
    sub.add_argument(
        "--background", type=Path, metavar="DIR", help="folder of plates (default: FRAMES/background)"
    )
    sub.add_argument("--low", type=float, default=3.0, metavar="X", help="noise that is no foreground, in "
                     "standard deviations (default: %(default)s)")  # fmt: skip
    sub.add_argument("--high", type=float, default=8.0, metavar="X", help="a piece of foreground exceeds "
                     "this somewhere (default: %(default)s)")  # fmt: skip
    add_number(sub, "--rim", 1, "pixels along the edge that may show both layers")
    sub.add_argument("--out", type=Path, metavar="DIR", help="folder to make (default: FRAMES/foreground)")


def add_pack(commands: Any, shared: dict[str, Any]) -> None:
    sub = commands.add_parser(
        "pack",
        help="a clip with plates -> sceneNNN.h5 and sceneNNN_pb.npy, to train from",
        description="Write frames, plates and mattes of CLIP to OUT.h5 and the poses to OUT_pb.npy, or with "
        "--folder to the next free number in a folder; clips that are there already are kept.",
        **shared,
    )
    add_clip(sub)
    sub.add_argument("out", type=Path, nargs="?", metavar="OUT.h5", help="archive to write")
    sub.add_argument("--folder", type=Path, metavar="DIR", help="number it there, as ROOT/train/scene000.h5")
    sub.add_argument("--background", type=Path, metavar="DIR", help="folder of plates (default: the clip's)")
    add_size(sub, "resize to this (Lanczos); 640 360 in the original")


def add_path(commands: Any, shared: dict[str, Any]) -> None:
    sub = commands.add_parser(
        "path",
        help="camera path of a rig -> qual_path.txt, .npy or camera_path.json",
        description="Write a camera path to OUT. With no path named: x_axis, y_axis, z_axis, circle, spiral. "
        "Axis paths have N frames, circle and extreme 2 N, the spiral 4 N; they follow one another in this "
        "order: x_axis y_axis z_axis extreme circle spiral input.",
        **shared,
    )
    add_clip(sub)
    sub.add_argument("out", type=Path, metavar="OUT", help="file that ends in .txt, .npy or .json")
    for name in RIG_PATHS:
        add_boolean(sub, f"--{name}", help="the rig's own cameras" if name == "input" else f"the path {name}")
    add_number(sub, "--frames", 30, "unit of the paths' lengths")
    sub.add_argument("--fps", type=positive(float), default=30.0, metavar="X", help="of a .json file")


def add_frames(sub: Any) -> None:
    sub.add_argument("frames", type=Path, metavar="FRAMES", help="folder of cam00/, cam01/, ...")


def add_clip(sub: Any) -> None:
    sub.add_argument(
        "clip", type=Path, metavar="CLIP", help="folder of camera folders or of frame folders, with poses"
    )


def add_files(sub: Any) -> None:
    add_number(sub, "--quality", 95, "JPEG quality, 1 to 100")
    add_boolean(sub, "--png", help="write PNG, loss-free")


def add_target(sub: Any) -> None:
    sub.add_argument(
        "--fov", type=positive(float), default=90.0, metavar="DEG", help="horizontal field of view of the "
        "pinholes (default: %(default)s)",
    )  # fmt: skip
    add_size(sub, "size of the pinholes' frames (default: as they come)")


def add_size(sub: Any, help: str) -> None:
    sub.add_argument("--size", type=positive(int), nargs=2, metavar=("W", "H"), help=help)


def add_number(sub: Any, flag: str, default: int, help: str) -> None:
    sub.add_argument(
        flag, type=positive(int), default=default, metavar="N", help=f"{help} (default: %(default)s)"
    )


def moment(text: str) -> Moment:
    """An argparse type: a frame number, or seconds."""
    try:
        return Moment.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
