"""Looking through a set of scenes: what cannot be used and why, and a picture of what is there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from common.cli import progress
from common.errors import UserError
from common.files import replacing
from dataloader.images import image_grid
from dataloader.re10k.examples import fields_of_view
from dataloader.re10k.index import check_frames, index_tasks, read_index
from dataloader.scene import Scene
from dataloader.scene_sets import SceneSet

_PICTURES = 40  # scenes on a contact sheet
_PICTURE_HEIGHT = 128  # pixels


@dataclass
class Findings:
    """What is in a set. sizes: 'WIDTHxHEIGHT' -> scenes. fov: least and largest in degrees. bad: why."""

    name: str
    scenes: int = 0
    frames: int = 0
    shortest: int = 0
    longest: int = 0
    fov: tuple[float, float] = (180.0, 0.0)
    sizes: dict[str, int] = field(default_factory=dict)
    bad: list[str] = field(default_factory=list)
    pictures: list[Image.Image] = field(default_factory=list)

    def table(self) -> list[tuple[str, str]]:
        """Rows of a table for people."""
        good = self.scenes - len(self.bad)
        sizes = ", ".join(f"{size} ({count})" for size, count in sorted(self.sizes.items()))
        return [
            ("set", self.name),
            ("scenes", f"{self.scenes}, of which {len(self.bad)} cannot be used"),
            ("frames", f"{self.frames} ({self.shortest} to {self.longest} per scene)" if good else "0"),
            ("sizes", sizes or "-"),
            ("field of view", f"{self.fov[0]:.1f} to {self.fov[1]:.1f} degrees" if good else "-"),
        ]


def check_scenes(scenes: SceneSet, every: int = 1) -> Findings:
    """Open every scene and decode each `every`-th of its photos; the first and the last at least."""
    found = Findings(scenes.name, len(scenes))
    shown = {round(i * (len(scenes) - 1) / max(_PICTURES - 1, 1)) for i in range(_PICTURES)}
    for number in progress(range(len(scenes)), "scenes", unit="scene"):
        try:
            scene = scenes.scene(number)
            photo = _decode(scene, every)
        except UserError as error:
            found.bad.append(str(error))
            continue
        _count(found, scene)
        if number in shown:
            found.pictures.append(Image.fromarray(photo))
    return found


def _decode(scene: Scene, every: int) -> np.ndarray:
    """Decode photos of a scene; returns the middle one. Raises UserError for a damaged one."""
    for number in sorted({*range(0, len(scene), every), len(scene) - 1}):
        scene.records[number].load()
    return scene.records[len(scene) // 2].load()


def _count(found: Findings, scene: Scene) -> None:
    cameras = scene.cameras()
    angles = fields_of_view(cameras)
    size = f"{cameras.width}x{cameras.height}"
    found.sizes[size] = found.sizes.get(size, 0) + 1
    found.shortest = min(found.shortest, len(scene)) if found.frames else len(scene)
    found.longest = max(found.longest, len(scene))
    found.frames += len(scene)
    found.fov = (min(found.fov[0], float(angles.min())), max(found.fov[1], float(angles.max())))


def check_index(scenes: SceneSet, path: Path) -> tuple[int, list[str]]:
    """How many tasks an evaluation index sets, and what is wrong with them."""
    tasks = index_tasks(read_index(path), scenes, str(path))
    wrong = []
    for task in progress(tasks, "tasks", unit="task"):
        try:
            check_frames(task, len(scenes.scene(task.scene)), scenes.key(task.scene))
        except UserError as error:
            wrong.append(str(error))
    return len(tasks), wrong


def write_sheet(pictures: Sequence[Image.Image], path: Path) -> None:
    """A contact sheet, as PNG."""
    sheet = image_grid(pictures, fixed_height=_PICTURE_HEIGHT, columns=8)
    with replacing(path) as partial:
        sheet.save(partial, format="PNG")
