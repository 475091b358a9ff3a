"""Image pairs as an experiment's `data:` section names them: rooms, MegaScenes, folders of scenes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from common.errors import UserError
from dataloader.pairs import PairData, PairSet

if TYPE_CHECKING:
    from dataloader.scene import Scene

ROOMS = "builtin:room_pairs"
_ROOM_COUNTS = {"train": (2048, 10_000), "val": (32, 20_000), "test": (64, 30_000)}  # pairs, first seed


@dataclass
class PairSizes:
    """How pairs are wanted. size, small: sides of the canvases in pixels. max_angle: degrees, of warps."""

    size: int
    small: int
    max_angle: float = 70.0


@dataclass
class RoomPairData:
    """Pairs of procedural rooms, in splits of different rooms. count: training pairs, 0 for the default."""

    sizes: PairSizes
    count: int = 0
    name: str = "room_pairs"

    def split(self, name: str) -> PairSet:
        from dataloader.room_pairs import RoomPairs

        if name not in _ROOM_COUNTS:
            raise UserError(f"{ROOMS} has no split {name!r}; it has {', '.join(_ROOM_COUNTS)}")
        count, first = _ROOM_COUNTS[name]
        if name == "train" and self.count:
            count = self.count
        return RoomPairs(count, first, self.sizes.size, self.sizes.small, self.sizes.max_angle)


@dataclass
class MegaScenesData:
    """The MegaScenes pairs. table files: `splits`/trainsplit and testsplit, `.safetensors` or `.pkl`.

    photos: folder of the photos, in the original's layout or the bucket's. warps: folder, or None for pairs
    without.
    """

    sizes: PairSizes
    photos: Path
    splits: Path
    warps: Path | None
    name: str = "megascenes"

    def split(self, name: str) -> PairSet:
        from dataloader.megascenes.pair_set import MegaScenesPairs
        from dataloader.megascenes.pair_table import open_pairs
        from dataloader.megascenes.places import PhotoFolder

        if name not in ("train", "val", "test"):
            raise UserError(f"the MegaScenes pairs have no split {name!r}; they have train, val, test")
        file = self.splits if self.splits.is_file() else self._file("train" if name == "train" else "test")
        part = {"train": "train", "val": "validation", "test": "test"}[name]
        return MegaScenesPairs(
            open_pairs(file),
            PhotoFolder(self.photos),
            self.warps,
            "all" if self.splits.is_file() else part,  # type: ignore[arg-type]
            self.sizes.size,
            self.sizes.small,
        )

    def _file(self, kind: str) -> Path:
        """The split file of that kind, converted if there is a converted one."""
        for suffix in (".safetensors", ".pkl"):
            if (self.splits / f"{kind}split{suffix}").is_file():
                return self.splits / f"{kind}split{suffix}"
        raise UserError(
            f"{self.splits / f'{kind}split.pkl'} does not exist: get it by python scripts/download.py splits"
        )


@dataclass
class SceneData:
    """Pairs of posed scenes. 'test' pairs every test view with its nearest training view."""

    sizes: PairSizes
    scenes: list[Scene]
    name: str

    def split(self, name: str) -> PairSet:
        from dataloader.scene_pairs import ScenePairs, close_pairs, nearest_sources

        if name == "train":
            choices = close_pairs(self.scenes, "train")
        else:
            choices = nearest_sources(self.scenes, "train", "test" if name == "val" else name)
        return ScenePairs(self.scenes, choices, self.sizes.size, self.sizes.small)


class DataSettings(Protocol):
    """What of an experiment's `data:` section matters here (`engine.config.DataConfig`)."""

    root: str
    format: str
    images: str
    mesh: str
    hold_out_every: int
    test_views: str
    left_out_views: str
    pairs: str
    warps: str
    depths: str


def open_pairs_of(data: DataSettings, sizes: PairSizes, wants_warp: bool) -> PairData:
    """The pairs that `data.root` and `data.format` name. wants_warp: prepared warps must be there.

    root: `builtin:room_pairs` or `builtin:room_pairs:N` (N training pairs); the MegaScenes photos with
    `format: megascenes`; a scene folder; or a folder of scene folders. Raises UserError for anything missing.
    """
    if data.root == ROOMS or data.root.startswith(ROOMS + ":"):
        count = data.root.removeprefix(ROOMS).removeprefix(":")
        if count and not (count.isdecimal() and int(count)):
            raise UserError(f"data.root={data.root}: write {ROOMS}:N, N training pairs")
        return RoomPairData(sizes, int(count or 0))
    if data.format == "megascenes":
        warps = Path(data.warps or "data/megascenes/warped_images")
        if not warps.is_dir() and not wants_warp and not data.warps:
            return MegaScenesData(sizes, Path(data.root), Path(data.pairs), None)
        return MegaScenesData(sizes, Path(data.root), Path(data.pairs), warps)
    return SceneData(sizes, _scenes(data), Path(data.root).name)


def _scenes(data: DataSettings) -> list[Scene]:
    """The scene in a folder, or the scenes in its folders."""
    from dataloader.formats import detect_format, open_scene
    from dataloader.scene_pairs import attach_depths

    root = Path(data.root).expanduser()
    folders: list[str | Path] = [data.root]
    if not data.root.startswith("builtin:") and root.is_dir():
        below = sorted(path for path in root.iterdir() if path.is_dir())
        if below and not _holds_scene(root, detect_format):
            folders = [path for path in below if _holds_scene(path, detect_format)] or [data.root]
    scenes = []
    for folder in folders:
        scene = open_scene(folder, data.format, data.images, data.mesh, data.hold_out_every)
        scene.choose_views(data.test_views, data.left_out_views)
        if data.depths:
            one = len(folders) == 1
            scene = attach_depths(scene, Path(data.depths) / ("" if one else Path(folder).name))
        scenes.append(scene)
    return scenes


def _holds_scene(folder: Path, detect: Any) -> bool:
    try:
        detect(folder)
    except UserError:
        return False
    return True
