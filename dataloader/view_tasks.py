"""Evaluation indices: which views of which scenes are given, and which are to be made (pixelSplat's JSON).

A file maps a scene's key to {"context": [record, ...], "target": [record, ...]}, or to null where the scene
is left out.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from common.errors import UserError
from dataloader.scene import Scene
from dataloader.scene_sets import SceneSet, ViewTask
from geometry.selection import farthest_first


def read_index(path: Path, scenes: SceneSet) -> list[ViewTask]:
    """The tasks of an evaluation index on a set of scenes, in the file's order.

    Raises UserError when the file is missing or malformed, or names a scene that the set does not hold.
    """
    content = _load(path)
    places = {scenes.key(i): i for i in range(len(scenes))}
    tasks = []
    for key, entry in content.items():
        if entry is None:
            continue
        if key not in places:
            raise UserError(
                f"{path} names scene {key}, which {scenes.name} does not hold: take its own index"
            )
        source, target = (_records(path, key, entry, name) for name in ("context", "target"))
        tasks.append(ViewTask(places[key], source, target))
    if not tasks:
        raise UserError(f"{path} names no scene with views to make")
    return tasks


def _load(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: name an evaluation index") from None
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror or error})") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({error}); is the file cut off?") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} is no evaluation index: it must map scenes to 'context' and 'target'")
    return content


def _records(path: Path, key: str, entry: Any, name: str) -> tuple[int, ...]:
    values = entry.get(name) if isinstance(entry, dict) else None
    if not isinstance(values, list) or not values or not all(type(v) is int and v >= 0 for v in values):
        raise UserError(f"{path}, scene {key}: {name!r} must be a list of view numbers, from 0")
    return tuple(values)


def nested_sources(scene: Scene, sources: Sequence[int], count: int) -> tuple[int, ...]:
    """`count` of a task's sources, so that fewer are always among more.

    The outermost records come first (the lower one alone for a count of 1), then always the one whose camera
    is farthest from those chosen. Raises UserError where there are fewer.
    """
    if count > len(sources):
        raise UserError(
            f"scene {scene.name} has {len(sources)} source views in the index, {count} were asked for: "
            "take an index with more"
        )
    if count == len(sources):
        return tuple(sources)
    ordered = sorted(sources)
    centers = torch.stack([scene.records[i].camera.center.double() for i in ordered])
    return tuple(ordered[i] for i in farthest_first(centers, [0, len(ordered) - 1])[:count])
