"""Make scenes: from your own photos to cameras, a mesh, and the rays that a surface renderer trains from."""

from __future__ import annotations

import argparse
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

from common.cli import command_parser, positive, setup_logging
from common.errors import command
from dataloader.formats import FORMATS, open_scene
from dataloader.prepare.pipeline import PrepareOptions, prepare
from dataloader.prepare.sfm import CAMERA_MODELS
from engine.device import best_device
from engine.outputs import write_provenance

logger = logging.getLogger(__name__)

EXAMPLES = """
python scripts/scene.py prepare photos/ scenes/fox
python scripts/scene.py prepare video_frames/ scenes/walk --matcher sequential --max_size 1000
python scripts/scene.py cache-rays scenes/fox outputs/fox_rays
python scripts/scene.py cache-rays scenes/fox outputs/fox_rays_x4 --supersample 2 --max_size 2000
"""
_DEFAULTS = PrepareOptions()


def parse() -> argparse.Namespace:
    parser = command_parser(__doc__ or "", EXAMPLES)
    commands = parser.add_subparsers(dest="command", required=True, metavar="{prepare,cache-rays}")
    shared = {
        "epilog": parser.epilog,
        "formatter_class": parser.formatter_class,
        "allow_abbrev": False,
    }
    add_prepare(commands, shared)
    add_cache_rays(commands, shared)
    return parser.parse_args()


def add_prepare(commands: Any, shared: dict[str, Any]) -> None:
    sub = commands.add_parser(
        "prepare",
        help="photos -> cameras (structure from motion), undistorted photos, mesh",
        description="Photos of one static scene to a scene folder: OUT/images, OUT/sparse (COLMAP) and "
        "OUT/mesh.ply. Distances have no absolute scale: the median depth becomes 5, z is up. A killed run "
        "continues where it was; OUT/work may be deleted when it is done.",
        **shared,
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


def add_cache_rays(commands: Any, shared: dict[str, Any]) -> None:
    sub = commands.add_parser(
        "cache-rays",
        help="scene with mesh -> the surface points that its photos' pixels show, for training",
        description="For each photo the mesh triangles its pixels see and their colours, 11 bytes per pixel. "
        "A killed run continues where it was, and a later one casts only views whose photo, camera or mesh "
        "changed.",
        **shared,
    )
    sub.add_argument("scene", metavar="SCENE", help="scene folder with a mesh, or builtin:NAME")
    sub.add_argument("out", type=Path, metavar="OUT", help="folder of the cache, new or to be completed")
    sub.add_argument(
        "--supersample",
        type=positive(int),
        default=1,
        metavar="S",
        help="S x S surface points per pixel; more smooth fine texture and edges (default: 1)",
    )
    sub.add_argument(
        "--split", default="train", metavar="NAME", help="views to cache; 'all' for all (default: train)"
    )
    sub.add_argument(
        "--images", default="images", metavar="NAME", help="photo folder inside SCENE (default: images)"
    )
    sub.add_argument(
        "--mesh", default="", metavar="FILE", help="mesh file inside SCENE (default: the only one there)"
    )
    sub.add_argument("--format", default="auto", choices=["auto", *FORMATS], help="format to read")
    sub.add_argument(
        "--max_size",
        type=int,
        default=0,
        metavar="N",
        help="long side to which larger photos are reduced, in pixels; 0 keeps them (default: 0)",
    )


def prepare_scene(args: argparse.Namespace) -> None:
    options = PrepareOptions(args.max_size, args.camera_model, args.matcher, args.depth_size)
    figures = prepare(args.photos, args.out, options, best_device())
    write_provenance(args.out, {"photos": str(args.photos), **asdict(options), "figures": figures}, seed=1)
    print(f"scene written to {args.out}: use it with data.root={args.out}")


def cache_rays(args: argparse.Namespace) -> None:
    from dataloader.ray_cache import write_ray_cache

    scene = open_scene(args.scene, args.format, images=args.images, mesh=args.mesh)
    made = write_ray_cache(scene, scene.split(args.split), args.out, args.supersample, args.max_size)
    for name in made.unseen:
        logger.warning("warning: view %s sees nothing of the mesh and is left out", name)
    write_provenance(args.out, {**vars(args), "out": str(args.out)}, seed=0)
    print(
        f"{args.out}: {made.views} views ({made.made} cast now), {made.pixels} covered pixels, "
        f"{made.bytes} bytes, {made.bytes / made.samples:.2f} bytes per covered sub-sample"
    )


@command
def main() -> None:
    args = parse()
    setup_logging()
    {"prepare": prepare_scene, "cache-rays": cache_rays}[args.command](args)


if __name__ == "__main__":
    main()
