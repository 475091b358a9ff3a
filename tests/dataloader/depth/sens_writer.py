"""Tiny .sens files."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from geometry.views import Views


@dataclass
class Sens:
    """What a .sens file says in its header, and frames (photo [H, W, 3] uint8, depth [H, W] uint16, c2w)."""

    frames: list[tuple[np.ndarray, np.ndarray, np.ndarray]]
    intrinsic: np.ndarray
    version: int = 4
    color_kind: int = 2
    depth_kind: int = 1
    shift: float = 1000.0

    def header(self) -> bytes:
        name = b"StructureSensor"
        photo, depth, _ = self.frames[0]
        sizes = (photo.shape[1], photo.shape[0], depth.shape[1], depth.shape[0])
        identity = np.eye(4, dtype="<f4").tobytes()
        intrinsic = self.intrinsic.astype("<f4").tobytes()
        return (
            struct.pack("<IQ", self.version, len(name))
            + name
            + (identity + identity + intrinsic + identity)
            + struct.pack("<2i4IfQ", self.color_kind, self.depth_kind, *sizes, self.shift, len(self.frames))
        )

    def frame(self, index: int) -> bytes:
        photo, depth, c2w = self.frames[index]
        color = encoded(photo, self.color_kind)
        packed = depth.astype("<u2").tobytes()
        packed = zlib.compress(packed) if self.depth_kind == 1 else packed
        head = struct.pack("<4Q", 10 * index, 10 * index, len(color), len(packed))
        return c2w.astype("<f4").tobytes() + head + color + packed

    def data(self) -> bytes:
        return self.header() + b"".join(self.frame(i) for i in range(len(self.frames))) + struct.pack("<Q", 0)

    def write(self, path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.data())
        return path


def encoded(photo: np.ndarray, kind: int) -> bytes:
    """The bytes of a photo: 0 raw, 1 PNG, 2 JPEG."""
    if kind == 0:
        return photo.tobytes()
    stream = io.BytesIO()
    Image.fromarray(photo).save(stream, format={1: "PNG", 2: "JPEG"}[kind], quality=95)
    return stream.getvalue()


def from_views(views: Views) -> Sens:
    """A scan of views [N] with depth."""
    assert views.depth is not None
    intrinsic = np.eye(4)
    intrinsic[:3, :3] = views.cameras.K[0].numpy()
    frames = []
    for i in range(len(views)):
        photo = (views.images[i].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
        depth = (views.depth[i, 0].numpy() * 1000).round().astype(np.uint16)
        frames.append((photo, depth, views.cameras.c2w[i].numpy()))
    return Sens(frames, intrinsic)
