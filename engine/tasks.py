"""Tasks on sets of scenes, made ready to be evaluated: which sources each variant takes, and their photos."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from common.errors import UserError
from dataloader.pairs import PairData
from dataloader.re10k.index import check_frames
from dataloader.scene import Scene
from dataloader.scene_sets import SceneSets, ViewTask
from dataloader.view_tasks import nested_sources, read_tasks
from engine.config import DataConfig
from geometry.views import Views

T = TypeVar("T")

ViewsOf = Callable[[Scene, Sequence[int], DataConfig], Views]  # records of a scene as a method takes them


@dataclass
class Tasks:
    """What is evaluated on many scenes: tasks, and the sets of sources that each is done with in turn.

    tasks: their sources are all that any variant takes. counts: so many of the sources per variant, nested
    (`nested_sources`). lists: instead, the sources per variant and task. Neither: one variant with all.
    """

    tasks: list[ViewTask]
    counts: tuple[int, ...] = ()
    lists: list[list[tuple[int, ...]]] = field(default_factory=list)

    @property
    def variants(self) -> int:
        return len(self.counts) or len(self.lists) or 1

    def sources(self, variant: int, position: int, scene: Scene) -> tuple[int, ...]:
        """The records that a variant of the task at `position` is given."""
        if self.counts:
            return nested_sources(scene, self.tasks[position].source, self.counts[variant])
        return self.lists[variant][position] if self.lists else self.tasks[position].source

    def count(self, variant: int) -> int | None:
        """How many sources a variant has, None where tasks differ."""
        if self.counts:
            return self.counts[variant]
        lists = self.lists[variant] if self.lists else [task.source for task in self.tasks]
        counts = {len(sources) for sources in lists}
        return counts.pop() if len(counts) == 1 else None

    def share(self, rank: int, world: int) -> list[int]:
        """Positions of the tasks that one of several processes does: neighbouring scenes, each task once."""
        order = sorted(range(len(self.tasks)), key=lambda i: self.tasks[i].scene)
        return order[rank * len(order) // world : (rank + 1) * len(order) // world]

    def spread(self, limit: int) -> Tasks:
        """At most `limit` of the tasks, evenly spread (0: all)."""
        if not 0 < limit < len(self.tasks):
            return self
        chosen = [i * len(self.tasks) // limit for i in range(limit)]
        lists = [[sources[i] for i in chosen] for sources in self.lists]
        return Tasks([self.tasks[i] for i in chosen], self.counts, lists)


def find_tasks(
    sets: SceneSets, target: str, counts: Sequence[int] = (), indices: Sequence[Path] = ()
) -> Tasks:
    """The tasks of a split: those of the set's own index, or of the index files named.

    counts: numbers of sources to evaluate in turn. indices: one file, or several that share scenes and
    targets and differ in sources. Raises UserError where there are no tasks, for counts below 1 or beside
    several files, and for files whose tasks are not the same.
    """
    scenes = sets.split(target)
    if any(count < 1 for count in counts):
        raise UserError(f"--sources {min(counts)}: a task needs at least 1 source view")
    if len(indices) > 1:
        if counts:
            raise UserError("--sources and several files after --tasks exclude each other: give one of them")
        return _joined(indices, [read_tasks(path, scenes) for path in indices])
    tasks = read_tasks(indices[0], scenes) if indices else sets.tasks.get(target, [])
    if not tasks:
        raise UserError(f"{sets.name} has no tasks on its split {target!r}: name an evaluation index")
    for task in tasks:
        if counts and len(task.source) < max(counts):
            raise UserError(
                f"--sources {max(counts)}: the index gives scene {scenes.key(task.scene)} {len(task.source)} "
                "source views; take an index with more"
            )
    return Tasks(list(tasks), tuple(sorted(set(counts))))


def chosen_tasks(
    data: Scene | PairData | SceneSets, target: str, counts: Sequence[int], indices: Sequence[Path]
) -> Tasks | None:
    """What the flags `--sources` and `--tasks` choose on many scenes; None on other data.

    Raises UserError for such flags on other data.
    """
    if isinstance(data, SceneSets):
        return find_tasks(data, target, counts, indices)
    for flag, values in (("sources", counts), ("tasks", indices)):
        if values:
            raise UserError(f"--{flag} is for data of many scenes, and {data.name} is not: leave it out")
    return None


def _joined(paths: Sequence[Path], lists: list[list[ViewTask]]) -> Tasks:
    """Tasks of several indices as one: their sources together, and those of each."""
    tasks = lists[0]
    for path, others in zip(paths[1:], lists[1:], strict=True):
        if [(t.scene, t.target) for t in others] != [(t.scene, t.target) for t in tasks]:
            raise UserError(f"{path} names other scenes or targets than {paths[0]}: evaluate it by itself")
    together = [
        tuple(dict.fromkeys(i for task in same for i in task.source)) for same in zip(*lists, strict=True)
    ]
    joined = [ViewTask(t.scene, source, t.target) for t, source in zip(tasks, together, strict=True)]
    return Tasks(joined, lists=[[task.source for task in others] for others in lists])


@dataclass
class Loaded:
    """A task with its photos. source: those of every variant. chosen: per variant, positions in `source`.

    scene: what they are of. failure: why the scene could not be read; then there is nothing else.
    """

    position: int
    key: str
    source: Views | None = None
    target: Views | None = None
    chosen: list[list[int]] = field(default_factory=list)
    failure: str = ""
    scene: Scene | None = None


def load_tasks(
    sets: SceneSets, target: str, tasks: Tasks, positions: Sequence[int], data: DataConfig, views: ViewsOf
) -> Iterator[Loaded]:
    """The tasks at `positions` with their photos, the next one read while one is at work."""
    scenes = sets.split(target)

    def load(position: int) -> Loaded:
        task = tasks.tasks[position]
        key = scenes.key(task.scene)
        try:
            scene = scenes.scene(task.scene)
            check_frames(task, len(scene), key)
            given = [tasks.sources(v, position, scene) for v in range(tasks.variants)]
            union = list(dict.fromkeys(i for sources in given for i in sources))
            source, wanted = views(scene, union, data), views(scene, list(task.target), data)
        except UserError as error:
            return Loaded(position, key, failure=str(error))
        chosen = [[union.index(i) for i in own] for own in given]
        return Loaded(position, key, source, wanted, chosen, scene=scene)

    return ahead(load, positions)


def ahead(function: Callable[[Any], T], items: Iterable[Any]) -> Iterator[T]:
    """`function` of the items in order, one item ahead in a thread of its own."""
    with ThreadPoolExecutor(1) as pool:
        waiting = None
        for item in items:
            following = pool.submit(function, item)
            if waiting is not None:
                yield waiting.result()
            waiting = following
        if waiting is not None:
            yield waiting.result()
