"""Structure from motion with COLMAP (Schönberger and Frahm 2016): features, matches, incremental mapping.

Every step reads files and writes files, so that it can be repeated alone. SIFT runs on the CPU. Random draws
are seeded and small scenes are bundle-adjusted on one thread, so that the same photos give the same cameras.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tqdm import tqdm

from common.errors import UserError

Matcher = Literal["exhaustive", "sequential"]
CAMERA_MODELS = (
    "SIMPLE_PINHOLE",
    "PINHOLE",
    "SIMPLE_RADIAL",
    "RADIAL",
    "OPENCV",
)  # that the readers undistort

SEED = 1
_MAX_FEATURES = 4096  # per photo: matching time grows with its square
_NEIGHBOURS = 10  # sequential matching: photos this far apart in name order, and powers of two beyond
_PAIRS_AT_ONCE = 200  # matched between two steps of the progress bar
_REPRODUCIBLE = 100  # photos up to which bundle adjustment stays on one thread
_MIN_MODEL = 3  # photos


@dataclass(frozen=True)
class SfmSummary:
    """What came out: photos registered of those given, points, mean reprojection error in pixels, mean
    number of photos that see a point.
    """

    registered: int
    photos: int
    points: int
    error: float
    track: float


@dataclass(frozen=True)
class MappingOptions:
    """refine_focal: False keeps the focal lengths of the database. init_angle: degrees between the rays of a
    point in the first pair of photos, at least; min_angle: in any. A rig of near-parallel cameras needs less
    than photos from all around.
    """

    refine_focal: bool = True
    init_angle: float = 16.0
    min_angle: float = 1.5


@contextmanager
def quiet() -> Iterator[Any]:
    """pycolmap with its log held down to errors, at a fixed state of its random numbers."""
    import pycolmap

    before = pycolmap.logging.minloglevel
    pycolmap.logging.minloglevel = int(pycolmap.logging.FATAL)
    pycolmap.set_random_seed(SEED)
    try:
        yield pycolmap
    finally:
        pycolmap.logging.minloglevel = before


_FREE_PHOTOS = MappingOptions()


def _apply(mapping: MappingOptions, options: Any) -> None:
    """Set what differs from pycolmap's own IncrementalPipelineOptions."""
    options.ba_refine_focal_length = mapping.refine_focal
    options.mapper.abs_pose_refine_focal_length = mapping.refine_focal
    options.mapper.init_min_tri_angle = mapping.init_angle
    options.mapper.filter_min_tri_angle = mapping.min_angle
    options.triangulation.min_angle = mapping.min_angle


def extract_features(photos: Path, groups: Sequence[Sequence[str]], database: Path, camera_model: str) -> int:
    """Write SIFT features (at most 4096 per photo) of the photos in a folder to a new database.

    groups: file names; the photos of a group share one camera, whose focal length starts from EXIF where the
    first of them has it. Returns the median number of features per photo.
    """
    with quiet() as pycolmap:
        reader = pycolmap.ImageReaderOptions()
        reader.camera_model = camera_model
        options = pycolmap.FeatureExtractionOptions()
        options.use_gpu = False
        options.sift.max_num_features = _MAX_FEATURES
        pycolmap.Database.open(database).close()  # makes the file
        for names in groups:  # registered one by one: extraction's threads would number them at random
            pycolmap.import_images(
                database, photos, pycolmap.CameraMode.SINGLE, image_names=list(names), options=reader
            )
        pycolmap.extract_features(
            database,
            photos,
            image_names=[name for names in groups for name in names],
            extraction_options=options,
            device=pycolmap.Device.cpu,
        )
        with pycolmap.Database.open(database) as opened:
            counts = [opened.num_keypoints_for_image(image.image_id) for image in opened.read_all_images()]
    return int(np.median(counts)) if counts else 0


def image_pairs(names: Sequence[str], matcher: Matcher) -> list[tuple[str, str]]:
    """The pairs to match: all, or those at most 10 apart in the order given, or 16, 32, 64, ... apart."""
    gaps = range(1, len(names))
    if matcher == "sequential":
        gaps_kept = {gap for gap in gaps if gap <= _NEIGHBOURS or gap & (gap - 1) == 0}
    else:
        gaps_kept = set(gaps)
    return [(names[i], names[i + gap]) for gap in sorted(gaps_kept) for i in range(len(names) - gap)]


def match_features(database: Path, pairs: Sequence[tuple[str, str]]) -> int:
    """Match pairs of photos and verify each geometrically (RANSAC); the database is changed in place.

    pairs: file names without spaces, which separate them in COLMAP's list of pairs. Returns the number of
    pairs that have a common geometry.
    """
    listed = database.with_suffix(".pairs")
    with quiet() as pycolmap:
        matching = pycolmap.FeatureMatchingOptions()
        matching.use_gpu = False
        verification = pycolmap.TwoViewGeometryOptions()
        verification.ransac.random_seed = SEED
        pairing = pycolmap.ImportedPairingOptions()
        pairing.match_list_path = listed
        with tqdm(total=len(pairs), desc="matching", unit="pair", leave=False) as bar:
            for start in range(0, len(pairs), _PAIRS_AT_ONCE):
                block = pairs[start : start + _PAIRS_AT_ONCE]
                listed.write_text("".join(f"{one} {two}\n" for one, two in block))
                pycolmap.match_image_pairs(
                    database, matching, pairing, verification, device=pycolmap.Device.cpu
                )
                bar.update(len(block))
        listed.unlink()
        with pycolmap.Database.open(database) as opened:
            return sum(count > 0 for count in opened.read_two_view_geometry_num_inliers()[1])


def reconstruct(
    database: Path, photos: Path, folder: Path, count: int, mapping: MappingOptions = _FREE_PHOTOS
) -> SfmSummary:
    """Estimate cameras and points from a matched database; write the largest model to `folder` (COLMAP
    binary).

    photos: folder of the photos, for the points' colours. count: how many photos there are. Raises UserError
    when fewer than 3, or fewer than half of them, find a place in one model.
    """
    with quiet() as pycolmap:
        options = pycolmap.IncrementalPipelineOptions()
        options.min_model_size = _MIN_MODEL
        options.num_threads = 1 if count <= _REPRODUCIBLE else -1
        for part in (options, options.mapper, options.triangulation):
            part.random_seed = SEED
        _apply(mapping, options)
        scratch = folder.with_name(folder.name + ".models")
        scratch.mkdir()
        with tqdm(total=count, desc="cameras", unit="photo", leave=False) as bar:
            models = pycolmap.incremental_mapping(
                database, photos, scratch, options, next_image_callback=lambda: bar.update()
            )
        best = max(
            models.values(), key=lambda model: (model.num_reg_images(), model.num_points3D()), default=None
        )
        registered = best.num_reg_images() if best else 0
        if best is None or registered < max(_MIN_MODEL, count / 2):
            raise UserError(
                f"only {registered} of {count} photos could be placed together: add photos that overlap more "
                "(each point in 3 or more), avoid blur and plain surfaces, remove photos of anything else"
            )
        folder.mkdir()
        best.write(folder)
        return SfmSummary(
            registered,
            count,
            best.num_points3D(),
            best.compute_mean_reprojection_error(),
            best.compute_mean_track_length(),
        )
