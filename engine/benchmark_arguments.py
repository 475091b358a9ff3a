"""The flags of scripts/benchmark.py, sub-command by sub-command."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from common.cli import add_boolean, positive

BATCHES = (1, 2, 4, 8, 16, 24, 32, 40, 48, 56, 64)
CAMERA_TABLE = Path("datasets/hypersim/metadata_camera_parameters.csv")
DEFAULT_MODELS = ("inpainted", "zero", "zero_aligned", "nearest")
PROFILE = """
FLOPs are those of matrix products, convolutions and attention; a training step is a forward and a backward
pass, without the optimiser. MFU: FLOP/s over what the best large matrix product of this machine reaches in
the same precision, measured here. Memory is the peak: on a GPU what is allocated and reserved, on the CPU the
growth of the process, from which memory that was already free is missing. A scene's own views are encoded and
rendered, elsewhere random ones; a method given by name works on a procedural room, unless data.root says so.
"""
GEOMETRY = """
The known depth of one view is drawn into another; models complete what stays open there and are scored on it.
Models: inpainted (the method, given the known depth), zero (without it), zoedepth (--depth_model), each also
_aligned: scaled and shifted to the known depth; nearest (depth of the nearest known pixel).
"""


def add_profile(commands: Any, shared: dict[str, Any]) -> None:
    """The flags of `profile`."""
    parser = commands.add_parser(
        "profile",
        help="FLOPs, seconds, memory and utilisation of training, encoding and rendering",
        description=PROFILE.strip(),
        **shared,
    )
    parser.add_argument("names", nargs="*", metavar="METHOD_OR_EXPERIMENT", help="names or folders")
    parser.add_argument("-e", "--exp_dir", action="append", default=[], help="experiment folder, likewise")
    parser.add_argument("-b", "--batch_size", type=positive(int), help="training samples at once")
    parser.add_argument("--repeats", type=positive(int), default=3, help="timed repetitions (default 3)")
    parser.add_argument(
        "--size", type=positive(int), nargs=2, metavar=("H", "W"), help="of random views (default: 256 256)"
    )
    parser.add_argument("--table", action="store_true", help="over numbers of sources and batch sizes")
    parser.add_argument(
        "--sources", type=positive(int), default=16, metavar="N", help="--table: 1 to N (default 16)"
    )
    parser.add_argument(
        "--batches", type=positive(int), nargs="+", default=BATCHES, metavar="B", help="--table: batch sizes"
    )
    parser.add_argument(
        "--views", type=positive(int), nargs=2, default=(2, 6), metavar=("S", "T"),
        help="--table: source and target views of a random training sample (default 2 6)",
    )  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers too")


def add_geometry(commands: Any, shared: dict[str, Any]) -> None:
    """The flags of the geometry benchmark's sub-commands."""
    unpack = commands.add_parser("scannet-process", help="unpack .sens files", **shared)
    unpack.add_argument("output_dir", type=Path, help="a folder per scan goes here")
    unpack.add_argument("--input_dir", type=Path, default=Path("datasets/ScanNet/scans"), help="of the scans")
    _add_scene(unpack)

    scored: dict[str, Any] = {"description": GEOMETRY.strip(), **shared}
    scannet = commands.add_parser("scannet", help="score depth completion on ScanNet", **scored)
    scannet.add_argument(
        "--scannet_path", type=Path, default=Path("datasets/ScanNet"), help="folder of the processed scans"
    )
    scannet.add_argument("--scenes", type=positive(int), default=50, help="the first N scenes (default 50)")
    add_boolean(scannet, "--from_estimate", help="draw the method's own depth of the first frame")
    _add_scoring(scannet)

    pairs = commands.add_parser("hypersim-pairs", help="find pairs of Hypersim frames that overlap", **shared)
    _add_hypersim(pairs)
    _add_scene(pairs)
    _add_protocol(pairs)

    hypersim = commands.add_parser("hypersim", help="score depth completion on Hypersim", **scored)
    _add_hypersim(hypersim)
    _add_scoring(hypersim)

    rooms = commands.add_parser("rooms", help="score depth completion on procedural rooms", **scored)
    rooms.add_argument("--rooms", type=positive(int), default=16, metavar="N", help="so many (default 16)")
    rooms.add_argument("--pairs", type=positive(int), default=2, help="of views per room (default 2)")
    rooms.add_argument("--first_seed", type=int, help="of the first room (default: one no training uses)")
    rooms.add_argument(
        "--size", type=positive(int), nargs=2, default=(96, 128), metavar=("H", "W"), help="(default 96 128)"
    )
    _add_scoring(rooms)

    concat = commands.add_parser("concat", help="means over all *_results.csv of a folder", **shared)
    concat.add_argument("dir", type=Path, help="the --out_dir of a benchmark")


def _add_hypersim(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--hypersim_dir", type=Path, default=Path("datasets/hypersim"), help="folder of the scenes"
    )
    parser.add_argument(
        "--metadata_camera_parameters_csv_file", type=Path, default=CAMERA_TABLE, metavar="CSV",
        help=f"table of all cameras (default {CAMERA_TABLE})",
    )  # fmt: skip


def _add_scene(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--scene_idx",
        type=_scene_index,
        default="all",
        metavar="N|all",
        help="one scene only, counted from 0",
    )


def _scene_index(text: str) -> int | str:
    if text == "all" or text.isdecimal():
        return text if text == "all" else int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor 'all'")


def _add_protocol(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--radius", type=positive(float),
        help="of a point: pixels (default 1); --legacy: share of half the short side (default 0.01)",
    )  # fmt: skip
    add_boolean(parser, "--legacy", help="the original's protocol, for comparison with its numbers")


def _add_scoring(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-e", "--exp_dir", type=Path, help="experiment folder of the method")
    parser.add_argument("-r", "--resume", help="its checkpoint: N, latest or -1")
    parser.add_argument("--output_dir", type=Path, help="where the iter_N folders are (default: -e)")
    parser.add_argument("--out_dir", type=Path, required=True, help="where the results go")
    parser.add_argument(
        "--models", nargs="+", default=DEFAULT_MODELS, metavar="NAME",
        help=f"what is scored (default: {' '.join(DEFAULT_MODELS)})",
    )  # fmt: skip
    parser.add_argument("--depth_model", default="Intel/zoedepth-nyu", help="of zoedepth: hub id or folder")
    _add_scene(parser)
    _add_protocol(parser)
    parser.add_argument(
        "--alignment", choices=("least_squares", "robust"), default="least_squares",
        help="of *_aligned (default least_squares; --legacy: gradient descent)",
    )  # fmt: skip
    parser.add_argument(
        "--initial_offset", type=float, help="--legacy: where the descent starts (default: drawn by --seed)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of intervals and descents (default 0)")
