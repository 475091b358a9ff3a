"""Render camera paths of a scene, of a single photo, or of a rig's clip while its time runs, as videos."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from common.cli import command_parser, positive, setup_logging
from common.errors import UserError, command
from dataloader.images import to_tensor
from dataloader.pairs import PairData
from dataloader.scene import Scene
from dataloader.scene_sets import FilmedScenes, SceneSets
from engine.camera_paths import path_name
from engine.clip_takes import ClipTake, clip_take, find_clips
from engine.config import DataConfig, to_dict
from engine.device import best_device
from engine.film import Footage, clip_views, spooled
from engine.memory import FILMING, out_of_memory
from engine.method import Method
from engine.outputs import prepare_folder, write_provenance
from engine.sheets import contact_sheet, write_sheet
from engine.takes import Take, Wish, find_scenes, scene_take, set_take
from engine.video import write_video
from geometry.cameras import Cameras
from geometry.path_files import write_camera_path
from geometry.views import Rendering
from methods import open_experiment, parse_experiment

log = logging.getLogger(__name__)

EXAMPLES = """
python video_script.py -e configs/baselines/depth_warp -s outputs/motorcycle
python video_script.py -e configs/baselines/depth_warp -i a.jpg --depth a.npy --focal 800 -s outputs/a
python video_script.py -e configs/baselines/photo_blend -s outputs/fox --path ellipse data.root=scenes/fox
python video_script.py -e configs/baselines/vertex_colors -r latest -s outputs/fox --path camera_path.json
python video_script.py -e configs/baselines/nearest_view -s outputs/clip --path spiral data.root=clips/dog
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
        "--path",
        nargs="+",
        help="names or path files (default: orbit spiral; of many scenes: frames pivot; of clips: their own "
        "qual_path.txt, else spiral)",
    )
    parser.add_argument("--view", metavar="NAME", help="photo a path starts from (default: the middle one)")
    parser.add_argument("--frames", type=positive(int), help="frames per path (default: the path's own)")
    parser.add_argument("--fps", type=positive(float), help="default: the path's own, else 10 (30 of clips)")
    parser.add_argument(
        "--format",
        nargs="+",
        default=["gif", "mp4"],
        choices=["gif", "mp4", "png"],
        help="png: frames NAME/00000.png ... (default: gif mp4)",
    )
    parser.add_argument(
        "-b", "--batch_size", type=positive(int), default=1, help="poses rendered at once (of clips)"
    )
    many = parser.add_argument_group("data of many scenes")
    many.add_argument(
        "--scenes",
        nargs="+",
        default=[],
        metavar="SCENE",
        help="keys (names of clips) or numbers (default: the first one)",
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


def film_scene(method: Method, take: Take, args: argparse.Namespace) -> Iterator[Path]:
    """Render the paths of a scene; gives the files, as they are written.

    None where the method makes no views for want of weights.
    """
    with out_of_memory(FILMING):
        state = method.encode(take.source().to(best_device()))
    yield from method.write_sources(state, take.folder)
    for path, cameras, path_fps in take.paths:
        cameras = cameras.to(best_device())
        views = enumerate(method.film(state, cameras, take.folder / path_name(path)))
        fps = args.fps or path_fps or 10.0
        yield from render_video(views, path, cameras, fps, take.folder, args.format, bool(method.missing))


def film_clip(method: Method, take: ClipTake, args: argparse.Namespace) -> Iterator[Path]:
    """Render the paths of a clip while its time runs; gives the files, as they are written."""
    for path, cameras, path_fps, moments in take.paths:
        timed = replace(cameras.to(best_device()), time=torch.tensor(moments, device=best_device()).double())
        views = clip_views(
            method, lambda moment: take.source(moment).to(best_device()), timed, moments, args.batch_size
        )
        yield from render_video(views, path, timed, args.fps or path_fps, take.folder, args.format)


def render_video(
    views: Iterable[tuple[int, Rendering]],
    path: str,
    cameras: Cameras,
    fps: float,
    folder: Path,
    formats: list[str],
    partly: bool = False,
) -> list[Path]:
    """Write one path's videos, contact sheet and cameras; returns the files.

    views: numbers of frames and their renders. partly: there may be none; then nothing is written.
    """
    name = path_name(path)
    with (
        torch.no_grad(),
        out_of_memory(FILMING),
        spooled(views, len(cameras), name, folder, quiet=partly) as footage,
    ):
        if not footage.count:
            return []
        if not footage.covered:
            raise UserError(f"path {path}: the scene is out of view in every frame; does the path fit it?")
        files = [folder / f"{name}.{suffix}" for suffix in formats if suffix != "png"]
        for file in files:
            write_video(footage, file, fps)
        write_sheet(_sheet(footage), folder / f"{name}.png")
        if "png" in formats:
            footage.move_to(folder / name)
            files.append(folder / name)
    record = folder / f"{name}.json"
    try:
        if not record.exists() or record.resolve() != Path(path).resolve():  # never over the path's own file
            write_camera_path(cameras, record, fps)
            files.append(record)
    except UserError as error:  # nerfstudio's format knows centred principal points only
        log.info("the path is not written as JSON: %s", error)
    return [*files, folder / f"{name}.png"]


def _sheet(footage: Footage) -> NDArray[np.uint8]:
    """A few frames side by side."""
    chosen = torch.linspace(0, footage.count - 1, min(SHEET_FRAMES, footage.count)).round().int().tolist()
    return contact_sheet([[to_tensor(footage.frame(i)) for i in chosen]], [f"frame {i}" for i in chosen])


def original_extents(args: argparse.Namespace) -> bool:
    """Whether paths shall be as long as an original implementation's, where the method has such a flag."""
    return getattr(args, "original_camera", False)


def find_takes(
    args: argparse.Namespace, scene: Scene | PairData | SceneSets, method: Method, data: DataConfig
) -> list[Take] | list[ClipTake]:
    """What is filmed: the scene, or those of many (or clips) that `--scenes` names."""
    many = isinstance(scene, SceneSets)
    paths = args.path or (["frames", "pivot"] if many else ["orbit", "spiral"])
    wish = Wish(paths, args.view, args.frames, original_extents(args))
    if isinstance(scene, SceneSets):
        filmed = scene.split(data.target)
        if isinstance(filmed, FilmedScenes):
            wish.paths = args.path or []
            clips = find_clips(filmed, args.scenes)
            words = (method, data, wish, args.savepath, args.source_views)
            return [clip_take(scene, clip, *words) for clip in clips]
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
        files = (
            film_clip(method, take, args) if isinstance(take, ClipTake) else film_scene(method, take, args)
        )
        for file in files:
            print(file)
    write_provenance(args.savepath, to_dict(experiment), experiment.training.seed)
    if method.missing:
        raise UserError(f"{args.savepath} has the warps, but no views: {method.missing}")


if __name__ == "__main__":
    main()
