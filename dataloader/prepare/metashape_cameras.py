"""Metashape's camera XML and undistorted photos to MVSNet folders (specs/hash_manifold 4.4)."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.cli import progress
from common.errors import UserError
from dataloader.formats.metashape import name_some, read_cameras
from dataloader.formats.mvsnet import format_camera
from dataloader.images import list_images, read_image, write_image
from geometry.cameras import Cameras


@dataclass(frozen=True)
class Converted:
    """What `convert` wrote: photos and camera texts, in these two folders."""

    count: int
    images: Path
    cams: Path


def convert(
    root: Path,
    out: Path,
    dsp_factor: int = 1,
    key: str = "",
    apply_transform: bool = False,
    xml: str = "cams.xml",
    images: str = "images",
) -> Converted:
    """Write `out/cams_D/KEYLABEL_cam.txt` and `out/images_D/KEYLABEL.*`, D = dsp_factor.

    The photos of root/images are reduced by area averaging to (width // D, height // D), and K by exactly
    that ratio; with D = 1 the files are copied. Photos keep their file type. Cameras without photo are named
    in the log. Raises UserError for a photo that is not of its sensor's size, for folders that exist, and
    when no camera has both pose and photo; then nothing is written.
    """
    cameras = read_cameras(root / xml, apply_transform)
    photos = _photos(root / images)
    pairs = [(camera, photos[camera.label]) for camera in cameras if camera.label in photos]
    absent = [camera.label for camera in cameras if camera.label not in photos]
    name_some(f"%s: %d cameras have no photo in {root / images} and are left out: %s", root / xml, absent)
    if not pairs:
        raise UserError(f"{root / xml}: no camera has both a pose and a photo in {root / images}")
    done = Converted(len(pairs), out / f"images_{dsp_factor}", out / f"cams_{dsp_factor}")
    with _new_folders(done.images, done.cams) as (image_folder, cams_folder):
        for camera, photo in progress(pairs, "photos", unit="photo", leave=False):
            name = key + camera.label.removesuffix(photo.suffix)
            small = _write_photo(photo, image_folder / (name + photo.suffix), camera.camera, dsp_factor)
            (cams_folder / f"{name}_cam.txt").write_text(format_camera(small, None))
    return done


@contextmanager
def _new_folders(*folders: Path) -> Iterator[list[Path]]:
    """Temporary folders that get these names when the block ends well, and vanish when it does not."""
    partial = [folder.with_name(f".{folder.name}.{os.getpid()}.tmp") for folder in folders]
    for folder in folders:
        if folder.exists():
            raise UserError(f"{folder} exists: delete it, or choose another OUT")
    try:
        for folder in partial:
            folder.mkdir(parents=True)
        yield partial
        for temporary, folder in zip(partial, folders, strict=True):
            os.replace(temporary, folder)
    except OSError as error:
        raise UserError(f"cannot write {folders[0].parent} ({error.strerror or error})") from None
    finally:
        for folder in partial:
            shutil.rmtree(folder, ignore_errors=True)


def _photos(folder: Path) -> dict[str, Path]:
    """Photo files by what may be a camera's label: the name with or without suffix."""
    files = list_images(folder)
    found = {path.stem: path for path in files} | {path.name: path for path in files}
    for path in files:
        if found[path.stem] != path and path.stem not in {other.name for other in files}:
            raise UserError(f"{folder} holds {path.name} and {found[path.stem].name}: remove one of them")
    return found


def _write_photo(photo: Path, target: Path, camera: Cameras, factor: int) -> Cameras:
    """Reduce one photo, and return the camera of the result."""
    image = read_image(photo)
    if image.shape[:2] != (camera.height, camera.width):
        raise UserError(
            f"{photo} is {image.shape[1]}x{image.shape[0]}, its sensor {camera.width}x{camera.height}: "
            "export the photos at full size"
        )
    if factor == 1:
        shutil.copyfile(photo, target)
        return camera
    size = (camera.height // factor, camera.width // factor)
    if not min(size):
        raise UserError(
            f"{photo} is {camera.width}x{camera.height}: dsp_factor {factor} leaves nothing of it"
        )
    import cv2

    reduced = cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_AREA)
    write_image(np.asarray(reduced, dtype=np.uint8), target)
    return camera.resize(*size)
