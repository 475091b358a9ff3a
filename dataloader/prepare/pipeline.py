"""Photos to a scene: structure from motion, undistorted pinhole photos, a common world frame, a mesh.

The result is a COLMAP folder (`images/`, `sparse/0`) with `mesh.ply`; `work/` holds what the stages made on
the way, may be deleted, and lets a killed run continue.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from common.errors import UserError
from dataloader.formats import colmap
from dataloader.formats.shared import read_json, write_json
from dataloader.prepare import dense, sfm
from dataloader.prepare.photo_folder import Photo, copy_photos, open_photos, source_number
from dataloader.prepare.stages import RECORD, Stage, run_stages
from dataloader.prepare.undistort import square_scene
from dataloader.prepare.world_frame import move_scene, world_frame
from geometry.mesh_files import write_mesh

_INPUTS = "photos.json"  # in work/: names and digests of the photos
_LOSSLESS = {".png", ".tif", ".tiff", ".bmp"}


@dataclass(frozen=True)
class PrepareOptions:
    """max_size: long side of the photos used and written, in pixels (0: as they are). camera_model: a name of
    `sfm.CAMERA_MODELS`. matcher: which pairs are matched. depth_size: long side of the depth maps in pixels.
    """

    max_size: int = 1600
    camera_model: str = "OPENCV"
    matcher: sfm.Matcher = "exhaustive"
    depth_size: int = 384

    def __post_init__(self) -> None:
        if self.camera_model not in sfm.CAMERA_MODELS:
            raise UserError(f"camera model {self.camera_model!r}: choose from {', '.join(sfm.CAMERA_MODELS)}")
        if self.max_size < 0 or self.depth_size < 32:
            raise UserError("max_size must be 0 or more, depth_size at least 32 pixels")


def prepare(photos: Path, root: Path, options: PrepareOptions, device: torch.device) -> dict[str, str]:
    """Make a scene folder from a folder of photos. Returns stage name -> figure.

    device: where depth is searched. A killed run continues with the first unfinished stage, and stages whose
    options changed are done again. Raises UserError for photos that are too few, unreadable or do not fit
    together, and for a root that cannot be written or holds anything else.
    """
    found = open_photos(photos)
    fresh = not root.exists()
    inputs = _claim(root, photos, found)
    try:
        return run_stages(root, _stages(root, found, options, device), inputs)
    except UserError:
        if not (root / "work" / RECORD).exists():  # nothing is finished: leave no trace
            shutil.rmtree(root if fresh else root / "work", ignore_errors=True)
        raise


def _claim(root: Path, folder: Path, photos: Sequence[Photo]) -> str:
    """Make `root` the scene of these photos, and return their digest.

    Raises UserError when a scene of other photos, or anything else, is there already.
    """
    digests = {photo.path.name: photo.digest for photo in photos}
    record = root / "work" / _INPUTS
    if not record.is_file():
        if root.exists() and (not root.is_dir() or any(root.iterdir())):
            raise UserError(f"{root} exists and is not an empty folder: choose a new one for the scene")
        write_json(digests, record)
    elif (before := read_json(record)) != digests:
        if (root / "images").exists():
            raise UserError(
                f"{root} was made from other photos ({_difference(before, digests)} in {folder}): choose "
                "another output folder, or delete it"
            )
        shutil.rmtree(root / "work")  # no scene came of the earlier photos
        write_json(digests, record)
    return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()


def _difference(before: dict[str, str], now: dict[str, str]) -> str:
    added, gone = len(now.keys() - before.keys()), len(before.keys() - now.keys())
    changed = sum(before[name] != now[name] for name in before.keys() & now.keys())
    return f"{added} new, {gone} missing, {changed} changed"


def _stages(
    root: Path, photos: Sequence[Photo], options: PrepareOptions, device: torch.device
) -> list[Stage]:
    """The stages in order; what each depends on beyond the ones before it."""
    chosen = asdict(options)

    def only(*names: str, version: int = 1) -> dict[str, Any]:
        return {name: chosen[name] for name in names} | {"version": version}

    work = root / "work"
    return [
        Stage("photos", only("max_size"), ("work/photos", "work/sizes.json"),
              lambda out: _copy(photos, out / "work", options.max_size)),
        Stage("features", only("camera_model"), ("work/features.db",),
              lambda out: _features(work, out / "work", options.camera_model)),
        Stage("matches", only("matcher"), ("work/matches.db",),
              lambda out: _matches(work, out / "work", options.matcher)),
        Stage("cameras", only(), ("work/sparse",), lambda out: _cameras(work, out / "work")),
        Stage("images", only(), ("images", "sparse"), lambda out: _images(work, out, photos)),
        Stage("depth", only("depth_size"), ("work/depth",),
              lambda out: _depth(root, out / "work", options.depth_size, device), keep_partial=True),
        Stage("mesh", only(), ("mesh.ply",), lambda out: _mesh(root, out, options.depth_size)),
    ]  # fmt: skip


def _copy(photos: Sequence[Photo], work: Path, max_size: int) -> str:
    sizes = copy_photos(photos, work / "photos", max_size)
    write_json(sizes, work / "sizes.json")
    counts = Counter(f"{width}x{height}" for height, width in sizes.values())
    return f"{len(sizes)} photos, " + ", ".join(
        size if len(counts) == 1 else f"{n} of {size}" for size, n in counts.items()
    )


def _sizes(work: Path) -> dict[str, tuple[int, int]]:
    return {name: (height, width) for name, (height, width) in read_json(work / "sizes.json").items()}


def _features(work: Path, out: Path, camera_model: str) -> str:
    """Photos of one size share a camera."""
    out.mkdir()
    groups: dict[tuple[int, int], list[str]] = {}
    for name, size in _sizes(work).items():
        groups.setdefault(size, []).append(name)
    median = sfm.extract_features(work / "photos", list(groups.values()), out / "features.db", camera_model)
    if not median:
        raise UserError(
            "most photos show nothing to hold on to (no features): they are too plain or too small"
        )
    return f"{median} per photo (median), {len(groups)} {camera_model} camera{'s' * (len(groups) > 1)}"


def _matches(work: Path, out: Path, matcher: sfm.Matcher) -> str:
    out.mkdir()
    shutil.copyfile(work / "features.db", out / "matches.db")
    pairs = sfm.image_pairs(list(_sizes(work)), matcher)
    return f"{sfm.match_features(out / 'matches.db', pairs)} of {len(pairs)} pairs fit together"


def _cameras(work: Path, out: Path) -> str:
    out.mkdir()
    found = sfm.reconstruct(work / "matches.db", work / "photos", out / "sparse", len(_sizes(work)))
    return (
        f"{found.registered} of {found.photos} photos placed, mean reprojection error {found.error:.2f} px, "
        f"{found.points} points seen by {found.track:.1f} photos each"
    )


def _images(work: Path, out: Path, photos: Sequence[Photo]) -> str:
    """Undistorted photos under their own names, in the common world frame."""
    scene = colmap.read(work, images="photos")
    sources = [photos[source_number(record.name)] for record in scene.records]
    files = [out / "undistorted" / f"{photo.name}{_suffix(photo.path)}" for photo in sources]
    scene = square_scene(scene, files)
    assert scene.points is not None
    tracks = {
        photo.name: scene.points.tracks[r.name] for r, photo in zip(scene.records, sources, strict=True)
    }
    records = [replace(r, name=photo.name) for r, photo in zip(scene.records, sources, strict=True)]
    scene = replace(scene, records=records, points=replace(scene.points, tracks=tracks))
    scene = move_scene(scene, world_frame(scene))
    colmap.write(scene, out)
    focals = sorted({round(float(record.camera.K[0, 0]), 1) for record in scene.records})
    return f"{len(scene)} photos undistorted, focal length {', '.join(map(str, focals))} px"


def _suffix(path: Path) -> str:
    return ".png" if path.suffix.lower() in _LOSSLESS else ".jpg"


def _depth(root: Path, out: Path, long_side: int, device: torch.device) -> str:
    scene = colmap.read(root)
    views = dense.small_views(scene, long_side, device)
    dense.write_depths(scene, views, out / "depth")
    first = views[0].cameras
    return f"{len(views)} depth maps, {first.width}x{first.height}"


def _mesh(root: Path, out: Path, long_side: int) -> str:
    scene = colmap.read(root)
    views = dense.small_views(scene, long_side, torch.device("cpu"))
    views = dense.checked_depths(scene, views, root / "work" / "depth")
    trusted = torch.stack([(view.depth > 0).double().mean() for view in views if view.depth is not None])
    mesh = dense.fuse(views)
    write_mesh(mesh, out / "mesh.ply")
    covered = dense.coverage(mesh, [view.cameras for view in views])
    return (
        f"{len(mesh.faces)} triangles from the {trusted.mean():.1%} of the depths that agree; they cover "
        f"{covered.mean():.1%} of the pixels, {covered.min():.1%} of {scene.names[int(covered.argmin())]}"
    )
