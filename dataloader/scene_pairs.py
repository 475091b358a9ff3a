"""Image pairs of posed scenes: a photo, a photo to make from it, and the warp between them by the former's
depth.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.errors import UserError
from dataloader.canvas import fit_canvas, on_canvas
from dataloader.images import DEPTH_SUFFIXES, fit_size, resize_image
from dataloader.megascenes.warps import fit_depth, lift_photo, render_warp, warp_canvases
from dataloader.pairs import Pair
from dataloader.scene import Record, Scene
from geometry.cameras import Cameras
from geometry.lifting import depth_scale
from geometry.rasterize import Rasterizer
from geometry.selection import rank_views


@dataclass(frozen=True)
class Choice:
    """A pair: positions of the scene among scenes, and of source and target among its records."""

    scene: int
    source: int
    target: int


def nearest_sources(scenes: Sequence[Scene], sources: str = "train", targets: str = "test") -> list[Choice]:
    """For evaluation: every photo of the split `targets`, with the nearest of the split `sources`.

    Nearest by `geometry.selection.rank_views`. A photo is never its own source. Raises UserError when a split
    is missing or empty.
    """
    choices = []
    for number, scene in enumerate(scenes):
        given, made = scene.split(sources), scene.split(targets)
        if not given or not made:
            raise UserError(f"scene {scene.name}: split {sources!r} or {targets!r} holds no photo")
        order = rank_views(_poses(scene, given), _poses(scene, made))
        for target, ranked in zip(made, order.tolist(), strict=True):
            source = next((given[i] for i in ranked if given[i] != target), None)
            if source is None:
                raise UserError(f"scene {scene.name}: split {sources!r} holds no photo but the one to make")
            choices.append(Choice(number, source, target))
    return choices


def close_pairs(
    scenes: Sequence[Scene], split: str = "train", max_angle: float = 60.0, max_distance: float = 2.0
) -> list[Choice]:
    """For training: all ordered pairs of a split's photos that look in similar directions from nearby.

    max_angle: degrees between optical axes. max_distance: between camera centres, in units of their mean
    distance from their middle. Raises UserError when a split is missing, or no pair is left.
    """
    choices = []
    for number, scene in enumerate(scenes):
        indices = scene.split(split)
        poses = _poses(scene, indices)
        centers, axes = poses.center, torch.nn.functional.normalize(poses.c2w[:, :3, 2], dim=-1)
        spread = (centers - centers.mean(0)).norm(dim=-1).mean().clamp(min=1e-12)
        near = torch.cdist(centers, centers) <= max_distance * spread
        near &= torch.acos((axes @ axes.T).clamp(-1, 1)) <= np.radians(max_angle)
        near.fill_diagonal_(False)
        choices += [Choice(number, indices[i], indices[j]) for i, j in near.nonzero().tolist()]
    if not choices:
        raise UserError(
            f"no two photos are within {max_angle:g} degrees and {max_distance:g} units: raise the limits"
        )
    return choices


def attach_depths(scene: Scene, folder: Path) -> Scene:
    """The scene with a depth map for every photo: FOLDER/NAME.npy, .npz, .png, .pfm or .exr, in the scene's
    units, of the photo's view at any size. Maps that photos have already are replaced.

    Raises UserError naming a photo without a map, or one whose lens was removed: its map would not fit it.
    """
    records = []
    for record in scene.records:
        if record.lens is not None:
            raise UserError(
                f"{record.source} is distorted, its depth map would not fit the undistorted photo: undistort "
                "the photos first"
            )
        places = [folder / f"{record.name}{suffix}" for suffix in sorted(DEPTH_SUFFIXES)]
        found = next((place for place in places if place.is_file()), None)
        if found is None:
            raise UserError(f"{folder} holds no depth map of the photo {record.name} ({record.name}.npy)")
        records.append(replace(record, depth=found, depth_scale=1.0))
    return replace(scene, records=records)


def _poses(scene: Scene, indices: list[int]) -> Cameras:
    """Cameras [N] of records whose photos may differ in size: only their poses matter."""
    return scene.cameras(indices, size=(1, 1))


@dataclass
class _Lifted:
    """A source photo's surface (None if nothing is left of it) and the scale of its depth."""

    surface: Rasterizer | None
    scale: float


class _Recent(OrderedDict[Any, Any]):
    """The last few values that were made, by key."""

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.capacity = max(1, capacity)

    def get_or_make(self, key: Any, make: Any) -> Any:
        if key not in self:
            while len(self) >= self.capacity:
                self.popitem(last=False)
            self[key] = make()
        self.move_to_end(key)
        return self[key]


class ScenePairs:
    """A `PairSet` of scenes: `choices` come from `nearest_sources` or `close_pairs`.

    The warp is made when asked for, from the source's depth map, or its depth on the scene's mesh where it
    has none: lifted, triangles seen at more than 70 degrees torn out, rendered for the target's camera, as
    MegaScenes does. A pair is a function of its index alone; the surfaces of the last few sources are kept.

    size, small: sides of the canvases in pixels. lift_size: long side to which larger photos are reduced for
    the warp, which then has the target's proportions at that size; 0 keeps them. kept: how many lifted
    sources stay in memory, 130 MB each at 512 pixels. Raises UserError for a source without depth and mesh.
    """

    def __init__(
        self,
        scenes: Sequence[Scene],
        choices: Sequence[Choice],
        size: int = 256,
        small: int = 32,
        lift_size: int = 512,
        kept: int = 4,
    ) -> None:
        self.scenes, self.choices = list(scenes), list(choices)
        self.size, self.small, self.lift_size = size, small, lift_size
        self._kept = kept
        self._forget()
        for choice in self.choices:
            scene = self.scenes[choice.scene]
            if scene.records[choice.source].depth is None and not scene.has_mesh:
                raise UserError(
                    f"{scene.records[choice.source].source} has no depth map and scene {scene.name} no mesh: "
                    "give a folder of depth maps, or a mesh (data.mesh, scripts/scene.py prepare)"
                )

    def _forget(self) -> None:
        self._lifted, self._meshes = _Recent(self._kept), _Recent(1)

    def __getstate__(self) -> dict[str, Any]:
        """Ray-casting scenes do not travel to other processes: there they are made again."""
        state = self.__dict__.copy()
        del state["_lifted"], state["_meshes"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    @property
    def has_warps(self) -> bool:
        """Always: they are made when asked for."""
        return True

    def __len__(self) -> int:
        return len(self.choices)

    def name(self, index: int) -> str:
        """SCENE_SOURCE_to_TARGET."""
        scene, source, target = self._records(index)
        return f"{scene.name}_{source.name}_to_{target.name}".replace("/", "_")

    def pair(self, index: int) -> Pair:
        """Raises UserError when a photo or depth map cannot be read, or nothing of the depth is known."""
        scene, source, target = self._records(index)
        given, made = source.load(), target.load()
        choice = self.choices[index]
        lifted = self._lifted.get_or_make(
            (choice.scene, choice.source), lambda: self._lift(choice.scene, source, given)
        )
        camera = target.camera
        warp = render_warp(
            lifted.surface, camera.resize(*fit_size(camera.height, camera.width, self.lift_size))
        )
        image, small, coverage = warp_canvases(warp, self.size, self.small)
        return Pair(
            self.name(index),
            scene.name,
            on_canvas(given, self.size),
            on_canvas(made, self.size),
            fit_canvas(source.camera.height, source.camera.width, self.size),
            fit_canvas(camera.height, camera.width, self.size),
            source.camera,
            camera,
            lifted.scale,
            image,
            small,
            coverage,
        )

    def _records(self, index: int) -> tuple[Scene, Record, Record]:
        choice = self.choices[index]
        scene = self.scenes[choice.scene]
        return scene, scene.records[choice.source], scene.records[choice.target]

    def _lift(self, number: int, source: Record, photo: NDArray[np.uint8]) -> _Lifted:
        size = fit_size(source.camera.height, source.camera.width, self.lift_size)
        camera = source.camera.resize(*size)
        depth = self._depth(number, source, camera)
        known = depth[depth > 0]
        if not len(known):
            raise UserError(f"{source.source}: its depth is unknown everywhere, nothing can be warped")
        return _Lifted(lift_photo(resize_image(photo, size), depth, camera), depth_scale(known))

    def _depth(self, number: int, source: Record, camera: Cameras) -> Tensor:
        """Z-depth [H, W] of a source at its camera's size, 0 where unknown."""
        depth = source.load_depth()
        if depth is not None:
            return fit_depth(depth, camera.height, camera.width, smooth=False)
        scene = self.scenes[number]
        mesh = self._meshes.get_or_make(number, lambda: Rasterizer(scene.mesh()))
        return mesh.depth(camera)[0]
