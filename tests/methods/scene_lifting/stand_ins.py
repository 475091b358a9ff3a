"""Stand-ins for the two networks, and a small photo with exact depth."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dataloader.toy import make_boxes, make_cameras, render
from geometry.cameras import Cameras, pinhole
from geometry.scene_paths import circle_cameras
from geometry.views import Views

HEIGHT, WIDTH = 48, 64


def photo_image(height: int = HEIGHT, width: int = WIDTH, seed: int = 0) -> Tensor:
    """A smooth random image [3, H, W]."""
    small = torch.rand(1, 3, 4, 5, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(small, size=(height, width), mode="bilinear")[0]


def photo_camera(height: int = HEIGHT, width: int = WIDTH) -> Cameras:
    """A single camera at the origin with the original's field of view."""
    return pinhole(float(width), height, width)


class Completer:
    """Keeps what is known times an error, and else gives a function of the brightness; counts its calls."""

    def __init__(self, factor: float = 1.0) -> None:
        self.factor, self.calls = factor, 0

    def __call__(self, image: Tensor, sparse: Tensor, scale: float) -> Tensor:
        self.calls += 1
        return self.factor * torch.where(sparse > 0, sparse, scale * (1 + 0.2 * image.mean(0)))


class Painter:
    """Paints a colour made of the prompts and the seed; keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, int]] = []

    def __call__(
        self, image: NDArray[np.uint8], hole: NDArray[np.uint8], prompt: str, negative_prompt: str, seed: int
    ) -> NDArray[np.uint8]:
        assert image.dtype == hole.dtype == np.uint8
        assert image.shape == (*hole.shape, 3)
        assert set(np.unique(hole)) <= {0, 255}
        self.asked.append((prompt, negative_prompt, seed))
        color = np.array([50 + 20 * len(prompt), 40 + 20 * len(negative_prompt), seed % 200], np.uint8)
        return np.where(hole[..., None] > 0, color, 255 - image).astype(np.uint8)


def room(seed: int, angle: float = 25.0, size: tuple[int, int] = (96, 128)) -> Views:
    """Two views [2] of a procedural room with exact depth, a turn apart."""
    boxes = make_boxes(seed, 6)
    photo = make_cameras(seed, 2, *size, boxes)[0]
    return render(boxes, circle_cameras(photo, [(0.0, 0.0), (angle, 0.0)], 0.05))
