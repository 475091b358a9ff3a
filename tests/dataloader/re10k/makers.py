"""Small chunk folders, made on the spot."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from dataloader.re10k.chunks import Example, write_chunk
from dataloader.re10k.examples import as_tensor, camera_rows, encode
from dataloader.toy import make_cameras


def make_example(seed: int, n: int = 5, size: tuple[int, int] = (24, 40), kind: str = "JPEG") -> Example:
    """A scene of a chunk: key 'room00SEED', cameras of a room, smooth photos, a time stamp every 100 ms."""
    cameras = make_cameras(seed, n, *size)
    y, x = np.mgrid[: size[0], : size[1]]
    waves = [np.sin(x / (5 + c + seed) + i) * np.cos(y / (4 + c)) for i in range(n) for c in range(3)]
    photos = np.stack(waves).reshape(n, 3, *size).transpose(0, 2, 3, 1)
    images = (127.5 + 120 * photos).astype(np.uint8)
    return {
        "url": f"https://example.org/watch?v=room{seed}",
        "timestamps": torch.arange(n) * 100_000,
        "cameras": camera_rows(cameras),
        "images": [as_tensor(encode(image, kind)) for image in images],
        "key": f"room{seed:04d}",
    }


def make_root(
    root: Path,
    chunks: Sequence[Sequence[Example]],
    split: str = "test",
    suffix: str = ".torch",
    size: tuple[int, int] = (24, 40),
) -> Path:
    """A folder with `meta.json` and one split of chunks; its index calls them `.torch`."""
    index = {}
    for number, scenes in enumerate(chunks):
        write_chunk(list(scenes), root / split / f"{number:06d}{suffix}")
        index.update({scene["key"]: f"{number:06d}.torch" for scene in scenes})
    (root / split / "index.json").write_text(json.dumps(index))
    (root / "meta.json").write_text(json.dumps({"expected_shape": [3, *size]}))
    return root


def damage(example: Example, frame: int) -> None:
    """Cut off the end of a photo: its header stays readable."""
    data = example["images"][frame]
    example["images"][frame] = torch.from_numpy(np.array(data[:-60]))
