"""COLMAP sparse models (`sparse/0` or `sparse`, binary or text) with their photos.

COLMAP's cameras are ours: world-to-camera poses with OpenCV axes, pixels counted from the image's corner.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from common.errors import UserError
from dataloader.formats.colmap_model import Model, ModelCamera, ModelImage, read_model, write_model
from dataloader.formats.shared import (
    checked_camera,
    depth_bounds,
    fit_cameras,
    make_scene,
    not_stored,
    open_lens,
    photo_at,
    pinhole_matrix,
    record_names,
    refuse_skew,
    report_unposed,
    store,
)
from dataloader.scene import Record, Scene, SparsePoints
from geometry.cameras import Cameras
from geometry.poses import matrix_from_quaternion, quaternion_from_matrix


def read(root: Path, images: str = "images") -> Scene:
    """Read the model of `root` and the photos of `root/images`; the points come along with their tracks.

    images: a folder other than 'images' may hold resized copies. Distorted photos get a lens, which
    `Record.load` removes. Raises UserError for cut-off or malformed files, photos that are missing or of
    another size, and camera models that are no pinhole with OpenCV distortion.
    """
    folder = model_folder(root)
    model = read_model(folder)
    entries = sorted(model.images.values(), key=lambda image: image.name)
    photos = [photo_at(root / images / image.name) for image in entries]
    native = [_camera(model, image, folder) for image in entries]
    fitted = fit_cameras(native, photos, rescale=images != "images")
    names = record_names([image.name for image in entries], str(folder))
    points = _points(model, folder)
    records = []
    for image, name, photo, before, camera in zip(entries, names, photos, native, fitted, strict=True):
        radial, tangential = _distortion(model.cameras[image.camera_id])
        pinhole, lens = open_lens(camera, radial, tangential, f"{folder} camera {image.camera_id}")
        xy = image.xy * (camera.width / before.width, camera.height / before.height)
        if lens is not None:
            xy = lens.undistort(xy) @ pinhole.K[:2, :2].numpy().T + pinhole.K[:2, 2].numpy()
        points.tracks[name] = _track(model, image, xy, folder)
        records.append(Record(name, pinhole, photo, lens=lens, bounds=depth_bounds(points, name, pinhole)))
    report_unposed(root, images, photos, folder)
    return make_scene(root, records, points if len(points.xyz) else None)


def model_folder(root: Path) -> Path:
    """`sparse/0` or `sparse`, whichever holds cameras. Raises UserError when neither does."""
    for folder in (root / "sparse" / "0", root / "sparse"):
        if any(folder.glob("cameras.*")):
            return folder
    raise UserError(f"{root} has no sparse/0/cameras.bin or sparse/cameras.bin: this is no COLMAP scene")


def _camera(model: Model, image: ModelImage, folder: Path) -> Cameras:
    """The camera as the model states it, before fitting and undistortion."""
    source = f"{folder} ({image.name})"
    if image.camera_id not in model.cameras:
        raise UserError(f"{source}: camera {image.camera_id} is missing from the model: make the model again")
    camera = model.cameras[image.camera_id]
    if camera.model in ("PINHOLE", "OPENCV"):
        fx, fy, cx, cy = camera.params[:4]
    else:
        fx, cx, cy = camera.params[:3]
        fy = fx
    c2w = _pose(image.qvec, image.tvec, source)
    return checked_camera(pinhole_matrix(fx, fy, cx, cy), c2w, (camera.height, camera.width), source)


def _distortion(camera: ModelCamera) -> tuple[list[float], list[float]]:
    """Radial and tangential coefficients of a model camera."""
    if camera.model == "OPENCV":
        return camera.params[4:6], camera.params[6:8]
    return (camera.params[3:], []) if camera.model in ("SIMPLE_RADIAL", "RADIAL") else ([], [])


def _pose(qvec: NDArray[np.float64], tvec: NDArray[np.float64], source: str) -> NDArray[np.float64]:
    """c2w [4, 4] from a quaternion (w, x, y, z) and a translation, world to camera."""
    if not (np.isfinite(qvec).all() and np.isfinite(tvec).all() and np.linalg.norm(qvec) > 0):
        raise UserError(f"{source}: the pose holds NaN, infinite numbers or no rotation: estimate it again")
    c2w = np.eye(4)
    c2w[:3, :3] = matrix_from_quaternion(torch.from_numpy(qvec)).T.numpy()
    c2w[:3, 3] = -c2w[:3, :3] @ tvec
    return c2w


def _points(model: Model, folder: Path) -> SparsePoints:
    if not np.isfinite(model.xyz).all():
        raise UserError(f"{folder}: a point is NaN or infinite: make the model again")
    return SparsePoints(model.xyz, model.rgb, model.error)


def _track(
    model: Model, image: ModelImage, xy: NDArray[np.float64], folder: Path
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Rows of the points a photo observes, and where."""
    seen = image.point_ids >= 0
    wanted = image.point_ids[seen]
    rows = np.searchsorted(model.point_ids, wanted)
    known = rows < len(model.point_ids)
    if not known.all() or (model.point_ids[rows] != wanted).any():
        raise UserError(
            f"{folder} ({image.name}): the photo observes a point that points3D lacks: make it again"
        )
    return rows, xy[seen]


def write(scene: Scene, root: Path) -> list[str]:
    """Write `images/` and a binary model in `sparse/0`. Returns what the format cannot hold.

    Raises UserError for a camera with skew.
    """
    for record in scene.records:
        refuse_skew(record.camera, record.name, "COLMAP")
    files = store(scene, root)
    points = scene.points or SparsePoints(np.empty((0, 3)), np.empty((0, 3), np.uint8), np.empty(0))
    cameras: dict[tuple, int] = {}
    images = {}
    for number, record in enumerate(scene.records, start=1):
        key = (record.camera.width, record.camera.height, *_params(record.camera))
        camera_id = cameras.setdefault(key, len(cameras) + 1)
        images[number] = _image(record, files[record.name], camera_id, points)
    write_model(
        Model(
            {
                number: ModelCamera("PINHOLE", key[0], key[1], list(key[2:]))
                for key, number in cameras.items()
            },
            images,
            np.arange(1, len(points.xyz) + 1),
            points.xyz,
            points.rgb,
            points.error,
        ),
        root / "sparse" / "0",
    )
    # with points, near and far are found again when the model is read
    return not_stored(scene, "points", *(["bounds"] if scene.points else []))


def _params(camera: Cameras) -> tuple[float, ...]:
    (fx, _, cx), (_, fy, cy) = camera.K[:2].tolist()
    return fx, fy, cx, cy


def _image(record: Record, file: str, camera_id: int, points: SparsePoints) -> ModelImage:
    w2c = torch.linalg.inv(record.camera.c2w)
    rows, xy = points.tracks.get(record.name, (np.empty(0, np.int64), np.empty((0, 2))))
    qvec = quaternion_from_matrix(w2c[:3, :3])
    return ModelImage(file, camera_id, qvec.numpy(), w2c[:3, 3].numpy(), xy, rows + 1)
