"""`Scene`: what lies on disk, loaded on demand. `Batch`: what evaluation and video work on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.errors import UserError
from dataloader.images import (
    ImageSource,
    MatteSource,
    matte_pixels,
    photo_pixels,
    read_depth,
    resize_image,
    to_tensor,
)
from dataloader.lenses import Lens
from dataloader.pairs import Pair
from geometry.cameras import Cameras, stack_cameras
from geometry.meshes import Mesh
from geometry.views import Views

ImageSize = tuple[int, int]  # (height, width)

_POSITIONS = re.compile(r"\d+|\d*:\d*(:[1-9]\d*)?")


@dataclass
class Record:
    """One photo of a scene.

    name: unique in its scene (the file name without suffix, as a rule). camera: a single float64 camera of
    the image's own size. image: file, file in memory, image in an archive, or [H, W, 3] uint8. depth: file,
    or [H, W] float32 z-depth (0 where unknown), which may be of another size. foreground: [H, W] bool, or an
    RGBA file or image in an archive whose alpha above one half says so. background: the photo without what
    moves (a plate), as `image` is given, of any size. bounds: near and far z-depth. lens: the distortion of
    the image file, removed by `load`; `camera` is the camera after that. depth_scale: world units per unit of
    the depth file or array.
    """

    name: str
    camera: Cameras
    image: ImageSource
    depth: Path | NDArray[np.float32] | None = None
    foreground: MatteSource | None = None
    background: ImageSource | None = None
    bounds: tuple[float, float] | None = None
    lens: Lens | None = None
    depth_scale: float = 1.0

    @property
    def source(self) -> str:
        """What messages call this photo: its file, or its name when it lives in memory."""
        return self.name if isinstance(self.image, np.ndarray) else str(self.image)

    def load(self) -> NDArray[np.uint8]:
        """[H, W, 3] uint8. Raises UserError when the file is unreadable or not of the camera's size."""
        image = photo_pixels(self.image)
        if image.shape[:2] != (self.camera.height, self.camera.width):
            raise UserError(
                f"{self.source} is {image.shape[1]}x{image.shape[0]}, its camera says "
                f"{self.camera.width}x{self.camera.height}: resize one of them"
            )
        return image if self.lens is None else self.lens.remap(image, self.camera)

    def load_depth(self) -> NDArray[np.float32] | None:
        """[h, w] float32 z-depth in world units at the map's own size, 0 where unknown; None without a map.

        Raises UserError when the file is unreadable.
        """
        if self.depth is None:
            return None
        depth = read_depth(self.depth) if isinstance(self.depth, Path) else self.depth
        known = np.isfinite(depth) & (depth > 0)
        return (np.where(known, depth, 0) * self.depth_scale).astype(np.float32)

    def load_foreground(self) -> NDArray[np.bool_] | None:
        """[H, W] bool, where something moves; None without a matte. Raises UserError for a bad file."""
        return None if self.foreground is None else matte_pixels(self.foreground)

    def load_background(self) -> NDArray[np.uint8] | None:
        """[h, w, 3] uint8, the plate at its own size; None without one. Raises UserError for a bad file."""
        return None if self.background is None else photo_pixels(self.background)


@dataclass
class SparsePoints:
    """Structure-from-motion points. xyz: [P, 3] float64. rgb: [P, 3] uint8. error: [P] reprojection error in
    pixels.

    tracks: per record name, the rows of the points it observes and where: (rows [T] int64, pixels [T, 2]
    float64).
    """

    xyz: NDArray[np.float64]
    rgb: NDArray[np.uint8]
    error: NDArray[np.float64]
    tracks: dict[str, tuple[NDArray[np.int64], NDArray[np.float64]]] = field(default_factory=dict)


@dataclass
class Scene:
    """A posed photo set. Records are sorted by name; images are read only when `views` asks for them.

    splits: lists of record indices by name ('train', 'test'). mesh_path: the scene's surface, if it has one.
    """

    name: str
    records: list[Record]
    points: SparsePoints | None = None
    mesh_path: Path | None = None
    splits: dict[str, list[int]] = field(default_factory=dict)
    surface: Mesh | None = None

    def __len__(self) -> int:
        return len(self.records)

    @property
    def names(self) -> list[str]:
        return [record.name for record in self.records]

    def split(self, name: str) -> list[int]:
        """Record indices of a split; 'all' always exists."""
        if name == "all":
            return list(range(len(self)))
        if name not in self.splits:
            raise UserError(
                f"scene {self.name} has no split {name!r}; it has {[*sorted(self.splits), 'all']}"
            )
        return self.splits[name]

    def hold_out(self, every: int) -> None:
        """Define 'train' and 'test': every `every`-th record, from the first, is a test view (Mip-NeRF 360
        protocol).

        Raises UserError for `every` below 2, which would leave nothing to train from.
        """
        if every < 2:
            raise UserError(f"data.hold_out_every is {every}: it must be at least 2")
        self.splits["test"] = [i for i in range(len(self)) if i % every == 0]
        self.splits["train"] = [i for i in range(len(self)) if i % every != 0]

    def choose_views(self, test: str = "", left_out: str = "") -> None:
        """Replace the split 'test' by positions such as '0,7,14' or '::7', and drop others from both splits.

        'train' is what remains. Empty texts change nothing. Raises UserError for a position that is no
        photo's, and when nothing is left to train from.
        """
        if not test and not left_out:
            return
        chosen = positions(test, len(self), "data.test_views") if test else self.split("test")
        dropped = set(positions(left_out, len(self), "data.left_out_views"))
        before = range(len(self)) if test else self.split("train")
        self.splits["test"] = [i for i in chosen if i not in dropped]
        self.splits["train"] = [i for i in before if i not in dropped and i not in set(chosen)]
        if not self.splits["train"]:
            raise UserError(
                f"data.test_views={test!r} and data.left_out_views={left_out!r} leave no photo to train from"
            )

    def cameras(self, indices: Sequence[int] | None = None, size: ImageSize | None = None) -> Cameras:
        """[N] cameras of the records, resized to (height, width).

        Raises UserError when native sizes differ.
        """
        chosen = [self.records[i].camera for i in (range(len(self)) if indices is None else indices)]
        if not chosen:
            raise UserError(f"scene {self.name}: no view was chosen")
        if size is not None:
            chosen = [camera.resize(*size) for camera in chosen]
        elif len({(c.height, c.width) for c in chosen}) > 1:
            raise UserError(f"scene {self.name} has photos of several sizes: set data.max_size or a size")
        return stack_cameras(chosen)

    def views(
        self, indices: Sequence[int] | None = None, size: ImageSize | None = None, threads: int = 0
    ) -> Views:
        """[N] Views of the records at (height, width); depth, foreground, background and bounds where every
        record has them.

        threads: how many decode photos at a time.
        """
        indices = list(range(len(self)) if indices is None else indices)
        cameras = self.cameras(indices, size)
        size = (cameras.height, cameras.width)
        records = [self.records[i] for i in indices]
        with ThreadPoolExecutor(max(1, threads)) as pool:
            images = _stack_photos(pool.map(lambda record: record.load(), records), size)
            background = None
            if all(record.background is not None for record in records):
                plates = pool.map(lambda record: record.load_background(), records)
                background = _stack_photos(plates, size)
        depth, valid = _stack_depths(records, size)
        bounds = [record.bounds for record in records if record.bounds is not None]
        return Views(
            images,
            cameras,
            depth=depth,
            valid=valid,
            foreground=_stack_masks([record.load_foreground() for record in records], size),
            background=background,
            bounds=torch.tensor(bounds).double() if len(bounds) == len(records) else None,
            names=[record.name for record in records],
        )

    @property
    def has_mesh(self) -> bool:
        """Whether `mesh()` has something to return."""
        return self.surface is not None or self.mesh_path is not None

    def mesh(self) -> Mesh:
        """The scene's surface. Raises UserError when it has none."""
        if self.surface is None:
            if self.mesh_path is None:
                raise UserError(
                    f"scene {self.name} has no mesh: set data.mesh, or make one with scripts/scene.py prepare"
                )
            from geometry.mesh_files import read_mesh

            self.surface = read_mesh(self.mesh_path)
        return self.surface


def positions(text: str, count: int, name: str) -> list[int]:
    """Positions below `count` that a text such as '0,7,14', '::7' or '3:9,20' lists, sorted.

    name: of the setting, for messages. Raises UserError when it is malformed or names a position too high.
    """
    found: set[int] = set()
    for part in filter(None, (word.strip() for word in text.split(","))):
        match = _POSITIONS.fullmatch(part)
        if match is None:
            raise UserError(f"{name} is {text!r}: write positions such as '0,7,14', '3:9' or '::7'")
        if ":" in part:
            found |= set(range(count)[slice(*(int(word) if word else None for word in part.split(":")))])
        elif int(part) >= count:
            raise UserError(f"{name} names photo {part}: the scene has {count}, numbered from 0")
        else:
            found.add(int(part))
    return sorted(found)


def _stack_photos(photos: Iterable[NDArray[np.uint8] | None], size: ImageSize) -> Tensor:
    """Photos that are all there -> [N, 3, H, W] float32."""
    return torch.stack([to_tensor(resize_image(photo, size)) for photo in photos if photo is not None])


def _stack_depths(records: list[Record], size: ImageSize) -> tuple[Tensor | None, Tensor | None]:
    """Depth [N, 1, H, W] and its validity at the nearest sample; (None, None) if a record has none."""
    if any(record.depth is None for record in records):
        return None, None
    maps = [record.load_depth() for record in records]
    depths = torch.stack([_nearest(torch.from_numpy(depth), size) for depth in maps])[:, None]
    return depths, (depths > 0).float()


def _stack_masks(masks: list[NDArray[np.bool_] | None], size: ImageSize) -> Tensor | None:
    present = [mask for mask in masks if mask is not None]
    if len(present) < len(masks):
        return None
    return torch.stack([_nearest(torch.from_numpy(mask).float(), size) for mask in present])[:, None]


def _nearest(image: Tensor, size: ImageSize) -> Tensor:
    """Nearest-sample resize of [H, W]: values such as depth must not be blended across edges."""
    if tuple(image.shape) == tuple(size):
        return image
    return torch.nn.functional.interpolate(image[None, None], size=size, mode="nearest-exact")[0, 0]


@dataclass
class Batch:
    """Source views given and target views to make. scene: name of the scene, once per target.

    pairs: where every target comes with a source (and scene) of its own, the pairs they are.
    """

    source: Views
    target: Views
    scene: list[str]
    pairs: list[Pair] | None = None
