"""Render camera paths of a scene, of a single photo, or of a rig's clip while its time runs, as videos."""

from __future__ import annotations

import argparse
from pathlib import Path

from common.cli import command_parser, positive, setup_logging
from common.errors import UserError, command
from dataloader.pairs import PairData
from dataloader.scene import Scene
from dataloader.scene_sets import FilmedScenes, SceneSets
from engine.clip_takes import ClipTake, clip_take, find_clips
from engine.config import DataConfig, to_dict
from engine.device import best_device
from engine.filming import FORMATS, Filming
from engine.memory import FILMING, out_of_memory
from engine.method import Method
from engine.outputs import prepare_folder, write_provenance
from engine.takes import Take, Wish, find_scenes, scene_take, set_take
from methods import open_experiment, parse_experiment

EXAMPLES = """
python video_script.py -e configs/baselines/depth_warp -s outputs/motorcycle
python video_script.py -e configs/baselines/depth_warp -i a.jpg --depth a.npy --focal 800 -s outputs/a
python video_script.py -e configs/baselines/photo_blend -s outputs/fox --path ellipse data.root=scenes/fox
python video_script.py -e configs/baselines/vertex_colors -r latest -s outputs/fox --path camera_path.json
python video_script.py -e configs/baselines/nearest_view -s outputs/clip --path spiral data.root=clips/dog
"""


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
        choices=FORMATS,
        help="png: frames NAME/00000.png ... (default: gif mp4)",
    )
    parser.add_argument(
        "--at_once", type=positive(int), default=1, metavar="N", help="poses of a clip rendered together"
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
    filming = Filming(best_device(), args.format, args.fps, args.at_once)
    for take in takes:
        if isinstance(take, ClipTake):
            files = filming.film_clip(method, take)
        else:
            files = filming.film_scene(method, take)
        for file in files:
            print(file)
    write_provenance(args.savepath, to_dict(experiment), experiment.training.seed)
    if method.missing:
        raise UserError(f"{args.savepath} has the warps, but no views: {method.missing}")


if __name__ == "__main__":
    main()
