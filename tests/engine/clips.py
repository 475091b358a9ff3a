"""Clips that a formula draws: a square that moves before a patterned wall, and three cameras in a row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dataloader.scene import Record, Scene
from dataloader.scene_sets import SceneSets, ViewTask
from geometry.cameras import Cameras, pinhole

HEIGHT, WIDTH, FOCAL = 24, 32, 30.0
WALL, SQUARE = 4.0, 2.0  # their z-depths
CAMERAS = (-0.3, 0.0, 0.3)  # their x; the last one is the target
NAMES = ["cam00", "cam01", "cam02"]


def camera(index: int) -> Cameras:
    c2w = torch.eye(4, dtype=torch.float64)
    c2w[0, 3] = CAMERAS[index]
    return pinhole(FOCAL, HEIGHT, WIDTH, c2w)


def in_square(points: Tensor, moment: int) -> Tensor:
    """Which points [..., 3] of the square's plane it covers at a moment."""
    x, y, _ = points.unbind(-1)
    return (x > -0.6 + 0.2 * moment) & (x < 0.0 + 0.2 * moment) & (y.abs() < 0.4)


def on_plane(index: int, z: float) -> Tensor:
    """Where the rays of a camera's pixels meet a plane of constant z: [H, W, 3]."""
    origins, directions = camera(index).rays(unit=False)
    return origins + z * directions


def _wall(points: Tensor) -> Tensor:
    """A pattern that no shift repeats, [..., 3]."""
    x, y, _ = points.unbind(-1)
    waves = [torch.sin(a * x + b * y + c) for a, b, c in ((7, 2, 0), (3, -5, 1), (-11, 6, 2))]
    mixed = sum(torch.sin(d * x * x + 3 * y + d) for d in (2.0, 5.0))
    return torch.stack([0.5 + 0.15 * wave + 0.1 * mixed for wave in waves], -1).clamp(0, 1)


def _bytes(image: Tensor) -> np.ndarray:
    return (image * 255).round().to(torch.uint8).numpy()


def record(index: int, moment: int, **without: bool) -> Record:
    """The photo of a camera at a moment, without some of depth, foreground, background and bounds."""
    plate = _wall(on_plane(index, WALL))
    moving = in_square(on_plane(index, SQUARE), moment)
    photo = torch.where(moving[..., None], torch.tensor([0.9, 0.2, 0.1], dtype=torch.float64), plate)
    depth = torch.where(moving, SQUARE, WALL).float().numpy()
    known: dict[str, Any] = {
        "depth": depth,
        "foreground": moving.numpy(),
        "background": _bytes(plate),
        "bounds": (1.5, 5.0),
    }
    kept = {name: value for name, value in known.items() if not without.get(name)}
    return Record(NAMES[index], camera(index), _bytes(photo), **kept)


@dataclass
class MadeClips:
    """So many clips of so many moments. without: what records lack. late: clip c starts c moments later."""

    clips: int = 1
    moments: int = 4
    without: tuple[str, ...] = ()
    chunk_sizes: None = None
    name: str = "made"

    def __len__(self) -> int:
        return self.clips * self.moments

    def moment(self, index: int) -> tuple[int, int]:
        return index // self.moments, index % self.moments

    def clip_name(self, clip: int) -> str:
        return f"clip{clip}"

    def key(self, index: int) -> str:
        clip, moment = self.moment(index)
        return f"clip{clip}_{moment:05d}"

    def scene(self, index: int) -> Scene:
        clip, moment = self.moment(index)
        without = dict.fromkeys(self.without, True)
        return Scene(self.key(index), [record(i, moment + clip, **without) for i in range(len(CAMERAS))])


def clip_sets(clips: int = 1, moments: int = 4, without: tuple[str, ...] = ()) -> SceneSets:
    """Clips with a task per moment: the last camera from the others."""
    made = MadeClips(clips, moments, without)
    return SceneSets("made", {"test": made}, {"test": [ViewTask(i, (0, 1), (2,)) for i in range(len(made))]})
