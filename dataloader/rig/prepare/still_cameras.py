"""Structure from motion with several photos of each camera, none of which moves.

What moves is where it is at the same moment in all cameras, so that photos of one moment match everywhere,
and all moments together tell the poses better than one.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataloader.prepare.sfm import SEED, quiet


def merge_photos(
    database: Path,
    merged: Path,
    photos: Path,
    names: Sequence[Sequence[str]],
    camera_model: str,
    focals: Sequence[float] | None = None,
) -> int:
    """Write a database in which all photos of a camera that does not move count as one photo, its first.

    names: of the photos of each camera [C][F] in the matched `database`; only photos of equal place F were
    matched. photos: folder of them. focals: known focal lengths in pixels, one per camera. Features are put
    together, and pairs verified anew with all of them. Returns the number of pairs that have a common
    geometry.
    """
    first = [camera[0] for camera in names]
    with quiet() as pycolmap:
        reader = pycolmap.ImageReaderOptions()
        reader.camera_model = camera_model
        pycolmap.Database.open(merged).close()
        for name in first:
            pycolmap.import_images(
                merged, photos, pycolmap.CameraMode.SINGLE, image_names=[name], options=reader
            )
        with pycolmap.Database.open(database) as old, pycolmap.Database.open(merged) as new:
            offsets = [_put_together(old, new, camera) for camera in names]
            _set_focals(new, first, focals)
            pairs = [
                pair for pair in combinations(range(len(names)), 2) if _join(old, new, names, offsets, *pair)
            ]
        listed = merged.with_suffix(".pairs")
        listed.write_text("".join(f"{first[one]} {first[two]}\n" for one, two in pairs))
        verification = pycolmap.TwoViewGeometryOptions()
        verification.ransac.random_seed = SEED
        pycolmap.verify_matches(merged, listed, verification)
        listed.unlink()
        with pycolmap.Database.open(merged) as opened:
            return sum(count > 0 for count in opened.read_two_view_geometry_num_inliers()[1])


def _put_together(old: Any, new: Any, camera: Sequence[str]) -> NDArray[np.int64]:
    """Write the features of a camera's photos to its first one. Returns where each photo's begin [F]."""
    features = [old.read_keypoints(old.read_image_with_name(name).image_id) for name in camera]
    found = [rows for rows in features if len(rows)]
    if found:
        new.write_keypoints(new.read_image_with_name(camera[0]).image_id, np.concatenate(found))
    return np.cumsum([0, *map(len, features[:-1])])


def _set_focals(new: Any, names: Sequence[str], focals: Sequence[float] | None) -> None:
    for name, focal in zip(names, focals or [], strict=focals is not None):
        camera = new.read_camera(new.read_image_with_name(name).camera_id)
        camera.focal_length = focal
        camera.has_prior_focal_length = True
        new.update_camera(camera)


def _join(
    old: Any,
    new: Any,
    names: Sequence[Sequence[str]],
    offsets: Sequence[NDArray[np.int64]],
    one: int,
    two: int,
) -> bool:
    """Write the matches of two cameras, from all their photos. Returns whether there are any."""
    found = []
    for place, pair in enumerate(zip(names[one], names[two], strict=True)):
        ids = [old.read_image_with_name(name).image_id for name in pair]
        if old.exists_matches(*ids):
            found.append(old.read_matches(*ids) + np.array([offsets[one][place], offsets[two][place]]))
    if not found:
        return False
    ids = [new.read_image_with_name(names[camera][0]).image_id for camera in (one, two)]
    new.write_matches(*ids, np.concatenate(found).astype(np.uint32))
    return True
