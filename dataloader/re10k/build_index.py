"""Evaluation indices of whole sets of scenes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from PIL import Image

from common.cli import progress
from common.errors import UserError
from dataloader.images import image_grid
from dataloader.keyed import keyed_generator
from dataloader.re10k.index import Entries, Entry
from dataloader.re10k.index_rules import IndexRule, coarse, interior_entry, nearest_entry, pair_entry
from dataloader.scene_sets import SceneSet
from geometry.cameras import Cameras

Choose = Callable[[Cameras, torch.Generator], Entry | None]


def choose_by(version: str, rule: IndexRule) -> Choose:
    """The rule 'v1', 'v2' or 'dtu' as a function of cameras and a generator."""
    if version == "dtu":
        return lambda cameras, generator: nearest_entry(cameras, rule.num_context_views)
    return partial(_seeded, pair_entry if version == "v1" else interior_entry, rule)


def _seeded(
    choose: Callable[[Cameras, IndexRule, torch.Generator], Entry | None],
    rule: IndexRule,
    cameras: Cameras,
    generator: torch.Generator,
) -> Entry | None:
    return choose(coarse(cameras), rule, generator)


def build_index(scenes: SceneSet, choose: Choose, seed: int) -> tuple[Entries, list[str]]:
    """An entry per scene, null where none qualifies; and why scenes could not be read (they are null too).

    Every scene draws from a generator of its own, keyed by seed and scene: other scenes do not matter.
    """
    entries: Entries = {}
    unreadable = []
    for number in progress(range(len(scenes)), "scenes", unit="scene"):
        key = scenes.key(number)
        try:
            cameras = scenes.scene(number).cameras()
        except UserError as error:
            unreadable.append(str(error))
            entries[key] = None
            continue
        entries[key] = choose(cameras, keyed_generator(seed, key))
    if all(entry is None for entry in entries.values()):
        raise UserError(
            f"no scene of {scenes.name} has views that qualify: lower --min_ctx_overlap or --min_ctx_distance"
        )
    return entries, unreadable


def write_previews(entries: Entries, scenes: SceneSet, folder: Path) -> int:
    """`KEY.png` per entry: the views given in the first row, those to make in the second."""
    from common.files import replacing

    numbers = {scenes.key(i): i for i in range(len(scenes))}
    asked = {key: entry for key, entry in entries.items() if entry is not None}
    for key, (source, target) in progress(asked.items(), "previews", len(asked), "scene"):
        scene = scenes.scene(numbers[key])
        columns = max(len(source), len(target))
        rows = [[Image.fromarray(scene.records[i].load()) for i in views] for views in (source, target)]
        blank = Image.new("RGB", rows[0][0].size, (255, 255, 255))
        cells = [cell for row in rows for cell in (*row, *[blank] * (columns - len(row)))]
        with replacing(folder / f"{key}.png") as unfinished:
            image_grid(cells, fixed_height=180, columns=columns).save(unfinished, format="PNG")
    return len(asked)
