"""Sets of scenes, opened one at a time, and tasks on them: some views given, others to make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from common.errors import UserError
from dataloader.scene import Scene


@runtime_checkable
class SceneSet(Protocol):
    """Scenes by index, read on demand.

    name: of the set, for messages. chunk_sizes: scenes per chunk, in order, where the set is stored in chunks
    that are slow to open (they sum to its length); None where every scene is as cheap as any other.
    """

    @property
    def name(self) -> str: ...

    @property
    def chunk_sizes(self) -> Sequence[int] | None: ...

    def __len__(self) -> int: ...

    def key(self, index: int) -> str:
        """What files and messages call a scene, without opening it."""
        ...

    def scene(self, index: int) -> Scene:
        """Open a scene; its photos are decoded when `Scene.views` asks for them.

        Raises UserError when it cannot be read.
        """
        ...


@runtime_checkable
class EncodedScenes(SceneSet, Protocol):
    """A set that may hold an autoencoder's latents of its photos; `meta` says whether and how."""

    meta: dict[str, Any]

    def latents(self, index: int) -> tuple[Tensor, Tensor]:
        """Means and deviations [N, C, h, w] of the frames of a scene."""
        ...


@runtime_checkable
class FilmedScenes(SceneSet, Protocol):
    """Videos by static cameras: a scene per moment (frame number), the moments of a video in a row.

    Every scene of a video has the same records, in the same order, with equal cameras and plates.
    """

    def moment(self, index: int) -> tuple[int, int]:
        """Which video scene `index` is of, and its place in it, both from 0."""
        ...

    def clip_name(self, clip: int) -> str:
        """What files and messages call a video."""
        ...


@dataclass
class OneScene:
    """A set that consists of a single scene."""

    only: Scene
    chunk_sizes: Sequence[int] | None = None

    @property
    def name(self) -> str:
        return self.only.name

    def __len__(self) -> int:
        return 1

    def key(self, index: int) -> str:
        return self.only.name

    def scene(self, index: int) -> Scene:
        return self.only


@dataclass(frozen=True)
class ViewTask:
    """Views of a scene that are given and views to make from them.

    scene: index in its `SceneSet`. source, target: record indices of the scene.
    """

    scene: int
    source: tuple[int, ...]
    target: tuple[int, ...]


@dataclass
class SceneSets:
    """Many scenes: a set per split ('train', 'test'), and what is evaluated.

    tasks: per split, the tasks of an evaluation index.
    """

    name: str
    splits: dict[str, SceneSet]
    tasks: dict[str, list[ViewTask]] = field(default_factory=dict)

    def split(self, name: str) -> SceneSet:
        """The scenes of a split. Raises UserError where there is none of that name."""
        if name not in self.splits:
            raise UserError(f"{self.name} has no split {name!r}; it has {', '.join(sorted(self.splits))}")
        return self.splits[name]


def has_clips(data: Any) -> bool:
    """Whether what a script starts from are videos by rigs of static cameras."""
    return isinstance(data, SceneSets) and any(isinstance(s, FilmedScenes) for s in data.splits.values())
