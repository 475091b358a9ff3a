"""Poses of a rig's cameras by structure from motion -> `poses_bounds.npy` (specs/mask_volume 4.1)."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from common.errors import UserError
from common.files import replacing
from dataloader.formats.colmap_model import Model, ModelCamera, ModelImage, read_model
from dataloader.formats.shared import read_json
from dataloader.prepare import sfm
from dataloader.prepare.stages import Stage, run_stages
from dataloader.rig.folders import POSES
from dataloader.rig.prepare.frames import RigFrames, per_camera
from dataloader.rig.prepare.still_cameras import merge_photos
from dataloader.rig.prepare.undistort import INTRINSICS
from geometry.poses import llff_from_pose, matrix_from_quaternion

WORK = "calibration"  # folder beside the cameras' folders in which the stages work
_PERCENTILES = (1.0, 99.9)  # of the depths of the points that a camera sees: near and far
_MODELS = ("SIMPLE_PINHOLE", "PINHOLE")
_INIT_ANGLE, _MIN_ANGLE = 4.0, 0.5  # degrees: a rig's cameras stand close together


@dataclass(frozen=True)
class PoseOptions:
    """frames: places of the frames that are used. focal: known focal lengths in pixels, one or one per camera
    (none: those of `intrinsics.json`, else they are estimated). refine_focal: known ones may change.
    """

    frames: tuple[int, ...] = (0,)
    focal: tuple[float, ...] = ()
    refine_focal: bool = False

    def known_focals(self, rig: RigFrames) -> list[float] | None:
        """The focal length of each camera, where it is known."""
        if self.focal:
            return per_camera(self.focal, len(rig.cameras), "--focal")
        path = rig.root / INTRINSICS
        if not path.is_file():
            return None
        cameras = read_json(path)
        return [_focal(cameras.get(name), rig.sizes[name], f"{path}, {name}") for name in rig.names]


def _focal(camera: object, size: tuple[int, int], source: str) -> float:
    if not isinstance(camera, dict) or (camera.get("height"), camera.get("width")) != size:
        raise UserError(
            f"{source} is not of these frames ({size[1]}x{size[0]}): undistort them again, delete the file, "
            "or give --focal"
        )
    return float(camera["focal"])


def calibrate(rig: RigFrames, out: Path, options: PoseOptions) -> dict[str, str]:
    """Write `poses_bounds.npy` of a rig to `out`; the world has the unit and axes that come out.

    Works in stages in `ROOT/calibration`, so that a killed run continues. Returns stage name -> figure.
    Raises UserError for fewer than 3 cameras, when not all of them find their place, and when `out` holds
    poses that this did not make.
    """
    rig.size  # noqa: B018 (raises where cameras differ)
    if len(rig.cameras) < 3:
        raise UserError(f"{rig.root} has {len(rig.cameras)} cameras: poses are estimated from 3 or more")
    for frame in options.frames:
        if not 0 <= frame < len(rig):
            raise UserError(f"--frames {frame}: {rig.root} has frames 0 to {len(rig) - 1}")
    made = rig.root / WORK / POSES
    if out.exists() and not (made.is_file() and made.read_bytes() == out.read_bytes()):
        raise UserError(f"{out} exists and was not made by this command: delete it, or choose another --out")
    figures = run_stages(rig.root / WORK, _stages(rig, options), rig.fingerprint())
    with replacing(out) as partial:
        shutil.copyfile(made, partial)
    return figures


def _stages(rig: RigFrames, options: PoseOptions) -> list[Stage]:
    work = rig.root / WORK / "work"
    files = {name: [rig.cameras[name][frame] for frame in options.frames] for name in rig.names}
    names = {
        name: [f"{i}/{name}{path.suffix}" for i, path in enumerate(listed)] for name, listed in files.items()
    }
    focals = options.known_focals(rig)
    mapping = sfm.MappingOptions(focals is None or options.refine_focal, _INIT_ANGLE, _MIN_ANGLE)
    stored = [*names.values()]
    return [
        Stage("photos", {"frames": options.frames}, ("work/photos",),
              lambda out: _copy(files, names, out / "work/photos")),
        Stage("features", {"version": 1}, ("work/features.db",),
              lambda out: _features(work, out / "work", stored)),
        Stage("matches", {"version": 1}, ("work/matches.db",),
              lambda out: _matches(work, out / "work", stored)),
        Stage("merged", {"focals": focals}, ("work/merged.db",),
              lambda out: _merged(work, out / "work", stored, focals)),
        Stage("cameras", asdict(mapping), ("work/sparse",),
              lambda out: _cameras(work, out / "work", rig, mapping)),
        Stage("poses", {"version": 1}, (POSES,), lambda out: _poses(work, out)),
    ]  # fmt: skip


def _copy(files: dict[str, list[Path]], names: dict[str, list[str]], folder: Path) -> str:
    for name, listed in files.items():
        for path, stored in zip(listed, names[name], strict=True):
            (folder / stored).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, folder / stored)
    return f"{len(next(iter(files.values())))} of each of {len(files)} cameras"


def _features(work: Path, out: Path, names: Sequence[Sequence[str]]) -> str:
    out.mkdir()
    photos = [[name] for camera in names for name in camera]
    median = sfm.extract_features(work / "photos", photos, out / "features.db", "SIMPLE_PINHOLE")
    if not median:
        raise UserError(
            "most frames show nothing to hold on to (no features): they are too plain or too small"
        )
    return f"{median} per photo (median)"


def _matches(work: Path, out: Path, names: Sequence[Sequence[str]]) -> str:
    out.mkdir()
    shutil.copyfile(work / "features.db", out / "matches.db")
    pairs = [pair for moment in zip(*names, strict=True) for pair in sfm.image_pairs(moment, "exhaustive")]
    return f"{sfm.match_features(out / 'matches.db', pairs)} of {len(pairs)} pairs of photos fit together"


def _merged(work: Path, out: Path, names: Sequence[Sequence[str]], focals: Sequence[float] | None) -> str:
    out.mkdir()
    fitting = merge_photos(
        work / "matches.db", out / "merged.db", work / "photos", names, "SIMPLE_PINHOLE", focals
    )
    known = "focal lengths are estimated" if focals is None else "focal lengths are known"
    return f"{fitting} of {len(names) * (len(names) - 1) // 2} pairs of cameras fit together, {known}"


def _cameras(work: Path, out: Path, rig: RigFrames, mapping: sfm.MappingOptions) -> str:
    out.mkdir()
    count = len(rig.cameras)
    found = sfm.reconstruct(work / "merged.db", work / "photos", out / "sparse", count, mapping)
    placed = {camera_name(image) for image in read_model(out / "sparse").images.values()}
    lost = [name for name in rig.names if name not in placed]
    if lost:
        raise UserError(
            f"no place was found for {', '.join(lost)} of {rig.root}: use more frames (--frames 0 30 60), "
            "film something with texture that neighbouring cameras share, or give --focal"
        )
    return (
        f"mean reprojection error {found.error:.2f} px, {found.points} points seen by {found.track:.1f} "
        "cameras each"
    )


def camera_name(image: ModelImage) -> str:
    """The camera that a model's photo is of."""
    return Path(image.name).stem


def _poses(work: Path, out: Path) -> str:
    rows = colmap_to_rows(read_model(work / "sparse"))
    with (out / POSES).open("wb") as file:
        np.save(file, rows)
    focals = rows[:, 14]
    return (
        f"focal lengths {focals.min():.1f} to {focals.max():.1f} px, near {rows[:, 15].min():.4g}, far "
        f"{rows[:, 16].max():.4g}"
    )


def colmap_to_rows(model: Model, llff_intrinsics: bool = False) -> NDArray[np.float64]:
    """`poses_bounds` rows [N, 17] of a COLMAP model, in the order of the photos' names.

    near and far are the 1st and 99.9th percentile of the z of the points that a photo observes.
    llff_intrinsics: all cameras get the size and focal length of the first, as LLFF writes them; each has its
    own otherwise. Raises UserError for a camera that is no pinhole, and for a photo without points.
    """
    first = next(iter(model.cameras.values()))
    images = sorted(model.images.values(), key=lambda image: image.name)
    return np.stack(
        [_row(model, image, first if llff_intrinsics else model.cameras[image.camera_id]) for image in images]
    )


def _row(model: Model, image: ModelImage, camera: ModelCamera) -> NDArray[np.float64]:
    if camera.model not in _MODELS:
        raise UserError(f"{image.name}: {camera.model} is no pinhole camera: undistort the frames first")
    rotation = matrix_from_quaternion(torch.from_numpy(image.qvec)).numpy()  # world to camera
    seen = np.isin(model.point_ids, image.point_ids)
    if not seen.any():
        raise UserError(f"{image.name} observes no point: near and far cannot be told")
    depth = model.xyz[seen] @ rotation[2] + image.tvec[2]
    c2w = np.eye(4)
    c2w[:3, :3], c2w[:3, 3] = rotation.T, -rotation.T @ image.tvec
    size = [camera.height, camera.width, camera.params[0]]
    matrix = np.column_stack([llff_from_pose(torch.from_numpy(c2w)).numpy(), size])
    return np.concatenate([matrix.ravel(), np.percentile(depth, _PERCENTILES)])
