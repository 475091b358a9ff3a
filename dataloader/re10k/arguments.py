"""The sub-commands of scripts/re10k.py and their flags."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

from common.cli import add_boolean, positive

NAMES = ("download", "extract", "to-chunks", "compress", "rescale", "pre-encode", "index", "check")


def add_commands(commands: Any, shared: dict[str, Any]) -> None:
    """Add every sub-command. shared: options that all their parsers take."""
    for add in (add_download, add_extract, add_to_chunks, add_changes, add_index, add_check):
        add(commands, shared)


def add_download(commands: Any, shared: dict[str, Any]) -> None:
    sub = commands.add_parser(
        "download",
        help="camera files -> videos",
        description="Fetch the video that each camera file (*.txt) of CAMERAS names, once, with yt-dlp. "
        "Videos that are there are kept, half-fetched ones continued. Those that are gone are listed in "
        "VIDEOS/vanished.txt (vanished-I-of-N.txt with --shard) and left alone from then on.",
        **shared,
    )
    sub.add_argument("cameras", type=Path, metavar="CAMERAS", help="folder of RealEstate10K's camera files")
    sub.add_argument("videos", type=Path, metavar="VIDEOS", help="folder for the videos")
    add_number(sub, "--height", 360, "rows of the picture, at most")
    add_boolean(sub, "--retry", help="ask again for videos listed as gone")
    add_shard(sub)


def add_extract(commands: Any, shared: dict[str, Any]) -> None:
    sub = commands.add_parser(
        "extract",
        help="videos -> the frames at the camera files' time stamps",
        description="Write FRAMES/CLIP/00000.jpg ... for every camera file CLIP.txt whose video is there. "
        "Clips that are complete are kept.",
        **shared,
    )
    sub.add_argument("cameras", type=Path, metavar="CAMERAS", help="folder of RealEstate10K's camera files")
    sub.add_argument("videos", type=Path, metavar="VIDEOS", help="folder of the videos")
    sub.add_argument("frames", type=Path, metavar="FRAMES", help="folder for the frames")
    add_number(sub, "--height", 360, "rows of the frames")
    add_number(sub, "--width", 640, "columns of the frames")
    add_number(sub, "--quality", 95, "JPEG quality, 1 to 100")
    add_shard(sub)


def add_to_chunks(commands: Any, shared: dict[str, Any]) -> None:
    sub = commands.add_parser(
        "to-chunks",
        help="frames and camera files, or folders of posed scenes -> chunks",
        description="Collect scenes into OUT/SPLIT/000000.torch ... with index.json and OUT/meta.json. "
        "SOURCE holds camera files, whose frames are in --frames, or scene folders in any format (DTU "
        "scans as MVSNet lays them out, COLMAP, LLFF, nerfstudio). Photos are taken over as they are. Scenes "
        "that are in a chunk are kept: a killed run continues.",
        **shared,
    )
    sub.add_argument(
        "source", type=Path, metavar="SOURCE", help="folder of camera files, or of scene folders"
    )
    sub.add_argument("out", type=Path, metavar="OUT", help="folder for the chunks")
    sub.add_argument("--frames", type=Path, metavar="DIR", help="folder that extract made")
    sub.add_argument("--split", default="train", choices=("train", "test"), help="(default: train)")
    add_number(sub, "--chunk_mb", 100, "size of a chunk in MB, about")
    sub.add_argument(
        "--h5",
        type=size,
        metavar="HxW",
        help="write OUT/WxH.h5 of the decoded frames instead of chunks, for mask_volume",
    )
    add_number(sub, "--min_frames", 50, "with --h5: leave out scenes with fewer frames")
    add_shard(sub)


def add_changes(commands: Any, shared: dict[str, Any]) -> None:
    """compress, rescale, pre-encode: from chunks to chunks."""
    helps = {
        "compress": (".torch <-> .bl2", "Compress .torch chunks with Blosc2, or undo that for .bl2 chunks."),
        "rescale": (
            "chunks of smaller (or larger) photos",
            "Scale every photo until it covers --height x --width and cut out the middle, or with --min_size "
            "scale the short side to it. Intrinsics follow. JPEG stays JPEG, PNG stays PNG.",
        ),
        "pre-encode": (
            "chunks with VAE latents",
            "Add mean and standard deviation (bfloat16) of an AutoencoderKL's posterior to every scene.",
        ),
    }
    for name, (short, long) in helps.items():
        text = f"{long} Chunks that are there are kept: a killed run continues. Several runs may share OUT, "
        sub = commands.add_parser(name, help=short, description=text + "each with its own --shard.", **shared)
        sub.add_argument("root", metavar="ROOT", help="folder of chunks; s3:// and http(s):// work too")
        sub.add_argument("out", type=Path, metavar="OUT", help="folder for the new chunks")
        sub.add_argument("--split", choices=("train", "test"), help="only this one (default: both)")
        add_shard(sub)
        if name == "rescale":
            add_number(sub, "--height", 256, "rows of the new photos")
            add_number(sub, "--width", 256, "columns of the new photos")
            sub.add_argument("--min_size", type=positive(int), metavar="N", help="short side, aspect kept")
            add_number(sub, "--quality", 95, "JPEG quality, 1 to 100")
        if name == "pre-encode":
            add_vae(sub)


def add_vae(sub: Any) -> None:
    sub.add_argument("--vae", required=True, metavar="NAME", help="hub id or folder of the AutoencoderKL")
    sub.add_argument("--subfolder", default="vae", help="of the VAE in it; '' for none (default: vae)")
    add_number(sub, "--batch", 8, "photos encoded at a time")
    add_boolean(
        sub,
        "--legacy_range",
        help="give the VAE values in [0, 1] as the unofficial implementation does, not the [-1, 1] it was "
        "trained with",
    )


def add_index(commands: Any, shared: dict[str, Any]) -> None:
    sub = commands.add_parser(
        "index",
        help="evaluation index: views given and views scored, per scene",
        description="v1: two sources, targets between them. v2: up to --num_context_views sources, nested; "
        "OUT is a folder, for one index per number of sources. dtu: the fixed targets 32, 24, 23, 44 and the "
        "views nearest to them. video: from an index, every frame between its sources as target. subset: an "
        "index without the scenes that --root lacks.",
        **shared,
    )
    sub.add_argument("rule", choices=("v1", "v2", "dtu", "video", "subset"), help="how views are chosen")
    sub.add_argument("source", metavar="SOURCE", help="folder of chunks; for video and subset an index")
    sub.add_argument("out", type=Path, metavar="OUT", help="index to write; for v2 a folder")
    sub.add_argument("--root", metavar="ROOT", help="for subset: folder of chunks")
    sub.add_argument("--split", default="test", choices=("train", "test"), help="(default: test)")
    add_number(sub, "--num_context_views", 2, "views given; for v2 at most")
    add_number(sub, "--num_target_views", 3, "views scored")
    sub.add_argument("--min_ctx_overlap", type=float, default=0.6, metavar="X", help="(default: %(default)s)")
    sub.add_argument("--max_ctx_overlap", type=float, default=1.0, metavar="X", help="(default: %(default)s)")
    add_number(sub, "--min_ctx_distance", 45, "frames between the outer sources, at least")
    add_number(sub, "--max_ctx_distance", 135, "frames between the outer sources, at most")
    add_number(sub, "--min_tgt_to_ctx_distance", 1, "v2: frames from a target to any source, at least")
    sub.add_argument("--seed", type=int, default=123, metavar="N", help="(default: %(default)s)")
    sub.add_argument("--previews", type=Path, metavar="DIR", help="write a picture per entry")


def add_check(commands: Any, shared: dict[str, Any]) -> None:
    sub = commands.add_parser(
        "check",
        help="what in a folder of chunks cannot be used, and a contact sheet",
        description="Open every scene and decode its photos: damaged or mixed photos, wide fields of view, "
        "scenes that index.json misplaces. Ends with code 2 where anything cannot be used.",
        **shared,
    )
    sub.add_argument("root", metavar="ROOT", help="folder of chunks; several with commas between")
    sub.add_argument("--split", choices=("train", "test"), help="only this one (default: all there are)")
    add_number(sub, "--every", 1, "decode every N-th photo of a scene")
    sub.add_argument("--sheet", type=Path, metavar="PNG", help="contact sheet of up to 40 scenes per split")
    sub.add_argument(
        "--eval_index", type=Path, metavar="JSON", help="evaluation index to compare with 'test'"
    )
    add_boolean(sub, "--reindex", help="write index.json anew from the chunks first")


def add_number(sub: Any, flag: str, default: int, help: str) -> None:
    sub.add_argument(
        flag, type=positive(int), default=default, metavar="N", help=f"{help} (default: %(default)s)"
    )


def add_shard(sub: Any) -> None:
    sub.add_argument("--shard", default="0/1", metavar="I/N", help="part I of N, from 0 (default: 0/1)")


def size(text: str) -> tuple[int, int]:
    """An argparse type: HxW."""
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r}: write height and width as 360x640")
    return int(match[1]), int(match[2])
