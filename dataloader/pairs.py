"""Image pairs: a photo given and a photo to make, each with its camera, from one scene or from many."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from geometry.cameras import Cameras


@dataclass
class Canvas:
    """Where an image lies on a square canvas of `size` pixels: its unpadded part."""

    size: int
    top: int
    left: int
    height: int
    width: int

    def cut(self, image: Tensor) -> Tensor:
        """The unpadded part [..., height, width] of a canvas [..., size, size]."""
        return image[..., self.top : self.top + self.height, self.left : self.left + self.width]


@dataclass
class Pair:
    """A source photo, a target photo and the source warped to the target's camera.

    name: unique in its set. scene: of what both photos are. source, target: [3, S, S] in [0, 1] on square
    canvases (`source_canvas`, `target_canvas`), white around the photo. source_camera, target_camera: single
    float64 cameras of the photos at their own (unpadded, not resized) sizes, in one world frame. scale: world
    units per unit of depth, the 20th percentile of the source's depth. warp: [3, S, S] on the target's
    canvas, black where nothing was warped to and fading to black with the coverage (as MegaScenes renders
    silhouettes), white around; None where the set has no warps. small_warp: the
    same at [3, s, s] (resized from the full warp, not from `warp`). coverage: [1, S, S] in [0, 1], how much
    of each pixel the warp covers, 0 around the photo.
    """

    name: str
    scene: str
    source: Tensor
    target: Tensor
    source_canvas: Canvas
    target_canvas: Canvas
    source_camera: Cameras
    target_camera: Cameras
    scale: float
    warp: Tensor | None = None
    small_warp: Tensor | None = None
    coverage: Tensor | None = None

    def full_warp(self) -> Tensor:
        """The warp with the full colours of what it shows, also where it covers a pixel in part.

        Raises ValueError where the pair has no warp or no coverage.
        """
        if self.warp is None or self.coverage is None:
            raise ValueError(f"pair {self.name} has no warp")
        faded = self.coverage.clamp(min=1 / 255)
        return torch.where(self.coverage > 0, self.warp / faded, self.warp).clamp(0, 1)


@runtime_checkable
class PairSet(Protocol):
    """Pairs by index, read on demand: `pair` raises UserError when a file of the pair cannot be read.

    has_warps: whether every pair has a warp.
    """

    @property
    def has_warps(self) -> bool: ...

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """What messages and files call the pair, without reading it."""
        ...

    def pair(self, index: int) -> Pair: ...


class PairData(Protocol):
    """Pairs in splits ('train', 'val', 'test'). name: of the data set, for messages."""

    name: str

    def split(self, name: str) -> PairSet:
        """The pairs of a split. Raises UserError where there is none of that name."""
        ...
