"""Hypersim's files: camera parameters, key frames, and maps of distance, position and colour
(specs/scene_lifting 6.2).

Poses are in asset units with camera axes x right, y up, z back. What leaves this module is in metres and
OpenCV axes.
"""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.errors import UserError
from geometry.cameras import Cameras, pinhole
from geometry.views import Views

LEGACY_FOCAL = 886.81  # pixels: right only for images of 1024 pixels and a field of view of 60 degrees
SCENES = 100  # of the camera table that the benchmark takes


@dataclass(frozen=True)
class CameraParameters:
    """One row of metadata_camera_parameters.csv. fov: horizontal, radians."""

    scene: str
    width: int
    height: int
    fov: float
    physical: bool

    @property
    def focal(self) -> float:
        """Pixels, horizontally and vertically."""
        return self.width / (2 * math.tan(self.fov / 2))

    @property
    def fov_y(self) -> float:
        """Vertical field of view, radians."""
        return 2 * math.atan(self.height * math.tan(self.fov / 2) / self.width)


def read_table(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """The rows of a csv file. Raises UserError when it is missing, empty, or lacks a column."""
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"cannot read {path} ({error}): give Hypersim's own file") from None
    if not rows:
        raise UserError(f"{path} has no rows: give Hypersim's own file")
    lacking = [name for name in columns if rows[0].get(name) is None]
    if lacking:
        raise UserError(f"{path} has no column {lacking[0]!r}: give Hypersim's own file")
    return rows


def _number(row: dict[str, str], name: str, path: Path) -> float:
    try:
        return float(row[name])
    except ValueError:
        raise UserError(f"{path}: {name} is {row[name]!r}, not a number") from None


def read_camera_parameters(path: Path) -> list[CameraParameters]:
    """The scenes of the benchmark: the first 100 rows, less the cameras that are no pinholes.

    Raises UserError as `read_table`.
    """
    size = ("settings_output_img_width", "settings_output_img_height")
    columns = ("scene_name", *size, "settings_camera_fov", "use_camera_physical")
    found = []
    for row in read_table(path, columns)[:SCENES]:
        width, height = (int(_number(row, name, path)) for name in size)
        physical = row["use_camera_physical"].strip().lower() in ("true", "1", "1.0")
        fov = math.nan if physical else _number(row, "settings_camera_fov", path)
        found.append(CameraParameters(row["scene_name"], width, height, fov, physical))
    return found


def read_dataset(path: Path) -> NDArray[np.float64]:
    """The array 'dataset' of an HDF5 file, as it is stored. Raises UserError when it cannot be read."""
    import h5py

    if not path.is_file():
        raise UserError(f"{path} does not exist: fetch it from Hypersim")
    try:
        with h5py.File(path) as file:
            if "dataset" not in file:
                raise UserError(f"{path} has no 'dataset', only {sorted(file)}: give Hypersim's own file")
            return np.asarray(file["dataset"])
    except OSError as error:
        raise UserError(f"{path} is no readable HDF5 file ({error}): fetch it again") from None


def camera_to_world(position: Tensor, orientation: Tensor, metres: float) -> Tensor:
    """[4, 4] float64, OpenCV axes, metres. position: [3] asset units. orientation: [3, 3] world from camera
    (x right, y up, z back). metres: per asset unit.
    """
    c2w = torch.eye(4, dtype=torch.float64)
    c2w[:3, :3] = orientation.double() * torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64)
    c2w[:3, 3] = position.double() * metres
    return c2w


def planar_depth(distance: Tensor, focal: float) -> Tensor:
    """z-depth [H, W] from distances to the camera's centre; unknown (nan) becomes 0. focal: pixels."""
    camera = pinhole(focal, *distance.shape).to(distance.dtype)
    directions = camera.rays(unit=False)[1]  # identity pose: z is 1
    return (distance / directions.norm(dim=-1)).nan_to_num(0.0, 0.0, 0.0)


@dataclass(frozen=True)
class HypersimCamera:
    """One camera's key frames in a scene. scene: its folder. legacy_focal: convert distances with the
    original's constant focal length.
    """

    scene: Path
    name: str
    parameters: CameraParameters
    legacy_focal: bool = False

    @cached_property
    def metres(self) -> float:
        """Metres per asset unit."""
        path = self.scene / "_detail" / "metadata_scene.csv"
        rows = read_table(path, ("parameter_name", "parameter_value"))
        found = [row for row in rows if row["parameter_name"] == "meters_per_asset_unit"]
        if not found:
            raise UserError(f"{path} has no parameter 'meters_per_asset_unit': give Hypersim's own file")
        return _number(found[0], "parameter_value", path)

    def _key_frames(self, what: str) -> Tensor:
        folder = self.scene / "_detail" / self.name
        return torch.from_numpy(read_dataset(folder / f"camera_keyframe_{what}.hdf5"))

    @cached_property
    def _poses(self) -> tuple[dict[int, int], Tensor, Tensor]:
        """Frame id -> position in the lists; positions [N, 3]; orientations [N, 3, 3]."""
        ids = self._key_frames("frame_indices").long().tolist()
        positions, orientations = self._key_frames("positions"), self._key_frames("orientations")
        if positions.shape != (len(ids), 3) or orientations.shape != (len(ids), 3, 3):
            raise UserError(
                f"{self.scene / '_detail' / self.name}: {len(ids)} frame indices, positions "
                f"{tuple(positions.shape)}, orientations {tuple(orientations.shape)}: fetch them again"
            )
        return {frame: i for i, frame in enumerate(ids)}, positions, orientations

    @property
    def frames(self) -> list[int]:
        """Ids of the key frames."""
        return list(self._poses[0])

    def camera(self, frame: int) -> Cameras:
        """The camera of a key frame, single. Raises UserError for a frame that is none."""
        places, positions, orientations = self._poses
        if frame not in places:
            raise UserError(f"{self.scene.name} {self.name} has no key frame {frame}: make the pairs again")
        pose = camera_to_world(positions[places[frame]], orientations[places[frame]], self.metres)
        size = self.parameters.height, self.parameters.width
        return pinhole(self.parameters.focal, *size, c2w=pose)

    def _map(self, frame: int, kind: str, what: str) -> Tensor:
        folder = self.scene / "images" / f"scene_{self.name}_{kind}_hdf5"
        path = folder / f"frame.{frame:04d}.{what}.hdf5"
        found = torch.from_numpy(read_dataset(path)).float()
        size = self.parameters.height, self.parameters.width
        if found.shape[:2] != size:
            raise UserError(f"{path} is {tuple(found.shape)}, the camera table says {size}: fetch it again")
        return found

    def depth(self, frame: int) -> Tensor:
        """z-depth [H, W] in metres, 0 where unknown."""
        focal = LEGACY_FOCAL if self.legacy_focal else self.parameters.focal
        return planar_depth(self._map(frame, "geometry", "depth_meters"), focal)

    def points(self, frame: int) -> Tensor:
        """World points [P, 3] in metres from the frame's position map, of the pixels that have one."""
        flat = self._map(frame, "geometry", "position").reshape(-1, 3)
        return flat[flat.isfinite().all(-1)] * self.metres

    def photo(self, frame: int) -> Tensor:
        """[3, H, W], clipped to [0, 1] without tone mapping, as the original shows it to the networks."""
        return self._map(frame, "final", "color").permute(2, 0, 1).nan_to_num(0.0).clamp(0, 1)

    def view(self, frame: int, photo: bool = True) -> Views:
        """Views [1] of a key frame. photo: False leaves the image black and unread."""
        depth = self.depth(frame)[None, None]
        image = self.photo(frame) if photo else torch.zeros(3, *depth.shape[-2:])
        camera = self.camera(frame)[None]
        return Views(image[None], camera, depth, (depth > 0).float(), names=[f"{frame:04d}"])


def scene_cameras(
    scene: Path, parameters: CameraParameters, legacy_focal: bool = False
) -> list[HypersimCamera]:
    """The cameras of a scene's folder. Raises UserError as `read_table`."""
    rows = read_table(scene / "_detail" / "metadata_cameras.csv", ("camera_name",))
    return [HypersimCamera(scene, row["camera_name"], parameters, legacy_focal) for row in rows]
