"""Make scenes: from your own photos to cameras, a mesh, and the rays that a surface renderer trains from."""

from __future__ import annotations

import argparse
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

from common.cli import add_boolean, command_parser, positive, setup_logging
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
python scripts/scene.py metashape temple/project.psz temple
python scripts/scene.py metashape-cameras temple temple_mvsnet --dsp_factor 4
"""
_DEFAULTS = PrepareOptions()


def parse() -> argparse.Namespace:
    parser = command_parser(__doc__ or "", EXAMPLES)
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="{prepare,cache-rays,metashape,metashape-cameras}"
    )
    shared = {
        "epilog": parser.epilog,
        "formatter_class": parser.formatter_class,
        "allow_abbrev": False,
    }
    add_prepare(commands, shared)
    add_cache_rays(commands, shared)
    add_metashape(commands, shared)
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


def add_metashape(commands: Any, shared: dict[str, Any]) -> None:
    sub = commands.add_parser(
        "metashape",
        help="Agisoft Metashape project -> cams.xml and a mesh (needs the Metashape module)",
        description="Align the photos of a Metashape project and write OUT/cams.xml and OUT/1.obj. Then "
        "export the undistorted photos from Metashape to OUT/images by hand; go on with metashape-cameras.",
        **shared,
    )
    sub.add_argument("project", type=Path, metavar="PROJECT", help="project with photos (.psz or .psx)")
    sub.add_argument("out", type=Path, metavar="OUT", help="folder for cams.xml and 1.obj")
    sub = commands.add_parser(
        "metashape-cameras",
        help="Metashape's cams.xml and undistorted photos -> MVSNet folders cams_D and images_D",
        description="Write OUT/cams_D/NAME_cam.txt and OUT/images_D/NAME.* from XML_SCENE/cams.xml and "
        "XML_SCENE/images. Use them with --format mvsnet --images images_D.",
        **shared,
    )
    sub.add_argument(
        "scene", type=Path, metavar="XML_SCENE", help="folder that holds cams.xml and images/ (undistorted)"
    )
    sub.add_argument("out", type=Path, metavar="OUT", help="scene folder to write to; may be XML_SCENE")
    sub.add_argument(
        "--dsp_factor",
        type=positive(int),
        default=1,
        metavar="D",
        help="reduce the photos by this factor; 1 copies them (default: 1)",
    )
    sub.add_argument("--key", default="", metavar="PREFIX", help="put this before every file name")
    add_boolean(
        sub, "--apply_transform", help="move the cameras to world coordinates by the chunk's transform"
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


def metashape(args: argparse.Namespace) -> None:
    from dataloader.prepare.metashape import reconstruct

    cameras, mesh = reconstruct(args.project, args.out)
    print(f"{cameras} and {mesh} written: export the undistorted photos to {args.out / 'images'} next")


def metashape_cameras(args: argparse.Namespace) -> None:
    from dataloader.prepare.metashape_cameras import convert

    done = convert(args.scene, args.out, args.dsp_factor, args.key, args.apply_transform)
    print(
        f"{done.count} photos with cameras written to {done.images} and {done.cams}: use them with "
        f"--format mvsnet --images {done.images.name}"
    )


@command
def main() -> None:
    args = parse()
    setup_logging()
    {
        "prepare": prepare_scene,
        "cache-rays": cache_rays,
        "metashape": metashape,
        "metashape-cameras": metashape_cameras,
    }[args.command](args)


if __name__ == "__main__":
    main()
