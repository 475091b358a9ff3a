"""Small clips on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from dataloader.images import write_image
from dataloader.rig.clip import Clip
from geometry.cameras import Cameras, pinhole
from geometry.poses import pose


def cameras(count: int, height: int = 12, width: int = 16) -> list[Cameras]:
    """Cameras side by side, of focal lengths that differ."""
    found = []
    for i in range(count):
        camera = pinhole(width * (1 + 0.1 * i), height, width)
        camera.c2w = pose(camera.c2w[:3, :3], camera.c2w.new_tensor([0.3 * i, -0.1 * i, 0.02 * i]))
        found.append(camera)
    return found


def make_clip(count: int = 3, moments: int = 4, height: int = 12, width: int = 16, seed: int = 0) -> Clip:
    """A clip of noise in memory, with plates and mattes."""
    rng = np.random.default_rng(seed)
    return Clip(
        "small",
        [f"cam{i:02d}" for i in range(count)],
        cameras(count, height, width),
        [(1.0 + i, 10.0 + i) for i in range(count)],
        list(rng.integers(0, 256, (count, moments, height, width, 3), np.uint8)),
        plates=list(rng.integers(0, 256, (count, height, width, 3), np.uint8)),
        mattes=list(rng.random((count, moments, height, width)) < 0.4),
    )


def pose_rows(clip: Clip) -> np.ndarray:
    """The clip's `poses_bounds.npy`, written out by hand."""
    rows = []
    for camera, bounds in zip(clip.cameras, clip.bounds, strict=True):
        right, down, forward, center = camera.c2w[:3].numpy().T
        size = [camera.height, camera.width, float(camera.K[0, 0])]
        matrix = np.stack([down, right, -forward, center, size], axis=1)
        rows.append([*matrix.ravel(), *bounds])
    return np.array(rows)


def write_camera_folders(clip: Clip, root: Path) -> Path:
    """The clip as a folder per camera, with plates and mattes (soft at their edge: alpha 60 outside)."""
    for c, name in enumerate(clip.names):
        for t, number in enumerate(clip.frames):
            write_image(clip.photos[c][t], root / name / f"{number:05d}.png")
            if clip.mattes is not None:
                alpha = np.where(clip.mattes[c][t], 200, 60).astype(np.uint8)
                file = root / "foreground" / name / f"{number:05d}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.dstack([clip.photos[c][t], alpha])).save(file)
        if clip.plates is not None:
            write_image(clip.plates[c], root / "background" / f"{name}.png")
    np.save(root / "poses_bounds.npy", pose_rows(clip))
    return root


def write_frame_folders(clip: Clip, root: Path) -> Path:
    """The clip as a folder per frame; plates lie beside it."""
    for t, number in enumerate(clip.frames):
        for c in range(len(clip.names)):
            write_image(clip.photos[c][t], root / f"{number:05d}" / "images" / f"{c:03d}.png")
        np.save(root / f"{number:05d}" / "poses_bounds.npy", pose_rows(clip))
    for c, plate in enumerate(clip.plates or []):
        write_image(plate, root.parent / "background" / f"{clip.names[c]}.png")
    return root
