"""MVSNet camera texts: `images*/NAME.*` with `cams*/NAME_cam.txt` (specs/hash_manifold 3, 4.2).

A text holds the word `extrinsic`, a 4x4 world-to-camera matrix (OpenCV axes), the word `intrinsic`, a 3x3
matrix in pixels (corner origin), and optionally a depth line: `near interval`, `near interval planes` or
`near interval planes far`. `pair.txt` names each photo's best partners; it is written, never read.
"""

from __future__ import annotations

import glob
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.errors import UserError
from common.files import replacing
from dataloader.formats.mvsnet_ranges import DepthLine, depth_line, format_pairs, pair_scores
from dataloader.formats.shared import (
    PLANES,
    checked_camera,
    fit_cameras,
    logger,
    make_scene,
    not_stored,
    read_text,
    record_names,
    same_cameras_same_sizes,
    store,
)
from dataloader.images import image_size, list_images
from dataloader.scene import Record, Scene
from geometry.cameras import Cameras


def parse_camera(text: str, source: str) -> tuple[NDArray[np.float64], NDArray[np.float64], list[float]]:
    """Parse a camera text, whatever its white space.

    Returns K [3, 3] in pixels, w2c [4, 4], and the numbers of the depth line (none to four). Raises UserError
    naming `source` when the text is cut off or holds anything but finite numbers.
    """
    words = text.split()
    if len(words) < 27 or words[0].lower() != "extrinsic" or words[17].lower() != "intrinsic":
        raise UserError(
            f"{source} is not a whole MVSNet camera ('extrinsic', 16 numbers, 'intrinsic', 9 numbers): "
            "write it anew"
        )
    try:
        numbers = np.array([float(word) for word in words[1:17] + words[18:]])
    except ValueError as error:
        raise UserError(f"{source} is not an MVSNet camera ({error}): write it anew") from None
    if not np.isfinite(numbers).all():
        raise UserError(f"{source} holds NaN or infinite numbers: estimate its pose again")
    return numbers[16:25].reshape(3, 3), numbers[:16].reshape(4, 4), numbers[25:].tolist()


def read(root: Path, images: str = "images") -> Scene:
    """Read `root/images` with `root/cams`, or `images_4` with `cams_4`.

    Where a resized photo folder has no camera folder of its own, `cams` is scaled to it. Raises UserError
    when a photo has no camera, or a camera cannot belong to its photo.
    """
    photos = list_images(root / images)
    folder, own = _camera_folder(root, images)
    texts = [_camera_file(folder, photo) for photo in photos]
    _report_unused(folder, texts)
    cameras, bounds = [], []
    for photo, path in zip(photos, texts, strict=True):
        K, w2c, depth = parse_camera(read_text(path), str(path))
        size = image_size(photo) if own else image_size(_original(root, photo))
        cameras.append(checked_camera(K, _inverse(w2c, path), size, str(path)))
        bounds.append(_bounds(depth))
    same_cameras_same_sizes(cameras, photos)
    cameras = fit_cameras(cameras, photos, rescale=not own)
    names = record_names([photo.name for photo in photos], str(root / images))
    records = [
        Record(name, camera, photo, bounds=near_far)
        for name, camera, photo, near_far in zip(names, cameras, photos, bounds, strict=True)
    ]
    return make_scene(root, records)


def _camera_folder(root: Path, images: str) -> tuple[Path, bool]:
    """The folder of camera texts, and whether they were made for exactly this photo folder."""
    own = root / images.replace("images", "cams", 1)
    if images.startswith("images") and own.is_dir():
        return own, True
    if (root / "cams").is_dir():
        return root / "cams", False
    raise UserError(f"{root} has no folder 'cams': this is no MVSNet scene")


def _camera_file(folder: Path, photo: Path) -> Path:
    """NAME_cam.txt, where NAME is the photo's name without suffix, or up to its first dot."""
    for name in (photo.stem, photo.name.split(".")[0]):
        if (folder / f"{name}_cam.txt").is_file():
            return folder / f"{name}_cam.txt"
    raise UserError(f"{photo} has no camera: add {folder / (photo.stem + '_cam.txt')}, or remove the photo")


def _report_unused(folder: Path, used: list[Path]) -> None:
    unused = sorted({path.name for path in folder.glob("*_cam.txt")} - {path.name for path in used})
    if unused:
        logger.warning("%s: %d cameras have no photo, the first is %s", folder, len(unused), unused[0])


def _original(root: Path, photo: Path) -> Path:
    """The photo of the same name in `images`, whose size `cams` are for; `photo` itself without one."""
    return next(iter(sorted((root / "images").glob(f"{glob.escape(photo.stem)}.*"))), photo)


def _inverse(w2c: NDArray[np.float64], source: Path) -> NDArray[np.float64]:
    try:
        return np.asarray(np.linalg.inv(w2c), dtype=np.float64)
    except np.linalg.LinAlgError:
        raise UserError(
            f"{source}: the extrinsic matrix cannot be inverted: estimate the pose again"
        ) from None


def _bounds(depth: list[float]) -> tuple[float, float] | None:
    """Near and far from a depth line; None when it has none or they make no range."""
    if len(depth) < 2:
        return None
    near, interval = depth[:2]
    planes = depth[2] if len(depth) > 2 else PLANES
    far = depth[3] if len(depth) > 3 else near + (planes - 1) * interval
    return (near, far) if 0 < near < far else None


def write(scene: Scene, root: Path) -> list[str]:
    """Write `images/` and `cams/`, and where photos observe points, `pair.txt`. Returns what the format
    cannot hold.

    Depth lines follow from the observed points where there are some, else from the records' bounds.
    """
    store(scene, root)
    for record in scene.records:
        line = None if scene.points is None else depth_line(scene.points, record.name, record.camera)
        with replacing(root / "cams" / f"{record.name}_cam.txt") as partial:
            partial.write_text(format_camera(record.camera, line or _evenly(record.bounds)))
    if scene.points is not None and scene.points.tracks:
        with replacing(root / "pair.txt") as partial:
            partial.write_text(format_pairs(pair_scores(scene.records, scene.points)))
    return not_stored(scene, "bounds")


def _evenly(bounds: tuple[float, float] | None) -> DepthLine | None:
    """192 planes between near and far."""
    if bounds is None:
        return None
    near, far = bounds
    return near, (far - near) / (PLANES - 1), PLANES, far


def format_camera(camera: Cameras, depth: DepthLine | None) -> str:
    """The text of one camera, with all digits; depth: the numbers of its depth line, if it gets one."""
    lines = ["extrinsic", *_rows(camera.w2c.numpy()), "", "intrinsic", *_rows(camera.K.numpy())]
    if depth is not None:
        lines += ["", " ".join(repr(value) for value in depth)]
    return "\n".join(lines) + "\n"


def _rows(matrix: NDArray[np.float64]) -> list[str]:
    return [" ".join(repr(float(value)) for value in row) for row in matrix]
