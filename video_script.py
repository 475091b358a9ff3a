"""Render camera paths of a scene, or of a single photo, as videos."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import torch

from common.cli import command_parser, positive, progress, setup_logging
from common.errors import UserError, command
from dataloader.images import to_uint8
from dataloader.pairs import PairData
from dataloader.scene import Scene
from dataloader.scene_sets import SceneSets
from engine.camera_paths import path_name
from engine.config import DataConfig, to_dict
from engine.device import best_device
from engine.memory import FILMING, out_of_memory
from engine.method import Method
from engine.outputs import prepare_folder, write_provenance
from engine.sheets import contact_sheet, write_sheet
from engine.takes import Take, Wish, find_scenes, scene_take, set_take
from engine.video import write_video
from geometry.cameras import Cameras
from geometry.path_files import write_camera_path
from methods import open_experiment, parse_experiment

log = logging.getLogger(__name__)

EXAMPLES = """
python video_script.py -e configs/baselines/depth_warp -s outputs/motorcycle
python video_script.py -e configs/baselines/depth_warp -i a.jpg --depth a.npy --focal 800 -s outputs/a
python video_script.py -e configs/baselines/photo_blend -s outputs/fox --path ellipse data.root=scenes/fox
python video_script.py -e configs/baselines/vertex_colors -r latest -s outputs/fox --path camera_path.json
"""

SHEET_FRAMES = 6


def build_parser() -> argparse.ArgumentParser:
    """The script's own flags; the experiment's method adds more."""
    parser = command_parser(__doc__ or "", EXAMPLES)
    parser.add_argument("-e", "--exp_dir", type=Path, required=True, help="folder that holds config.yaml")
    parser.add_argument("-s", "--savepath", type=Path, required=True, help="output folder")
    parser.add_argument("-i", "--inputimg", type=Path, help="a photo, where the method takes one")
    parser.add_argument("-r", "--resume", help="checkpoint: N, latest or -1")
    parser.add_argument("--output_dir", type=Path, help="where the iter_N folders are (default: -e)")
    parser.add_argument(
        "--path", nargs="+", help="names or .json files (default: orbit spiral; of many scenes: frames pivot)"
    )
    parser.add_argument("--view", metavar="NAME", help="photo a path starts from (default: the middle one)")
    parser.add_argument("--frames", type=positive(int), help="frames per path (default: the path's own)")
    parser.add_argument("--fps", type=positive(float), help="default: the path's own, else 10")
    formats = ["gif", "mp4"]
    parser.add_argument("--format", nargs="+", default=formats, choices=formats, help="default: both")
    many = parser.add_argument_group("data of many scenes")
    many.add_argument(
        "--scenes", nargs="+", default=[], metavar="SCENE", help="keys or numbers (default: the first one)"
    )
    many.add_argument(
        "--source_views",
        nargs="+",
        type=int,
        default=[],
        metavar="N",
        help="views given (default: the task's)",
    )
    return parser


def render_video(
    method: Method, state: object, path: str, cameras: Cameras, fps: float, folder: Path, formats: list[str]
) -> list[Path]:
    """Render one path and write its videos, contact sheet and cameras; returns the files.

    None where the method makes no views for want of weights.
    """
    cameras = cameras.to(best_device())
    frames, covered, name = [], False, path_name(path)
    with torch.no_grad(), out_of_memory(FILMING):
        views = method.film(state, cameras, folder / name)
        for rendering in progress(views, name, len(cameras), "frame", disable=bool(method.missing)):
            covered = covered or bool(rendering.covered().any())
            frames.append(to_uint8(rendering.image[0]))
    if not frames:
        return []
    if not covered:
        raise UserError(f"path {path}: the scene is out of view in every frame; does the path fit it?")
    files = [folder / f"{name}.{suffix}" for suffix in formats]
    for file in files:
        write_video(frames, file, fps)
    record = folder / f"{name}.json"
    try:
        if not record.exists() or record.resolve() != Path(path).resolve():  # never over the path's own file
            write_camera_path(cameras, record, fps)
            files.append(record)
    except UserError as error:  # nerfstudio's format knows centred principal points only
        log.info("the path is not written as JSON: %s", error)
    chosen = torch.linspace(0, len(frames) - 1, min(SHEET_FRAMES, len(frames))).round().int().tolist()
    pictures = [torch.from_numpy(frames[i]).permute(2, 0, 1) / 255 for i in chosen]
    write_sheet(contact_sheet([pictures], [f"frame {i}" for i in chosen]), folder / f"{name}.png")
    return [*files, folder / f"{name}.png"]


def original_extents(args: argparse.Namespace) -> bool:
    """Whether paths shall be as long as an original implementation's, where the method has such a flag."""
    return getattr(args, "original_camera", False)


def find_takes(
    args: argparse.Namespace, scene: Scene | PairData | SceneSets, method: Method, data: DataConfig
) -> list[Take]:
    """What is filmed: the scene, or those of many that `--scenes` names."""
    many = isinstance(scene, SceneSets)
    paths = args.path or (["frames", "pivot"] if many else ["orbit", "spiral"])
    wish = Wish(paths, args.view, args.frames, original_extents(args))
    if isinstance(scene, SceneSets):
        chosen = find_scenes(scene, data.target, args.scenes)
        return [set_take(scene, i, method, data, wish, args.savepath, args.source_views) for i in chosen]
    for flag in ("scenes", "source_views"):
        if getattr(args, flag):
            raise UserError(f"--{flag} is for data of many scenes, and {scene.name} is not: leave it out")
    if not isinstance(scene, Scene):
        raise UserError(f"{scene.name} holds image pairs, and videos are made of scenes: set data.root")
    return [scene_take(scene, method, data, wish, args.savepath)]


@command
def main() -> None:
    setup_logging()
    args, experiment, kind = parse_experiment(build_parser(), "video")
    scene, method = open_experiment(args, experiment, kind, partly=True)
    method = method.to(best_device()).eval()
    with out_of_memory(FILMING):
        method.prepare_scene(scene)
    takes = find_takes(args, scene, method, experiment.data)
    prepare_folder(args.savepath)
    for take in takes:
        with out_of_memory(FILMING):
            state = method.encode(take.source().to(best_device()))
        for file in method.write_sources(state, take.folder):
            print(file)
        for path, cameras, path_fps in take.paths:
            fps = args.fps or path_fps or 10.0
            for file in render_video(method, state, path, cameras, fps, take.folder, args.format):
                print(file)
    write_provenance(args.savepath, to_dict(experiment), experiment.training.seed)
    if method.missing:
        raise UserError(f"{args.savepath} has the warps, but no views: {method.missing}")


if __name__ == "__main__":
    main()
