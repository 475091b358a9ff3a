"""LLFF `poses_bounds.npy`: float64 [N, 17] rows beside a photo folder (specs/mask_volume 3.1, 4.1).

A row is a 3x5 matrix, row-major, and near and far depth. The matrix columns are the camera-to-world axes
[down, right, backwards], the position, and (height, width, focal). Rows are in the order of the file names;
pixels are square and the principal point is the image centre.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from common.errors import UserError
from common.files import replacing
from dataloader.formats.shared import (
    BOUNDS_PERCENTILES,
    CENTER_TOLERANCE,
    checked_camera,
    fit_cameras,
    make_scene,
    not_stored,
    pinhole_matrix,
    record_names,
    refuse_skew,
    store,
)
from dataloader.images import list_images
from dataloader.scene import Record, Scene
from geometry.cameras import Cameras
from geometry.poses import llff_from_pose, pose_from_llff

_COLUMNS = 17


def read(root: Path, images: str = "images") -> Scene:
    """Read `root/poses_bounds.npy` with the photos of `root/images`.

    Photos of another folder (`images_4`) may be of another size: x and y of the cameras are scaled to it,
    each by its own factor. Raises UserError for a malformed file or another number of rows than photos.
    """
    path = root / "poses_bounds.npy"
    photos = list_images(root / images)
    rows = read_rows(path)
    if len(rows) != len(photos):
        raise UserError(
            f"{path} has {len(rows)} rows for {len(photos)} photos in {root / images}: "
            "there must be one per photo"
        )
    cameras = [row_camera(row, f"{path} row {i} ({photos[i].name})") for i, row in enumerate(rows)]
    cameras = fit_cameras(cameras, photos, rescale=images != "images")
    names = record_names([photo.name for photo in photos], str(root / images))
    records = [
        Record(name, camera, photo, bounds=row_bounds(row, f"{path} ({name})"))
        for name, camera, photo, row in zip(names, cameras, photos, rows, strict=True)
    ]
    return make_scene(root, records)


def read_rows(path: Path) -> NDArray[np.float64]:
    """The rows [N, 17] of a file. Raises UserError unless it is an array of that shape."""
    try:
        rows = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: this is no LLFF scene") from None
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path} is not a readable array ({error}): write it anew") from None
    if not isinstance(rows, np.ndarray) or rows.ndim != 2 or rows.shape[1] != _COLUMNS:
        shape = getattr(rows, "shape", "several arrays")
        raise UserError(f"{path} has shape {shape}, poses and bounds are [photos, {_COLUMNS}]: write it anew")
    if rows.dtype.kind not in "fiu":
        raise UserError(f"{path} holds {rows.dtype} values, it must hold numbers: write it anew")
    return rows.astype(np.float64)


def row_camera(row: NDArray[np.float64], source: str) -> Cameras:
    """The camera of a row [17], of the size that it names. Raises UserError naming `source`."""
    matrix = row[:15].reshape(3, 5)
    height, width, focal = matrix[:, 4]
    if not np.isfinite(matrix).all():
        raise UserError(f"{source}: the camera holds NaN or infinite numbers: estimate its pose again")
    if height < 1 or width < 1 or height != round(height) or width != round(width):
        raise UserError(
            f"{source}: {width:g}x{height:g} is no image size: column 5 holds height, width, focal"
        )
    K = pinhole_matrix(focal, focal, width / 2, height / 2)
    return checked_camera(K, pose_from_columns(matrix[:, :4]), (int(height), int(width)), source)


def pose_from_columns(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """[3, 4] columns [down, right, backwards, position] -> c2w [4, 4], OpenCV axes."""
    return pose_from_llff(torch.from_numpy(np.array(matrix))).numpy()


def row_bounds(row: NDArray[np.float64], source: str) -> tuple[float, float]:
    """Near and far depth of a row [17]. Raises UserError naming `source` for no depth range."""
    near, far = row[15:]
    if not 0 < near < far < np.inf:
        raise UserError(f"{source}: near {near:g} and far {far:g} are no depth range: give 0 < near < far")
    return float(near), float(far)


def write(scene: Scene, root: Path) -> list[str]:
    """Write `images/` and `poses_bounds.npy`. Returns what the format cannot hold.

    Raises UserError where it would bend a camera (fx != fy, principal point off the centre, skew), or where a
    photo has no bounds and nothing tells them (depth map, mesh, points).
    """
    rows = {name: _row(scene, i) for i, name in enumerate(scene.names)}
    files = store(scene, root)
    ordered = [rows[name] for name in sorted(files, key=lambda name: files[name])]
    with replacing(root / "poses_bounds.npy") as partial, partial.open("wb") as file:
        np.save(file, np.stack(ordered))
    measured = (
        []
        if all(record.bounds for record in scene.records)
        else ["near and far were measured on the depth maps, mesh or points"]
    )
    return [*measured, *not_stored(scene, "bounds")]


def _row(scene: Scene, index: int) -> NDArray[np.float64]:
    return camera_row(scene.records[index].camera, _depth_range(scene, index), scene.names[index])


def camera_row(camera: Cameras, bounds: tuple[float, float], name: str) -> NDArray[np.float64]:
    """The row [17] of a single camera and its near and far depth.

    name: for messages. Raises UserError where the row would bend the camera (see `write`).
    """
    (fx, _, cx), (_, fy, cy) = camera.K[:2].tolist()
    refuse_skew(camera, name, "LLFF")
    if abs(fx - fy) > CENTER_TOLERANCE:
        raise UserError(
            f"{name} has fx {fx:.6g} and fy {fy:.6g}, LLFF stores one focal length: choose another format"
        )
    off = max(abs(cx - camera.width / 2), abs(cy - camera.height / 2))
    if off > CENTER_TOLERANCE:
        raise UserError(
            f"{name} has its principal point {off:.4g} px off the image centre, LLFF stores none: "
            "choose another format"
        )
    size = np.array([camera.height, camera.width, fx])
    matrix = np.column_stack([llff_from_pose(camera.c2w).numpy(), size])
    return np.concatenate([matrix.ravel(), bounds])


def _depth_range(scene: Scene, index: int) -> tuple[float, float]:
    """Near and far of a record: its own, or the 0.1 and 99.9 percentile of the depths it sees."""
    record = scene.records[index]
    if record.bounds is not None:
        return record.bounds
    if record.depth is None and not scene.has_mesh and scene.points is None:
        raise UserError(
            f"{record.name} has no near and far depth, and no depth map, mesh or points tell it, but LLFF "
            "needs it: choose another format"
        )
    from dataloader.scene_depth import seen_depths

    near, far = np.percentile(seen_depths(scene, index).numpy(), BOUNDS_PERCENTILES)
    return float(near), float(far)
