"""What chunks are made from: extracted clips, and folders of posed scenes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from common.errors import UserError
from dataloader.folder_scenes import scene_folders
from dataloader.formats import open_scene
from dataloader.images import image_size
from dataloader.re10k.camera_files import Clip, read_clip, read_clips
from dataloader.re10k.chunks import Example
from dataloader.re10k.examples import as_tensor, encoded, example_of

Readers = list[tuple[str, Callable[[], Example]]]  # key of a scene, how to read it


def clip_examples(cameras: Path, frames: Path) -> Readers:
    """A scene per camera file of a folder, its frames in `frames/CLIP/`."""

    def read(path: Path) -> Example:
        return clip_example(read_clip(path), frames / path.stem)

    return [(path.stem, partial(read, path)) for path in read_clips(cameras)]


def folder_examples(root: Path) -> Readers:
    """A scene per scene folder, in any format. Raises UserError where there is none."""
    if not root.is_dir():
        raise UserError(f"{root} is no folder: SOURCE holds camera files or scene folders")
    folders = scene_folders(root)
    if not folders:
        hint = "give --frames, the folder that extract made" if any(root.glob("*.txt")) else "check the path"
        raise UserError(f"{root} holds no scene folder: {hint}")

    def read(folder: Path) -> Example:
        scene = open_scene(folder)
        scene.name = folder.name
        return example_of(scene)

    return [(folder.name, partial(read, folder)) for folder in folders]


def clip_example(clip: Clip, frames: Path) -> Example:
    """A clip and its extracted frames, as a scene of a chunk. Raises UserError where frames are missing."""
    files = sorted(frames.glob("*.jpg")) if frames.is_dir() else []
    if len(files) != len(clip.timestamps):
        raise UserError(
            f"{frames} holds {len(files)} frames, {clip.key}.txt names {len(clip.timestamps)}: run "
            "scripts/re10k.py extract"
        )
    example = {
        "url": clip.url,
        "timestamps": torch.tensor(clip.timestamps, dtype=torch.int64),
        "cameras": clip.cameras,
        "images": [as_tensor(file.read_bytes()) for file in files],
        "key": clip.key,
    }
    for i in range(len(files)):
        image_size(encoded(example, i, str(frames)))
    return example
