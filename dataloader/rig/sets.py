"""Clips as sets of scenes, a scene per moment, and what is evaluated on them."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Protocol

from common.errors import UserError
from dataloader.re10k.stacked import stacked_file
from dataloader.rig.clip import Clip
from dataloader.rig.config import RIGS, RigConfig
from dataloader.rig.folders import is_clip, open_frames
from dataloader.scene import Scene
from dataloader.scene_sets import SceneSet, SceneSets, ViewTask

SPLITS = ("train", "test")


class RigSettings(Protocol):
    """What of the `data:` section says where clips are (`engine.config.DataConfig`)."""

    root: str
    images: str
    rig: RigConfig


@dataclass
class ClipScenes:
    """Clips as a set of scenes (`FilmedScenes`): a scene per moment, clip after clip."""

    clips: Sequence[Clip]
    name: str
    chunk_sizes: Sequence[int] | None = None
    _ends: list[int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._ends = list(accumulate(len(clip) for clip in self.clips))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def moment(self, index: int) -> tuple[int, int]:
        """Which clip scene `index` is of, and its place in it, both from 0."""
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name} has {len(self)} moments, there is no {index}")
        clip = bisect.bisect_right(self._ends, index)
        return clip, index - (self._ends[clip - 1] if clip else 0)

    def clip_name(self, clip: int) -> str:
        """What files and messages call a clip."""
        return self.clips[clip].name

    def key(self, index: int) -> str:
        """The number of the moment ('00007'), after the clip's name where there are several."""
        clip, moment = self.moment(index)
        number = f"{self.clips[clip].frames[moment]:05d}"
        return number if len(self.clips) == 1 else f"{self.clips[clip].name}_{number}"

    def scene(self, index: int) -> Scene:
        """What all cameras see at a moment; photos are read when `Scene.views` asks for them."""
        clip, moment = self.moment(index)
        return self.clips[clip].scene(moment)


def clips_of(scenes: SceneSet) -> list[Clip]:
    """The clips of a set. Raises UserError where it holds no clips."""
    if not isinstance(scenes, ClipScenes):
        raise UserError(
            f"{scenes.name} holds no clips: data.root takes a clip's folder (cam00, cam01, ... or 00000, "
            f"00001, ...), an .h5 archive, a folder of these, or {RIGS}"
        )
    return list(scenes.clips)


def choose_cameras(config: RigConfig, clip: Clip, given: int = 2) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The cameras given (the reference first) and those scored; none of the latter where all are given.

    given: how many of the middle ones are given where `config.sources` names none. Raises UserError for a
    camera that the clip does not have or that is named twice, and where there are fewer than `given`.
    """
    count = len(clip.cameras)
    if not config.sources and count < given:
        raise UserError(f"{clip.name} has {count} cameras, and {given} are to be given")
    start = (count - given) // 2
    sources = config.sources or tuple(range(start, start + given))
    targets = config.targets or tuple(i for i in range(count) if i not in sources)
    for name, chosen in (("sources", sources), ("targets", targets)):
        for camera in chosen:
            if not 0 <= camera < count:
                raise UserError(
                    f"data.rig.{name} names camera {camera}: {clip.name} has {count}, numbered from 0"
                )
    if len({*sources, *targets}) < len(sources) + len(targets):
        raise UserError(
            f"data.rig: sources {list(sources)} and targets {list(targets)} name a camera twice: name it once"
        )
    return sources, targets


def is_rig(root: str) -> bool:
    """Whether `data.root` names clips, be they whole or not."""
    if root.startswith("builtin:"):
        return root == RIGS
    path = Path(root).expanduser()
    if path.suffix == ".h5":
        return _has_poses(path) or stacked_file(path) is None
    return path.is_dir() and (is_clip(path) or bool(_clips_below(path)))


def open_rig_sets(data: RigSettings, given: int = 2) -> SceneSets:
    """The clips that `data.root` names, and a task per moment on the split 'test'.

    given: how many of the middle cameras are given there, where `data.rig.sources` names none.
    root: a clip's folder or archive, which is both 'train' and 'test'; a folder of clips, or of folders of
    clips, where 'train/' and 'test/' are the splits if there are such; or 'builtin:rigs' (`data.rig`). Every
    clip is cut to the moments that `data.rig` chooses. Raises UserError for anything else, and for
    `data.rig.sources` or `targets` that a clip does not have.
    """
    if not data.root:
        raise UserError(f"data.root is empty: set it to a clip's folder or archive, or to {RIGS}")
    if data.root == RIGS:
        from dataloader.rig.toy import open_rigs

        splits = dict(zip(SPLITS, open_rigs(data.rig), strict=True))
    else:
        splits = _open(Path(data.root).expanduser(), data)
    rig = data.rig
    sets = {
        name: ClipScenes([clip.cut(rig.start, rig.end, rig.every) for clip in clips], f"{data.root} {name}")
        for name, clips in splits.items()
    }
    tasks = {"test": _tasks(sets["test"], rig, given)} if "test" in sets else {}
    return SceneSets(data.root, dict(sets), tasks)


def _tasks(scenes: ClipScenes, config: RigConfig, given: int) -> list[ViewTask]:
    """A task per moment: the source cameras are given, the target cameras scored."""
    cameras = [choose_cameras(config, clip, given) for clip in scenes.clips]
    chosen = [cameras[scenes.moment(index)[0]] for index in range(len(scenes))]
    return [ViewTask(i, sources, targets) for i, (sources, targets) in enumerate(chosen) if targets]


def _open(root: Path, data: RigSettings) -> dict[str, list[Clip]]:
    """The clips of each split."""
    background = Path(data.rig.background).expanduser() if data.rig.background else None
    if root.suffix == ".h5" or is_clip(root):
        clips = [open_frames(root, background, images=data.images)]
        return dict.fromkeys(SPLITS, clips)
    if not root.is_dir():
        raise UserError(f"data.root: {root} is no folder")
    if background is not None:
        raise UserError(f"data.rig.background is for a single clip, {root} is none: leave it out")
    paths = {name: _clips_below(root / name) for name in SPLITS if (root / name).is_dir()}
    if not any(paths.values()):
        paths = dict.fromkeys(SPLITS, _clips_below(root))
    if not any(paths.values()):
        raise UserError(
            f"{root} holds no clips: data.root takes a clip's folder (cam00, cam01, ... or 00000, 00001, "
            f"...), an .h5 archive with its _pb.npy, a folder of these, or {RIGS}"
        )
    return {
        name: [open_frames(path, images=data.images) for path in found]
        for name, found in paths.items()
        if found
    }


def _has_poses(archive: Path) -> bool:
    return archive.with_name(f"{archive.stem}_pb.npy").is_file()


def _clips_below(root: Path, depth: int = 2) -> list[Path]:
    """Archives and clip folders in a folder and the folders in it, sorted."""
    found: list[Path] = []
    for path in sorted(root.iterdir()):
        if (path.suffix == ".h5" and _has_poses(path)) or is_clip(path):
            found.append(path)
        elif path.is_dir() and depth > 1:
            found += _clips_below(path, depth - 1)
    return found
