"""What a video of a clip is made from: the views given at each moment, and the paths that are filmed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from common.errors import UserError
from dataloader.rig.folders import frame_folders, is_clip
from dataloader.rig.sets import ClipScenes, choose_cameras
from dataloader.scene import Scene
from dataloader.scene_sets import FilmedScenes, SceneSets
from engine.camera_paths import scene_bounds
from engine.config import DataConfig
from engine.film import moments_of
from engine.method import Method
from engine.takes import Wish
from geometry.cameras import Cameras
from geometry.path_files import read_camera_path
from geometry.rig_path_files import SUFFIXES, read_rig_path
from geometry.rig_paths import DEFAULT_FRAMES, RIG_PATHS
from geometry.views import Views

CLIP_FPS = 30.0  # of the data set that the original extracts (specs/mask_volume 4.2)
OWN_PATH = "qual_path.txt"  # a clip's own path (specs/mask_volume 4.3)

_FILES = (".json", *SUFFIXES)
_LENGTHS = {"circle": 2, "extreme": 2, "spiral": 4}  # frames of a path per unit of its length; others: 1


@dataclass
class ClipTake:
    """One clip's films. source: reads the views given at a moment. paths: what is filmed: name or file,
    cameras, frame rate, and the moment that each of the cameras sees. folder: where the files go.
    """

    folder: Path
    source: Callable[[int], Views]
    paths: list[tuple[str, Cameras, float, list[int]]]


def find_clips(scenes: FilmedScenes, words: Sequence[str]) -> list[int]:
    """The clips that words name, by name or by number from 0; without words the first one.

    Raises UserError for a clip that is not there.
    """
    count = scenes.moment(len(scenes) - 1)[0] + 1
    names = [scenes.clip_name(clip) for clip in range(count)]
    chosen = []
    for word in words or names[:1]:
        if word not in names and not (word.isdecimal() and int(word) < count):
            raise UserError(
                f"--scenes {word}: {scenes.name} has {count} clips, the first is {names[0]}; give a name or "
                "a number from 0"
            )
        chosen.append(names.index(word) if word in names else int(word))
    return list(dict.fromkeys(chosen))


def clip_take(
    sets: SceneSets,
    clip: int,
    method: Method,
    data: DataConfig,
    wish: Wish,
    folder: Path,
    sources: Sequence[int] = (),
) -> ClipTake:
    """The films of a clip, from the cameras named or those of its tasks, the reference first.

    wish: without paths, the clip's own path file where there is one, else the spiral. Several clips have a
    folder each. Raises UserError for a camera that is not there and a path that cannot be had.
    """
    scenes = sets.split(data.target)
    assert isinstance(scenes, FilmedScenes)
    if wish.view is not None:
        raise UserError("--view is for paths around one photo, and those of a clip go around its cameras")
    indices = [i for i in range(len(scenes)) if scenes.moment(i)[0] == clip]
    scene, name = scenes.scene(indices[0]), scenes.clip_name(clip)
    given = list(sources) or _task_cameras(sets, scenes, clip, data)
    for camera in given:
        if not 0 <= camera < len(scene):
            raise UserError(f"--source_views {camera}: {name} has {len(scene)} cameras, numbered from 0")
    rig = method.views(scene, range(len(scene)), data).cameras
    paths = []
    for path in wish.paths or [own_path(data.root) or "spiral"]:
        cameras, fps = clip_path(path, scene, rig, wish.frames)
        paths.append((path, cameras, fps, moments_of(cameras, len(indices))))
    several = scenes.moment(len(scenes) - 1)[0] > 0
    return ClipTake(
        folder / name if several else folder,
        lambda moment: method.views(scenes.scene(indices[moment]), given, data),
        paths,
    )


def _task_cameras(sets: SceneSets, scenes: FilmedScenes, clip: int, data: DataConfig) -> list[int]:
    """The source cameras of a clip's tasks; where nothing is scored, those that `data.rig` chooses."""
    for task in sets.tasks.get(data.target, []):
        if scenes.moment(task.scene)[0] == clip:
            return list(task.source)
    if isinstance(scenes, ClipScenes):
        return list(choose_cameras(data.rig, scenes.clips[clip])[0])
    raise UserError(f"{scenes.clip_name(clip)} has no task: name the cameras given with --source_views")


def own_path(root: str) -> str | None:
    """The path file in a clip's folder: in its first frame's folder, or in itself."""
    folder = Path(root).expanduser()
    if not is_clip(folder):
        return None
    files = [place / OWN_PATH for place in (*frame_folders(folder)[:1], folder)]
    return next((str(file) for file in files if file.is_file()), None)


def clip_path(path: str, scene: Scene, rig: Cameras, frames: int | None = None) -> tuple[Cameras, float]:
    """The cameras [N] of a path of a clip, and their frame rate.

    path: a name of `geometry.rig_paths.RIG_PATHS`; a .txt or .npy path file, whose cameras get the size of
    the photos; or a camera_path.json, which says its own. scene: some moment. rig: its cameras [C] as the
    photos are used. frames: number of frames; None takes the path's default. Raises UserError for an unknown
    path, a file that has another number of frames, and a rig whose depth is not bounded.
    """
    if not path.endswith(_FILES):
        return _named_path(path, scene, rig, frames), CLIP_FPS
    if path.endswith(".json"):
        cameras, fps = read_camera_path(Path(path))
    else:
        cameras, fps = read_rig_path(Path(path), (rig.height, rig.width)), CLIP_FPS
    if frames is not None and frames > len(cameras):
        raise UserError(f"--frames {frames}: {path} has {len(cameras)} poses; give no more than these")
    return cameras[:frames], fps


def _named_path(path: str, scene: Scene, rig: Cameras, frames: int | None) -> Cameras:
    if path not in RIG_PATHS:
        raise UserError(
            f"unknown path {path!r} of a rig: choose from {', '.join(RIG_PATHS)}, or give a path file "
            f"({', '.join(_FILES)})"
        )
    bounds = scene_bounds(scene)
    if bounds is None:
        raise UserError(f"--path {path}: the cameras of {scene.name} have no near and far bounds to go by")
    if frames is None:
        return RIG_PATHS[path](rig, bounds, DEFAULT_FRAMES)
    return RIG_PATHS[path](rig, bounds, math.ceil(frames / _LENGTHS.get(path, 1)))[:frames]
