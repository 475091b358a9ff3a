"""What every format needs: checked cameras, photos that fit them, and the files beside them."""

from __future__ import annotations

import json
import logging
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from common.cli import progress
from common.errors import UserError
from common.files import replacing
from dataloader.images import IMAGE_SUFFIXES, image_size, write_image
from dataloader.lenses import Lens, undistorted_camera
from dataloader.scene import ImageSize, Record, Scene, SparsePoints
from geometry.cameras import Cameras

logger = logging.getLogger(__name__)

ORTHONORMAL_TOLERANCE = 1e-3  # of R R^T - I; files with four digits still pass
CENTER_TOLERANCE = 1e-4  # pixels
BOUNDS_PERCENTILES = (0.1, 99.9)  # of the depths of the points a photo observes
PLANES = 192  # depth planes of a two-number MVSNet depth line


def read_text(path: Path) -> str:
    """The text of a small file. Raises UserError when it is missing or not text."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({getattr(error, 'strerror', None) or error})") from None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises UserError when the file is missing, malformed or holds something else."""
    try:
        value = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not valid JSON (line {error.lineno}: {error.msg}): mend it") from None
    if not isinstance(value, dict):
        raise UserError(f"{path} must hold a JSON object, it holds a {type(value).__name__}")
    return value


def write_json(value: Any, path: Path) -> None:
    """Write indented JSON."""
    with replacing(path) as partial:
        partial.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def checked_camera(K: NDArray[np.float64], c2w: NDArray[np.float64], size: ImageSize, source: str) -> Cameras:
    """A float64 camera from K [3, 3] and c2w [4, 4] (OpenCV axes).

    Raises UserError naming `source` unless all numbers are finite, the focal lengths positive and the pose a
    rotation and a translation.
    """
    if not (np.isfinite(K).all() and np.isfinite(c2w).all()):
        raise UserError(f"{source}: the camera holds NaN or infinite numbers: estimate its pose again")
    if K[0, 0] <= 0 or K[1, 1] <= 0 or not np.allclose(K[[1, 2, 2, 2], [0, 0, 1, 2]], [0, 0, 0, 1]):
        raise UserError(
            f"{source}: {K.tolist()} is not an intrinsic matrix [[fx, s, cx], [0, fy, cy], [0, 0, 1]]"
        )
    rotation = c2w[:3, :3]
    if np.abs(rotation @ rotation.T - np.eye(3)).max() > ORTHONORMAL_TOLERANCE:
        raise UserError(f"{source}: the pose is not a rotation and a translation: remove its scale or shear")
    if np.linalg.det(rotation) < 0:
        raise UserError(f"{source}: the pose mirrors the world (determinant -1): check its axes")
    if not np.allclose(c2w[3], [0, 0, 0, 1]):
        raise UserError(f"{source}: the last row of the pose is {c2w[3].tolist()}, it must be 0 0 0 1")
    return Cameras(torch.from_numpy(np.array(K)), torch.from_numpy(np.array(c2w)), *size)


def pinhole_matrix(fx: float, fy: float, cx: float, cy: float) -> NDArray[np.float64]:
    """The [3, 3] intrinsic matrix without skew."""
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], dtype=np.float64)


def fit_cameras(cameras: Sequence[Cameras], photos: Sequence[Path], rescale: bool) -> list[Cameras]:
    """Check that every photo is of its camera's size, from the file headers.

    rescale: the photos are a resized copy of those the cameras were made for; then x and y of each camera are
    scaled to its photo, which must be done alike for all photos of one camera size. Raises UserError.
    """
    fitted: list[Cameras] = []
    copies: dict[ImageSize, tuple[Path, ImageSize]] = {}  # first photo and its size, by size of the camera
    for camera, photo in zip(cameras, photos, strict=True):
        native, size = (camera.height, camera.width), image_size(photo)
        if size != native and not rescale:
            raise UserError(
                f"{photo} is {_text(size)}, its camera says {_text(native)}: {_remedy(photo, native)}"
            )
        first, expected = copies.setdefault(native, (photo, size))
        if size != expected:
            raise UserError(
                f"{photo} is {_text(size)}, but {first.name} of an equal camera is {_text(expected)}"
            )
        fitted.append(camera if size == native else camera.resize(*size))
    return fitted


def _text(size: ImageSize) -> str:
    return f"{size[1]}x{size[0]}"


def _remedy(photo: Path, native: ImageSize) -> str:
    with Image.open(photo) as image:
        stored = (image.height, image.width)
    if stored == native:
        return "its EXIF orientation turns it; remove that tag"
    return "resize one of them"


def same_cameras_same_sizes(cameras: Sequence[Cameras], photos: Sequence[Path]) -> None:
    """For formats whose cameras have no size (it was taken from the photo): intrinsics and sizes must agree.

    Raises UserError when photos of equal intrinsics differ in size, or a principal point lies outside its
    photo.
    """
    seen: dict[bytes, tuple[Path, ImageSize]] = {}
    for camera, photo in zip(cameras, photos, strict=True):
        size = (camera.height, camera.width)
        cx, cy = camera.K[0, 2].item(), camera.K[1, 2].item()
        if not (0 < cx < camera.width and 0 < cy < camera.height):
            raise UserError(
                f"{photo} is {_text(size)}, its camera has the principal point ({cx:g}, {cy:g}) outside it: "
                "the camera belongs to another image size; resize one of them"
            )
        first, expected = seen.setdefault(camera.K.numpy().tobytes(), (photo, size))
        if size != expected:
            raise UserError(
                f"{photo} is {_text(size)}, {first.name} with the same intrinsics is {_text(expected)}: "
                "resize one of them"
            )


def open_lens(
    camera: Cameras, radial: Sequence[float], tangential: Sequence[float], source: str
) -> tuple[Cameras, Lens | None]:
    """The pinhole camera of a photo after undistortion, and its lens; (camera, None) without distortion.

    radial: up to three coefficients (k1, k2, k3). tangential: up to two (p1, p2). Raises UserError naming
    `source` for numbers that are not finite, or distortion too strong for a pinhole camera.
    """
    k = (*map(float, radial), 0.0, 0.0, 0.0)[:3]
    p = (*map(float, tangential), 0.0, 0.0)[:2]
    if not np.isfinite([*k, *p]).all():
        raise UserError(f"{source}: the distortion holds NaN or infinite numbers: calibrate again")
    if not any(k) and not any(p):
        return camera, None
    lens = Lens(camera.K.numpy().copy(), (k[0], k[1], k[2]), (p[0], p[1]))
    return undistorted_camera(camera, lens, source), lens


def record_names(files: Sequence[str], source: str) -> list[str]:
    """Unique record names from photo paths: the file name without suffix, or where that is not unique, with
    the folders before it, joined by '_'.

    Raises UserError naming `source` when two photos still get the same name.
    """
    names = [PurePosixPath(file).stem for file in files]
    if len(set(names)) == len(names):
        return names
    names = [_joined(file) for file in files]
    first: dict[str, str] = {}
    for name, file in zip(names, files, strict=True):
        if first.get(name) == file:
            raise UserError(f"{source}: photo {file} is listed twice: remove one of its cameras")
        if name in first:
            raise UserError(f"{source}: photos {first[name]} and {file} have the same name: rename one")
        first[name] = file
    return names


def _joined(file: str) -> str:
    parts = PurePosixPath(file).with_suffix("").parts
    return "_".join(part for part in parts if part not in ("/", ".."))


def make_scene(root: Path, records: Sequence[Record], points: SparsePoints | None = None) -> Scene:
    """A scene of records sorted by name. Raises UserError when there are none."""
    if not records:
        raise UserError(f"{root} holds no posed photo")
    return Scene(root.resolve().name, sorted(records, key=lambda record: record.name), points)


def depth_bounds(points: SparsePoints, name: str, camera: Cameras) -> tuple[float, float] | None:
    """Near and far z-depth of the points a record observes (0.1 and 99.9 percentile); None without points."""
    rows = points.tracks.get(name, (np.empty(0, np.int64), None))[0]
    _, depth = camera.project(torch.from_numpy(points.xyz[rows]))
    depth = depth[depth > 0]
    if len(depth) == 0:
        return None
    near, far = np.percentile(depth.numpy(), BOUNDS_PERCENTILES)
    return float(near), float(far)


def read_split(root: Path, scene: Scene) -> None:
    """Take the splits of `root/split.json` ({'train': [file names], ...}) if there is one."""
    path = root / "split.json"
    if path.is_file():
        scene.splits = {
            str(name): indices_of(scene, files, f"{path}: {name!r}")
            for name, files in read_json(path).items()
        }


def indices_of(scene: Scene, files: Any, source: str) -> list[int]:
    """Record indices of a list of photo files (path, file name or record name), in its order."""
    if not isinstance(files, list) or not all(isinstance(file, str) for file in files):
        raise UserError(f"{source} must be a list of file names")
    known = {record.name: i for i, record in enumerate(scene.records)}
    photos = [record.image.name if isinstance(record.image, Path) else "" for record in scene.records]
    counts = Counter(photos)
    known |= {photo: i for i, photo in enumerate(photos) if counts[photo] == 1}
    indices = []
    for file in files:
        path = PurePosixPath(file)
        found = [known[key] for key in (file, _joined(file), path.name, path.stem) if key in known]
        if not found:
            raise UserError(f"{source} lists {file!r}, which is no photo of the scene: remove it")
        indices.append(found[0])
    return indices


def photo_at(path: Path) -> Path:
    """An image file by its path, whose suffix may be left out. Raises UserError when there is none."""
    if path.is_file():
        return path
    for suffix in sorted(IMAGE_SUFFIXES):
        if path.with_name(path.name + suffix).is_file():
            return path.with_name(path.name + suffix)
    raise UserError(f"{path} does not exist, but a camera names it: restore the photo or remove the camera")


def report_unposed(root: Path, images: str, used: Sequence[Path], source: Path) -> None:
    """Say in the log which photos of the folder have no camera (structure from motion leaves some out)."""
    folder, known = root / images, {photo.name for photo in used}
    there = folder.iterdir() if folder.is_dir() else []
    left = sorted(p.name for p in there if p.suffix.lower() in IMAGE_SUFFIXES and p.name not in known)
    if left:
        shown = ", ".join(left[:5]) + (", ..." if len(left) > 5 else "")
        logger.warning("%s has no camera for %d photos, which are left out: %s", source, len(left), shown)


def store(scene: Scene, root: Path) -> dict[str, str]:
    """Write what all formats share: `images/`, `split.json` and the mesh. Returns record name -> file name.

    Photo files are copied as they are; photos in memory or with lens distortion become PNG.
    """
    files = {}
    for record in progress(scene.records, "photos", unit="photo", leave=False):
        files[record.name] = _store_photo(record, root / "images")
    if scene.splits:
        splits = {name: [files[scene.names[i]] for i in rows] for name, rows in scene.splits.items()}
        write_json(splits, root / "split.json")
    if scene.mesh_path is not None:
        _copy(scene.mesh_path, root / scene.mesh_path.name)
    elif scene.surface is not None:
        from geometry.mesh_files import write_mesh

        write_mesh(scene.surface, root / "mesh.ply")
    return files


def _store_photo(record: Record, folder: Path) -> str:
    path = record.image
    if not isinstance(path, Path) or record.lens is not None:
        write_image(record.load(), folder / f"{record.name}.png")
        return f"{record.name}.png"
    record.load()  # a cut-off photo, or one of another size, is noticed here
    file = record.name + path.suffix
    _copy(path, folder / file)
    return file


def _copy(source: Path, target: Path) -> None:
    with replacing(target) as partial:
        shutil.copyfile(source, partial)


def not_stored(scene: Scene, *kept: str) -> list[str]:
    """What a format that stores only `kept` leaves out of this scene, as sentences for the user.

    kept: any of 'points', 'bounds', 'depth', 'time'.
    """
    records = scene.records
    has = {
        "points": ("sparse points are not stored", scene.points is not None),
        "bounds": ("near and far depths are not stored", any(r.bounds for r in records)),
        "depth": ("depth maps are not stored", any(r.depth is not None for r in records)),
        "time": ("time stamps are not stored", any(r.camera.time is not None for r in records)),
        "foreground": ("foreground masks are not stored", any(r.foreground is not None for r in records)),
    }
    said = [text for key, (text, present) in has.items() if present and key not in kept]
    if any(record.lens is not None for record in records):
        said.append("photos were undistorted and written as PNG")
    return said


def refuse_skew(camera: Cameras, name: str, format_name: str) -> None:
    """Raise UserError if the camera has skew, which the format cannot store."""
    if abs(camera.K[0, 1].item()) > CENTER_TOLERANCE:
        raise UserError(
            f"{name} has skew {camera.K[0, 1].item():g}, {format_name} stores none: use --to mvsnet"
        )
