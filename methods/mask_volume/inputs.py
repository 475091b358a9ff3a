"""What mask_volume starts from: clips of a rig, scenes of many photos, one posed scene, or stored planes."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from common.errors import UserError
from dataloader.folder_scenes import scene_folders
from dataloader.formats import detect_formats, open_scene
from dataloader.images import to_uint8
from dataloader.rig.sets import is_rig, open_rig_sets
from dataloader.scene import Record, Scene
from dataloader.scene_sets import SceneSets
from dataloader.scene_sets_open import ROOMS, open_scene_sets
from engine.config import Experiment
from engine.method import Script
from geometry.plane_files import read_mpi
from geometry.plane_render import render_planes
from geometry.planes import PlaneImage
from methods.mask_volume.config import PlaneFile
from methods.mask_volume.data import scene_bounds

_CLIP_FLAGS = ("background", "indices", "start", "end")


def add_arguments(parser: argparse.ArgumentParser, script: Script) -> None:
    """The flags of videos: which clip, which cameras, which moments."""
    if script != "video":
        return
    group = parser.add_argument_group("mask_volume")
    group.add_argument("--data", type=Path, metavar="FRAMES", help="clip to film (data.root)")
    group.add_argument(
        "--background", type=Path, metavar="BG", help="its plates (default: 'background' beside the frames)"
    )
    group.add_argument(
        "--indices", type=int, nargs="+", metavar="N", help="source cameras, the reference first"
    )
    group.add_argument("--start", type=int, metavar="N", help="first moment, from 0")
    group.add_argument("--end", type=int, metavar="N", help="the moment after the last one")
    group.add_argument(
        "--mpi",
        nargs="*",
        choices=get_args(PlaneFile),
        help="write the first moment's planes: a page that shows them, LLFF's files (default: model.page)",
    )


def apply_arguments(args: argparse.Namespace, experiment: Experiment) -> None:
    """Let the flags of videos change the experiment, and the experiment name the checkpoint."""
    rig = experiment.data.rig
    given = {name: getattr(args, name, None) for name in ("data", *_CLIP_FLAGS)}
    if given["data"] is not None:
        experiment.data.root = str(given["data"])
    if given["background"] is not None:
        rig.background = str(given["background"])
    if given["indices"] is not None:
        rig.sources = tuple(given["indices"])
    for name in ("start", "end"):
        moment = given[name]
        if moment is not None and moment < 0:
            raise UserError(f"--{name} {moment}: moments count from 0")
        if moment is not None:
            setattr(rig, name, moment)
    if getattr(args, "mpi", None) is not None:
        experiment.model.page = tuple(args.mpi)
    if getattr(args, "inputimg", None) is not None:
        experiment.model.stored = str(args.inputimg)
    looks = hasattr(args, "savepath") and hasattr(args, "resume")  # test.py and video_script.py, not train.py
    if looks and args.resume is None:
        args.resume = experiment.model.checkpoint or None


def open_input(args: argparse.Namespace, experiment: Experiment) -> Scene | SceneSets:
    """What `data.root` names, or the scene of stored planes. Raises UserError for anything missing."""
    data, views = experiment.data, experiment.model.views
    if experiment.model.stored:
        _refuse_flags(args, ("data", *_CLIP_FLAGS), "goes with clips, not with stored planes (-i)")
        return stored_scene(read_mpi(Path(experiment.model.stored)))
    if is_rig(data.root):
        sets = open_rig_sets(data, views)
        for task in sets.tasks.get("test", []):
            if len(task.source) != views:
                raise UserError(
                    f"data.rig.sources (--indices) names {len(task.source)} cameras, the model takes {views} "
                    "(model.views)"
                )
        return sets
    _refuse_flags(args, _CLIP_FLAGS, f"goes with clips of a rig, and {data.root} is none")
    if _is_one_scene(data.root):
        scene = open_scene(data.root, data.format, data.images, hold_out_every=data.hold_out_every)
        scene.choose_views(data.test_views, data.left_out_views)
        _share_bounds(scene)
        return middle_sources(scene, data.source, views)
    return open_scene_sets(data)


def _refuse_flags(args: argparse.Namespace, names: Sequence[str], why: str) -> None:
    """Raise UserError where one of these flags is given."""
    for name in names:
        if getattr(args, name, None) is not None:
            raise UserError(f"--{name} {why}: leave it out")


def _is_one_scene(root: str) -> bool:
    if root.startswith("builtin:"):
        return root != ROOMS
    folder = Path(root).expanduser()
    return folder.is_dir() and bool(detect_formats(folder)) and not scene_folders(folder)


def _share_bounds(scene: Scene) -> None:
    """Give every photo the bounds of all: planes stand where training puts them, whichever are chosen."""
    bounds = scene_bounds(scene)
    if bounds is not None:
        near, far = bounds.tolist()
        for record in scene.records:
            record.bounds = (near, far)


def middle_sources(scene: Scene, split: str, count: int) -> Scene:
    """The scene with `count` neighbouring photos, the middle ones, in a split. Raises UserError for fewer."""
    chosen = scene.split(split)
    if len(chosen) < count:
        raise UserError(f"scene {scene.name} has {len(chosen)} photos in its split {split!r}, {count} needed")
    start = (len(chosen) - count) // 2
    scene.splits[split] = chosen[start : start + count]
    return scene


def stored_scene(planes: PlaneImage) -> Scene:
    """A scene of one photo: what the planes' own camera sees, with its depth."""
    seen = render_planes(planes, planes.camera[None])
    bounds = (float(planes.depths[-1]), float(planes.depths[0]))
    record = Record(
        "planes",
        planes.camera.to("cpu"),
        to_uint8(seen.color[0].clamp(0, 1)),
        depth=seen.depth[0, 0].float().cpu().numpy(),
        bounds=bounds,
    )
    return Scene("planes", [record], splits={"train": [0], "test": [0]})
