"""Evaluation indices: which views of which scene are given, and which are scored (specs/lvsm 4.3).

A JSON object: scene key -> {"context": [frames given], "target": [frames to make]}, or null for a scene that
takes no part.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from common.errors import UserError
from dataloader.formats.shared import read_json, write_json
from dataloader.scene_sets import SceneSet, ViewTask

Entry = tuple[tuple[int, ...], tuple[int, ...]]  # frames given, frames to make
Entries = dict[str, Entry | None]


def read_index(path: Path) -> Entries:
    """The entries of an index file. Raises UserError when it is missing or malformed."""
    return {key: _entry(value, f"{path}: {key}") for key, value in read_json(path).items()}


def write_index(entries: Entries, path: Path) -> None:
    """Write an index file, one line per scene as the originals do."""
    content = {
        key: None if entry is None else {"context": list(entry[0]), "target": list(entry[1])}
        for key, entry in entries.items()
    }
    write_json(content, path)


def index_tasks(entries: Entries, scenes: SceneSet, source: str) -> list[ViewTask]:
    """The tasks that an index sets on a set of scenes, in the order of the index; null entries set none.

    source: what messages call the index. Scenes that the index leaves out are not evaluated. Raises UserError
    when it names scenes that the set lacks, and when it sets no task at all.
    """
    numbers = {scenes.key(i): i for i in range(len(scenes))}
    asked = {key: entry for key, entry in entries.items() if entry is not None}
    missing = [key for key in asked if key not in numbers]
    if missing:
        raise UserError(
            f"{source} names {missing[0]}, which {scenes.name} lacks ({len(missing)} of {len(asked)} scenes "
            "are missing): get their chunks, or cut the index with scripts/re10k.py index subset"
        )
    if not asked:
        raise UserError(f"{source} names no scene: every entry is null")
    return [ViewTask(numbers[key], *entry) for key, entry in asked.items()]


def subset(entries: Entries, keys: set[str]) -> Entries:
    """The entries of the scenes at hand."""
    return {key: entry for key, entry in entries.items() if key in keys}


def check_frames(task: ViewTask, n_frames: int, key: str) -> None:
    """Raise UserError when a task names a frame that the scene lacks."""
    most = max(*task.source, *task.target)
    if most >= n_frames:
        raise UserError(f"the evaluation index names frame {most} of scene {key}, which has {n_frames}")


def _entry(value: Any, source: str) -> Entry | None:
    if value is None:
        return None
    frames = [value.get(name) for name in ("context", "target")] if isinstance(value, dict) else [None]
    if not all(map(_are_frames, frames)):
        raise UserError(f'{source} must be null or {{"context": [frames], "target": [frames]}}: mend it')
    given, made = (tuple(numbers or ()) for numbers in frames)
    return given, made


def _are_frames(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(f) is int and f >= 0 for f in value)
