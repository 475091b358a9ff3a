"""What a video is made from: the views given to a method, and the paths that are filmed from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from common.errors import UserError
from dataloader.scene import Scene
from dataloader.scene_sets import SceneSet, SceneSets
from engine.camera_paths import CamerasOf, scene_path
from engine.config import DataConfig
from engine.data import source_views
from engine.method import Method
from geometry.cameras import Cameras
from geometry.views import Views


@dataclass
class Take:
    """One scene's films. source: reads the views given. paths: what is filmed, cameras and frame rate (None:
    the script's). folder: where the files go.
    """

    folder: Path
    source: Callable[[], Views]
    paths: list[tuple[str, Cameras, float | None]]


@dataclass
class Wish:
    """What was asked for, the same for every scene: paths by name or file, and as in `scene_path`."""

    paths: Sequence[str]
    view: str | None = None
    frames: int | None = None
    original: bool = False

    def find(
        self,
        scene: Scene,
        data: DataConfig,
        sources: Sequence[int] | None = None,
        cameras_of: CamerasOf | None = None,
    ) -> list[tuple[str, Cameras, float | None]]:
        """The cameras of every path in a scene."""
        options = (self.view, self.frames, self.original, sources, cameras_of)
        return [(path, *scene_path(path, scene, data, *options)) for path in self.paths]


def scene_take(scene: Scene, method: Method, data: DataConfig, wish: Wish, folder: Path) -> Take:
    """The films of a single scene, from its split `data.source`."""
    paths = wish.find(scene, data)
    return Take(folder, lambda: source_views(scene, data, method.reads_sources), paths)


def set_take(
    sets: SceneSets,
    index: int,
    method: Method,
    data: DataConfig,
    wish: Wish,
    folder: Path,
    sources: Sequence[int] = (),
) -> Take:
    """The films of one of many scenes, in a folder of its own, from the sources named or those of its task.

    Raises UserError when there is no task, a source is not there or the scene cannot be read.
    """
    scenes = sets.split(data.target)
    key, scene = scenes.key(index), scenes.scene(index)
    given = list(sources) or _task_sources(sets, index, data, key)
    for record in given:
        if not 0 <= record < len(scene):
            raise UserError(f"--source_views {record}: scene {key} has {len(scene)} views, numbered from 0")

    def cameras_of(indices: list[int]) -> Cameras:
        return method.views(scene, indices, data).cameras

    paths = wish.find(scene, data, given, cameras_of)
    return Take(folder / key, lambda: method.views(scene, given, data), paths)


def _task_sources(sets: SceneSets, index: int, data: DataConfig, key: str) -> list[int]:
    for task in sets.tasks.get(data.target, []):
        if task.scene == index:
            return list(task.source)
    raise UserError(f"the evaluation index has no task on scene {key}: name its sources with --source_views")


def find_scenes(sets: SceneSets, target: str, words: Sequence[str]) -> list[int]:
    """Indices of the scenes of a split that words name, by key or by number; without words the first one that
    has a task. Raises UserError for a scene that is not there.
    """
    scenes = sets.split(target)
    if words:
        return [_find_scene(scenes, word) for word in words]
    if not len(scenes):
        raise UserError(f"{sets.name} has no scene in its split {target!r}")
    return [min((task.scene for task in sets.tasks.get(target, [])), default=0)]


def _find_scene(scenes: SceneSet, word: str) -> int:
    found = next((i for i in range(len(scenes)) if scenes.key(i) == word), None)
    if found is None and word.isdecimal() and int(word) < len(scenes):
        found = int(word)
    if found is None:
        raise UserError(
            f"--scenes {word}: {scenes.name} has {len(scenes)} scenes, the first is {scenes.key(0)}; "
            "give a key or a number from 0"
        )
    return found
