"""nerfstudio and Instant NGP `transforms.json`: camera-to-world matrices with OpenGL axes.

Intrinsics stand once for all frames or in each frame (`fl_x`, `fl_y`, `cx`, `cy`, `w`, `h`, or
`camera_angle_x`), with OpenCV distortion `k1 k2 k3 p1 p2`. `applied_transform` is undone, so that poses are
in the frame of the reconstruction they came from. Depth maps are in thousandths of a world unit.
"""

from __future__ import annotations

import math
from collections import ChainMap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import UserError
from common.files import replacing
from dataloader.formats.shared import (
    checked_camera,
    fit_cameras,
    indices_of,
    make_scene,
    not_stored,
    open_lens,
    photo_at,
    pinhole_matrix,
    read_json,
    record_names,
    refuse_skew,
    report_unposed,
    store,
    write_json,
)
from dataloader.images import DEPTH_SUFFIXES, image_size
from dataloader.scene import Record, Scene
from geometry.cameras import Cameras

_MODELS = {"PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV"}
_UNSUPPORTED = ("k4", "k5", "k6")
_DEPTH_UNIT = 1e-3  # world units per unit of a depth file
_SPLITS = ("train", "val", "test")


def read(root: Path, images: str = "images") -> Scene:
    """Read `root/transforms.json`.

    images: a folder other than 'images' replaces the folder of each `file_path`, and may hold resized copies.
    Raises UserError for malformed JSON, missing keys or photos, and cameras that are no pinhole with OpenCV
    distortion (fisheye, equirectangular).
    """
    path = root / "transforms.json"
    meta = read_json(path)
    frames = meta.get("frames")
    if not isinstance(frames, list) or not all(isinstance(f, dict) and "file_path" in f for f in frames):
        raise UserError(f"{path}: 'frames' must be a list of objects with 'file_path' and 'transform_matrix'")
    undo = _undo_transform(meta, path)
    photos = [_photo(root, str(frame["file_path"]), images) for frame in frames]
    settings = [ChainMap(frame, meta) for frame in frames]
    sources = [f"{path} ({photo.name})" for photo in photos]
    cameras = [
        _camera(values, photo, undo, source)
        for values, photo, source in zip(settings, photos, sources, strict=True)
    ]
    fitted = fit_cameras(cameras, photos, rescale=images != "images")
    names = record_names([str(frame["file_path"]) for frame in frames], str(path))
    records = [_record(root, *entry) for entry in zip(names, fitted, photos, settings, sources, strict=True)]
    scene = make_scene(root, records)
    scene.splits = _splits(scene, meta, path)
    for folder in sorted({photo.parent for photo in photos}):
        report_unposed(folder, ".", photos, path)
    return scene


def _photo(root: Path, file: str, images: str) -> Path:
    return photo_at(root / file if images == "images" else root / images / Path(file).name)


def _undo_transform(meta: Mapping[str, Any], path: Path) -> NDArray[np.float64]:
    """[4, 4] inverse of `applied_transform`; the identity where there is none."""
    if "applied_transform" not in meta:
        return np.eye(4)
    applied = np.eye(4)
    try:
        matrix = np.array(meta["applied_transform"], dtype=np.float64)
        applied[: len(matrix)] = matrix
        undo = np.asarray(np.linalg.inv(applied), dtype=np.float64)
    except (ValueError, TypeError, np.linalg.LinAlgError) as error:
        raise UserError(f"{path}: 'applied_transform' is no 3x4 matrix with an inverse ({error})") from None
    return undo


def _camera(values: Mapping[str, Any], photo: Path, undo: NDArray[np.float64], source: str) -> Cameras:
    """The camera as the file states it, before fitting and undistortion."""
    model = str(values.get("camera_model", "OPENCV"))
    if model not in _MODELS or values.get("is_fisheye"):
        raise UserError(
            f"{source}: camera model {'fisheye' if values.get('is_fisheye') else model} is no pinhole: "
            "undistort the photos with 'colmap image_undistorter' first"
        )
    try:
        opengl = np.array(values["transform_matrix"], dtype=np.float64)
    except (KeyError, ValueError, TypeError):
        raise UserError(f"{source}: 'transform_matrix' must be a 4x4 matrix of numbers") from None
    if opengl.shape not in ((4, 4), (3, 4)):
        raise UserError(f"{source}: 'transform_matrix' has shape {opengl.shape}, it must be 4x4")
    c2w = undo @ np.vstack([opengl[:3], opengl[3:] if len(opengl) == 4 else [[0, 0, 0, 1]]])
    K, size = _intrinsics(values, photo, source)
    return checked_camera(K, c2w * np.array([1, -1, -1, 1]), size, source)


def _intrinsics(
    values: Mapping[str, Any], photo: Path, source: str
) -> tuple[NDArray[np.float64], tuple[int, int]]:
    """K [3, 3] and (height, width); what the file leaves out follows from the photo's size and the angles."""
    height, width = image_size(photo) if not ("w" in values and "h" in values) else (0, 0)
    width = int(_number(values, "w", source, width))
    height = int(_number(values, "h", source, height))
    fx = _focal(values, "x", width, source)
    fy = _focal(values, "y", height, source)
    if fx is None:
        raise UserError(f"{source} has neither 'fl_x' nor 'camera_angle_x': add one")
    cx = _number(values, "cx", source, width / 2)
    cy = _number(values, "cy", source, height / 2)
    return pinhole_matrix(fx, fx if fy is None else fy, cx, cy), (height, width)


def _focal(values: Mapping[str, Any], axis: str, extent: int, source: str) -> float | None:
    if f"fl_{axis}" in values:
        return _number(values, f"fl_{axis}", source, 0)
    if f"camera_angle_{axis}" in values:
        angle = _number(values, f"camera_angle_{axis}", source, 0)
        if not 0 < angle < math.pi:
            raise UserError(f"{source}: camera_angle_{axis} is {angle}, it must lie between 0 and pi")
        return extent / 2 / math.tan(angle / 2)
    return None


def _number(values: Mapping[str, Any], key: str, source: str, default: float) -> float:
    value = values.get(key, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise UserError(f"{source}: {key!r} is {value!r}, it must be a finite number")
    return value


def _record(
    root: Path, name: str, camera: Cameras, photo: Path, values: Mapping[str, Any], source: str
) -> Record:
    beyond = [key for key in _UNSUPPORTED if _number(values, key, source, 0)]
    if beyond:
        raise UserError(
            f"{source}: distortion {beyond[0]} is not supported: undistort the photos with "
            "'colmap image_undistorter' first"
        )
    radial = [_number(values, key, source, 0) for key in ("k1", "k2", "k3")]
    tangential = [_number(values, key, source, 0) for key in ("p1", "p2")]
    pinhole, lens = open_lens(camera, radial, tangential, source)
    if "time" in values:
        import torch

        pinhole.time = torch.tensor(_number(values, "time", source, 0), dtype=torch.float64)
    record = Record(name, pinhole, photo, lens=lens)
    if "depth_file_path" in values:
        record.depth, record.depth_scale = _depth(root / str(values["depth_file_path"]), source)
        if lens is not None:
            raise UserError(
                f"{source}: a depth map of a distorted photo cannot be used: undistort both first"
            )
    return record


def _depth(path: Path, source: str) -> tuple[Path, float]:
    """A depth file and the scale of what `read_depth` returns (which takes PNG for thousandths itself)."""
    if not path.is_file() or path.suffix.lower() not in DEPTH_SUFFIXES:
        raise UserError(
            f"{source}: depth file {path} does not exist or is no depth map: remove 'depth_file_path'"
        )
    return path, 1.0 if path.suffix.lower() == ".png" else _DEPTH_UNIT


def _splits(scene: Scene, meta: Mapping[str, Any], path: Path) -> dict[str, list[int]]:
    """The file's lists; validation photos serve as test photos where it names none."""
    splits = {
        name: indices_of(scene, meta[f"{name}_filenames"], f"{path}: '{name}_filenames'")
        for name in _SPLITS
        if f"{name}_filenames" in meta
    }
    if "val" in splits and "test" not in splits:
        splits["test"] = splits["val"]
    return splits


def write(scene: Scene, root: Path) -> list[str]:
    """Write `images/`, `transforms.json`, and depth maps to `depth/`. Returns what the format cannot hold.

    Raises UserError for a camera with skew.
    """
    for record in scene.records:
        refuse_skew(record.camera, record.name, "transforms.json")
    files = store(scene, root)
    intrinsics = [_intrinsic_keys(record.camera) for record in scene.records]
    shared = all(values == intrinsics[0] for values in intrinsics)
    meta: dict[str, Any] = {"camera_model": "PINHOLE", **(intrinsics[0] if shared else {})}
    for name in _SPLITS:
        if name in scene.splits:
            rows = scene.splits[name]
            meta[f"{name}_filenames"] = [f"images/{files[scene.names[i]]}" for i in rows]
    meta["frames"] = [
        {**_frame(record, files[record.name], root), **({} if shared else values)}
        for record, values in zip(scene.records, intrinsics, strict=True)
    ]
    write_json(meta, root / "transforms.json")
    return not_stored(scene, "depth", "time")


def _intrinsic_keys(camera: Cameras) -> dict[str, float]:
    (fx, _, cx), (_, fy, cy) = camera.K[:2].tolist()
    return {"w": camera.width, "h": camera.height, "fl_x": fx, "fl_y": fy, "cx": cx, "cy": cy}


def _frame(record: Record, file: str, root: Path) -> dict[str, Any]:
    opengl = record.camera.c2w.numpy() * np.array([1, -1, -1, 1])
    frame: dict[str, Any] = {"file_path": f"images/{file}", "transform_matrix": opengl.tolist()}
    if record.camera.time is not None:
        frame["time"] = record.camera.time.item()
    depth = record.load_depth()
    if depth is not None:
        frame["depth_file_path"] = f"depth/{record.name}.npy"
        with replacing(root / "depth" / f"{record.name}.npy") as partial, partial.open("wb") as stream:
            np.save(stream, depth / np.float32(_DEPTH_UNIT))
    return frame
