"""What `data.root` means where a method learns from many scenes."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from common.errors import UserError
from dataloader.remote import is_remote
from dataloader.room_scenes import RoomsConfig
from dataloader.scene_sets import SceneSet, SceneSets

SPLITS = ("train", "test")
ROOMS = "builtin:rooms"


class DataSettings(Protocol):
    """What of the `data:` section says where scenes are (`engine.config.DataConfig`)."""

    root: str
    index: str
    cache: str
    format: str
    images: str
    hold_out_every: int
    rooms: RoomsConfig


def open_scene_sets(data: DataSettings) -> SceneSets:
    """The scenes that `data.root` names, and the tasks that `data.index` sets on the split 'test'.

    root: 'builtin:rooms' (the rooms of `data.rooms`); a folder of RealEstate10K chunks, or an
    `s3://` or `http(s)://` one; several of them with commas between; a folder of scene folders, or of
    'train/' and 'test/' folders of them; the output of the official conversion; a stack of clips
    (`WIDTHxHEIGHT.h5`), the folder of one, or 'train/' and 'test/' (or 'val/') folders of one each. index:
    evaluation index; empty leaves the tasks to the set, which rooms alone have. Raises UserError for anything
    else.
    """
    if not data.root:
        raise UserError("data.root is empty: set it to builtin:rooms or to where the scenes are")
    sets = _rooms(data) if data.root.startswith("builtin:") else SceneSets(data.root, _splits(data))
    if data.index:
        _add_tasks(sets, Path(data.index).expanduser())
    return sets


def _add_tasks(sets: SceneSets, index: Path) -> None:
    from dataloader.view_tasks import read_tasks

    if not index.is_file():
        raise UserError(
            f"data.index: {index} does not exist: take an original's file, make one with scripts/re10k.py "
            "index, or train without (data.index= training.validate_every=0)"
        )
    sets.tasks["test"] = read_tasks(index, sets.split("test"))


def _rooms(data: DataSettings) -> SceneSets:
    from dataloader.room_scenes import open_rooms

    if data.root != ROOMS:
        raise UserError(f"data.root is {data.root!r}: the built-in set of scenes is {ROOMS}")
    return open_rooms(data.rooms)


def _splits(data: DataSettings) -> dict[str, SceneSet]:
    """The sets of a root that is no built-in one, by looking at what it holds."""
    roots = [root.strip() for root in data.root.split(",") if root.strip()]
    if any(is_remote(root) for root in roots) or _has_chunks(roots[0]):
        return _chunks(roots, data.cache)
    if len(roots) > 1:
        missing = next(root for root in roots if not _has_chunks(root))
        raise UserError(f"data.root: {missing} holds no RealEstate10K chunks (train/index.json)")
    return _folders(Path(roots[0]).expanduser(), data)


def _has_chunks(root: str) -> bool:
    return any((Path(root).expanduser() / split / "index.json").is_file() for split in SPLITS)


def _chunks(roots: list[str], cache: str) -> dict[str, SceneSet]:
    """A set per split that any of the roots has; a root takes part in the splits that it has."""
    from dataloader.re10k.roots import Root, default_cache
    from dataloader.re10k.scenes import Re10kScenes

    folder = Path(cache).expanduser() if cache else default_cache()
    found: dict[str, SceneSet] = {}
    for split in SPLITS:
        present = [root for root in roots if Root(root, folder).has_split(split)]
        if present:
            found[split] = Re10kScenes(present, split, cache=folder)
    if not found:
        raise UserError(f"data.root: {roots[0]} has neither train/index.json nor test/index.json")
    return found


def _stacks(root: Path) -> dict[str, SceneSet]:
    """Sets of clips stacked in HDF5 files; none where there is no such file."""
    from dataloader.re10k.stacked import StackedScenes, stacked_file

    whole = stacked_file(root)
    if whole is not None:
        return dict.fromkeys(SPLITS, StackedScenes(whole))
    folders = {"train": ["train"], "test": ["test", "val"]}
    found = {split: [stacked_file(root / name) for name in names] for split, names in folders.items()}
    first = {split: next(filter(None, paths), None) for split, paths in found.items()}
    return {split: StackedScenes(path) for split, path in first.items() if path is not None}


def _folders(root: Path, data: DataSettings) -> dict[str, SceneSet]:
    """Sets of stacked clips, of an official conversion or of scene folders."""
    from dataloader.folder_scenes import FolderScenes, split_folders
    from dataloader.re10k.official import LIST, OfficialScenes

    stacks = _stacks(root)
    if stacks:
        return stacks
    if not root.is_dir():
        raise UserError(f"data.root: {root} is no folder")
    if (root / LIST).is_file():
        scenes = OfficialScenes(root)
        return dict.fromkeys(SPLITS, scenes)
    listed = [split for split in SPLITS if (root / split / LIST).is_file()]
    if listed:
        return {split: OfficialScenes(root / split) for split in listed}
    return {
        split: FolderScenes(folders, f"{root} {split}", data.format, data.images, data.hold_out_every)
        for split, folders in split_folders(root).items()
    }
