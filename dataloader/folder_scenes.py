"""A folder of scene folders, in any format, as a set of scenes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common.errors import UserError
from dataloader.formats import detect_formats, open_scene
from dataloader.scene import Scene


@dataclass
class FolderScenes:
    """Scene folders, opened when asked for.

    format, images, hold_out_every: as `dataloader.formats.open_scene`.
    """

    folders: Sequence[Path]
    name: str
    format: str = "auto"
    images: str = "images"
    hold_out_every: int = 8
    chunk_sizes: Sequence[int] | None = None

    def __len__(self) -> int:
        return len(self.folders)

    def key(self, index: int) -> str:
        return self.folders[index].name

    def scene(self, index: int) -> Scene:
        """Open scene `index`. Raises UserError for anything missing or malformed."""
        return open_scene(
            self.folders[index], self.format, images=self.images, hold_out_every=self.hold_out_every
        )


def scene_folders(root: Path) -> list[Path]:
    """The folders below a folder that hold a posed scene in a known format, sorted by name."""
    return [folder for folder in sorted(root.iterdir()) if folder.is_dir() and detect_formats(folder)]


def split_folders(root: Path) -> dict[str, list[Path]]:
    """Scene folders per split: those below 'train' and 'test' where there are such, else all are in both.

    A folder that is itself a scene is a set of one. Raises UserError where there is no scene.
    """
    splits = {name: scene_folders(root / name) for name in ("train", "test") if (root / name).is_dir()}
    if not any(splits.values()):
        every = [root] if detect_formats(root) else scene_folders(root)
        splits = {"train": every, "test": every}
    if not any(splits.values()):
        raise UserError(
            f"{root} holds no scenes: data.root takes a folder of scene folders, of RealEstate10K chunks "
            "(train/index.json), of stacked clips (WIDTHxHEIGHT.h5), of the official LVSM data "
            "(full_list.txt), or builtin:rooms"
        )
    return {name: folders for name, folders in splits.items() if folders}
