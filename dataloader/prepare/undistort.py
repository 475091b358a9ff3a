"""Photos resampled to pinhole cameras that every camera format can hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.cli import progress
from dataloader.images import read_image, write_image
from dataloader.lenses import Lens, undistorted_camera
from dataloader.scene import Record, Scene, SparsePoints
from geometry.cameras import Cameras, pinhole

_NO_DISTORTION = ((0.0, 0.0, 0.0), (0.0, 0.0))


def square_scene(scene: Scene, files: Sequence[Path]) -> Scene:
    """Write the scene's photos with square pixels, the principal point in the middle and no distortion.

    files: where the photo of each record goes (JPEG or PNG). The photos keep their size and are zoomed just
    enough to leave no pixel empty. Returns a scene of those files, with the points' tracks moved along and
    cut to the frame.
    """
    cameras: dict[bytes, Cameras] = {}  # one per lens, so that equal lenses keep equal intrinsics
    records, tracks = [], {}
    for record, file in zip(progress(scene.records, "photos", unit="photo", leave=False), files, strict=True):
        lens = record.lens or Lens(record.camera.K.numpy(), *_NO_DISTORTION)
        key = np.concatenate([lens.K.ravel(), lens.radial, lens.tangential]).tobytes()
        target = cameras.setdefault(key, square_camera(record, lens)).with_poses(record.camera.c2w)
        assert isinstance(record.image, Path)
        write_image(lens.remap(read_image(record.image), target), file)
        records.append(replace(record, camera=target, image=file, lens=None))
        if scene.points is not None:
            tracks[record.name] = _move_track(scene.points, record, target)
    points = scene.points and SparsePoints(scene.points.xyz, scene.points.rgb, scene.points.error, tracks)
    return replace(scene, records=records, points=points)


def square_camera(record: Record, lens: Lens) -> Cameras:
    """The undistorted camera of a photo with one focal length and the principal point in the middle."""
    focal = float(np.sqrt(lens.K[0, 0] * lens.K[1, 1]))
    start = pinhole(focal, record.camera.height, record.camera.width, record.camera.c2w)
    return undistorted_camera(start, lens, record.source)


def _move_track(
    points: SparsePoints, record: Record, target: Cameras
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """A record's observations in the pixels of another pinhole camera at its pose."""
    rows, pixels = points.tracks[record.name]
    K, goal = record.camera.K.numpy(), target.K.numpy()
    moved = (pixels - K[:2, 2]) @ np.linalg.inv(K[:2, :2]).T @ goal[:2, :2].T + goal[:2, 2]
    inside = ((moved >= 0) & (moved <= (target.width, target.height))).all(axis=1)
    return rows[inside], moved[inside]
