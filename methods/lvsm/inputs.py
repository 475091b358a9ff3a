"""What LVSM starts from: many scenes, or one posed scene of which a few photos are the sources."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch

from common.errors import UserError
from dataloader.folder_scenes import scene_folders
from dataloader.formats import detect_formats
from dataloader.framed import framed, framed_sets
from dataloader.scene import Scene
from dataloader.scene_sets import SceneSets
from dataloader.scene_sets_open import ROOMS, open_scene_sets
from dataloader.view_samplers import farthest_points
from engine.config import Experiment
from methods.lvsm.config import LvsmConfig

OpenScene = Callable[[argparse.Namespace, Experiment], object]


def open_input(args: argparse.Namespace, experiment: Experiment, open_scene: OpenScene) -> Scene | SceneSets:
    """What `data.root` names, with photos framed by `model.images`. open_scene: opens a single scene.

    Of a single scene at most `model.views.most_sources` photos of the split `data.source` are given, spread
    out by their places. Raises UserError for anything missing.
    """
    if getattr(args, "inputimg", None) is not None:
        raise UserError(f"-i {args.inputimg}: lvsm starts from several posed photos, set data.root instead")
    config: LvsmConfig = experiment.model
    if _is_one_scene(experiment.data.root):
        scene = open_scene(args, experiment)
        assert isinstance(scene, Scene)
        return limit_sources(framed(scene, config.images), experiment.data.source, config.views.most_sources)
    return framed_sets(open_scene_sets(experiment.data), config.images)


def _is_one_scene(root: str) -> bool:
    """Whether a root is a single posed scene, not a set of them."""
    if root.startswith("builtin:"):
        return root != ROOMS
    folder = Path(root).expanduser()
    return folder.is_dir() and bool(detect_formats(folder)) and not scene_folders(folder)


def limit_sources(scene: Scene, split: str, most: int) -> Scene:
    """The scene with at most so many photos in a split, spread out, in their order; the rest is unused."""
    chosen = scene.split(split)
    if split == "all" or len(chosen) <= most:
        return scene
    centers = torch.stack([scene.records[i].camera.center for i in chosen])
    scene.splits[split] = sorted(chosen[i] for i in farthest_points(centers, most))
    return scene
