"""Small rigs on disk."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from dataloader.images import write_image
from dataloader.toy import Boxes, make_boxes, render
from geometry.cameras import Cameras, stack_cameras
from geometry.poses import look_at


def write_frames(
    root: Path, count: int = 3, moments: int = 4, size: tuple[int, int] = (12, 16), seed: int = 0
) -> Path:
    """Noise as `root/cam00/00000.png` ... and poses that fit."""
    rng = np.random.default_rng(seed)
    for camera in range(count):
        for moment in range(moments):
            write_image(
                rng.integers(0, 256, (*size, 3), np.uint8), root / f"cam{camera:02d}/{moment:05d}.png"
            )
    write_poses(root, count, size)
    return root


def write_poses(root: Path, count: int, size: tuple[int, int]) -> None:
    """Rows of cameras side by side."""
    rows = np.zeros((count, 17))
    for i, row in enumerate(rows):
        matrix = np.array([[0, 1, 0, 0.1 * i, size[0]], [1, 0, 0, 0, size[1]], [0, 0, -1, 0, 20.0]])
        row[:15], row[15:] = matrix.ravel(), (1, 10)
    np.save(root / "poses_bounds.npy", rows)


def write_video(path: Path, frames: Sequence[NDArray[np.uint8]], fps: float = 30) -> Path:
    """An H.264 file of frames [H, W, 3] with even sides."""
    import imageio_ffmpeg

    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = frames[0].shape[:2]
    writer = imageio_ffmpeg.write_frames(
        str(path), (width, height), fps=fps, codec="libx264", macro_block_size=2, quality=9
    )
    writer.send(None)
    for frame in frames:
        writer.send(frame)
    writer.close()
    return path


def counting_frames(count: int, red: int = 0, size: tuple[int, int] = (32, 48)) -> list[NDArray[np.uint8]]:
    """Plain frames whose green tells their number, eight levels each."""
    return [np.full((*size, 3), (red, 8 * i, 60), np.uint8) for i in range(count)]


def write_calibration(path: Path, lenses: Sequence[dict]) -> Path:
    path.write_text(json.dumps({"cameras": list(lenses)}))
    return path


def rig_cameras(height: int = 240, width: int = 320) -> Cameras:
    """2 x 3 cameras side by side and on top of each other, each with its own focal length."""
    jitter = torch.rand(6, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64) - 0.5
    cameras = []
    for i in range(6):
        x, y = 0.5 * (i % 3 - 1), -0.3 + 0.5 * (i // 3 - 0.5)
        focus = torch.tensor([0.3 * x, 0.3, 0.8], dtype=torch.float64) + 0.2 * jitter[i]
        center = torch.tensor([x, y, -2.5], dtype=torch.float64)
        K = torch.eye(3, dtype=torch.float64)
        K[0, 0] = K[1, 1] = (0.85 + 0.02 * i) * width
        K[0, 2], K[1, 2] = width / 2, height / 2
        cameras.append(Cameras(K, look_at(center, focus, K.new_tensor([0, 1, 0])), height, width))
    return stack_cameras(cameras)


def film_room(root: Path, cameras: Cameras, times: Sequence[float], boxes: Boxes | None = None) -> Path:
    """A room with two moving boxes as `root/camXX/00000.png` ..."""
    boxes = boxes or make_boxes(2, n_moving=2)
    for number, time in enumerate(times):
        moments = torch.full((len(cameras),), time, dtype=torch.float64)
        at_time = Cameras(cameras.K, cameras.c2w, cameras.height, cameras.width, moments)
        for i, image in enumerate(render(boxes, at_time, supersample=1).images):
            write_image(image, root / f"cam{i:02d}/{number:05d}.png")
    return root
