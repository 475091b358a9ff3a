"""Clips in folders: a folder per camera, or a folder per frame (specs/mask_volume 4.2, 4.3).

    ROOT/cam00/00000.jpg ...  cam01/ ...  poses_bounds.npy       as filmed
    ROOT/00000/images/000.jpg ...  poses_bounds.npy              as rendered from: a folder per frame
    background/cam00.png ...  foreground/cam00/00000.png ...     in ROOT; of frame folders, beside ROOT too

Images of a folder are in the order that the original reads them in: PNG files first, then JPEG, each by
name. Cameras are counted in that order, in frames, plates, mattes and `poses_bounds.npy` alike. Photos may be
a resized copy of those that the poses were made for; x and y of the cameras are scaled to them, each by its
own factor.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.errors import UserError
from dataloader.formats import detect_formats
from dataloader.formats.llff import read_rows, row_bounds, row_camera
from dataloader.images import IMAGE_SUFFIXES, image_size
from dataloader.rig.clip import Clip
from geometry.cameras import Cameras

POSES = "poses_bounds.npy"
PLATES, MATTES = "background", "foreground"
_FRAME_FOLDER = re.compile(r"\d{3}")
_CAMERA_FOLDER = re.compile(r"cam[-_]?\d+")


def open_frames(
    root: Path, background: Path | None = None, start: int = 0, end: int = 0, images: str = "images"
) -> Clip:
    """Open a folder of camera folders, or of frame folders, or a `sceneNNN.h5`.

    background: folder of plates, one per camera; None takes the folder 'background' where there is one.
    start, end: the moments to take, as `Clip.cut`. images: name of the photo folders inside frame folders.
    Raises UserError for anything missing, and where counts or sizes do not agree.
    """
    root = Path(root)
    if root.suffix == ".h5":
        from dataloader.rig.archives import open_archive

        clip = open_archive(root)
    elif frame_folders(root):
        clip = _open_frame_folders(root, background, images)
    else:
        clip = _open_camera_folders(root, background)
    return clip.cut(start, end)


def is_clip(root: Path) -> bool:
    """Whether a folder looks like a clip in one of the two layouts, be its poses there or not."""
    if not root.is_dir():
        return False
    frames, cameras = frame_folders(root), camera_folders(root)
    if frames:
        posed = any((frame / POSES).is_file() for frame in frames)
        return posed or ((frames[0] / "images").is_dir() and not detect_formats(frames[0]))
    numbered = all(_CAMERA_FOLDER.fullmatch(camera.name) for camera in cameras)
    return bool(cameras) and (numbered or (root / POSES).is_file())


def frame_folders(root: Path) -> list[Path]:
    """The folders of a clip's frames: those whose names start with three digits, sorted."""
    return [path for path in _folders(root) if _FRAME_FOLDER.match(path.name)]


def camera_folders(root: Path) -> list[Path]:
    """The folders of a clip's cameras, sorted: their names start with 'cam' (not MVSNet's 'cams')."""
    folders = [path for path in _folders(root) if path.name.startswith("cam")]
    return [path for path in folders if not path.name.startswith("cams")]


def _folders(root: Path) -> list[Path]:
    if not root.is_dir():
        raise UserError(f"{root} is no folder: give a folder of frames or of cameras")
    return sorted(path for path in root.iterdir() if path.is_dir())


def ordered_images(folder: Path) -> list[Path]:
    """The images of a folder, PNG first, then JPEG, then others, each by name.

    Raises UserError where there is none.
    """
    ranks = {".png": 0, ".jpg": 1, ".jpeg": 1}
    found = [path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES]
    if not found:
        raise UserError(f"{folder} holds no image ({', '.join(sorted(IMAGE_SUFFIXES))})")
    return sorted(found, key=lambda path: (ranks.get(path.suffix.lower(), 2), path.name))


@dataclass
class _Footage:
    """The photos of a clip. names: of the cameras. moments: names of the frames. photos: [C][T]."""

    names: list[str]
    moments: list[str]
    photos: list[list[Path]]


def _open_camera_folders(root: Path, background: Path | None) -> Clip:
    folders = camera_folders(root)
    if not folders:
        raise UserError(
            f"{root} holds neither camera folders (cam00, cam01, ...) nor frame folders (00000, 00001, ...)"
        )
    photos = [ordered_images(folder) for folder in folders]
    moments = [path.stem for path in photos[0]]
    for folder, files in zip(folders, photos, strict=True):
        if len(files) != len(moments):
            raise UserError(
                f"{folder} holds {len(files)} frames, {folders[0]} {len(moments)}: a rig's cameras film "
                "together, give every camera the same frames"
            )
        for file, moment in zip(files, moments, strict=True):
            if file.stem != moment:
                raise UserError(f"{file} has no partner {moment} in {folders[0]}: name frames alike")
    footage = _Footage([folder.name for folder in folders], moments, photos)
    return _clip(root, footage, root / POSES, background, [root])


def _open_frame_folders(root: Path, background: Path | None, images: str) -> Clip:
    folders = frame_folders(root)
    listed = [_frame_images(folder / images) for folder in folders]
    names = [path.stem for path in listed[0]]
    for folder, files in zip(folders, listed, strict=True):
        if [path.stem for path in files] != names:
            raise UserError(
                f"{folder / images} holds {len(files)} images ({files[0].stem} ... {files[-1].stem}), "
                f"{folders[0] / images} {len(names)} ({names[0]} ... {names[-1]}): every frame needs one "
                "per camera"
            )
    _same_poses([folder / POSES for folder in folders])
    photos = [list(camera) for camera in zip(*listed, strict=True)]
    footage = _Footage(names, [folder.name for folder in folders], photos)
    return _clip(root, footage, folders[0] / POSES, background, [root, root.parent])


def _frame_images(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise UserError(f"{folder} does not exist: a frame folder holds its photos there (data.images)")
    return ordered_images(folder)


def _same_poses(files: Sequence[Path]) -> None:
    """Raise UserError where the pose files of frame folders, copies of one, differ: cameras then move."""
    first = read_rows(files[0])
    for file in files[1:]:
        if file.is_file() and not np.array_equal(read_rows(file), first):
            raise UserError(f"{file} differs from {files[0]}: the cameras of a rig must not move")


def _clip(
    root: Path, footage: _Footage, poses: Path, background: Path | None, beside: Sequence[Path]
) -> Clip:
    """Put a clip together. beside: the folders in which plates and mattes are looked for."""
    cameras, bounds = read_cameras(poses, [files[0] for files in footage.photos])
    if background is None:
        background = next((path / PLATES for path in beside if (path / PLATES).is_dir()), None)
    mattes = next((path / MATTES for path in beside if (path / MATTES).is_dir()), None)
    return Clip(
        root.resolve().name,
        footage.names,
        cameras,
        bounds,
        footage.photos,
        frames=_numbers(footage.moments),
        plates=None if background is None else _plates(background, footage.names),
        mattes=None if mattes is None else _mattes(mattes, footage),
    )


def read_cameras(poses: Path, photos: Sequence[Path]) -> tuple[list[Cameras], list[tuple[float, float]]]:
    """The cameras of a pose file, at the size of their photos, and near and far of each.

    photos: one per camera, in order. Raises UserError for a malformed file or another number of rows.
    """
    rows = read_rows(poses)
    if len(rows) != len(photos):
        raise UserError(
            f"{poses} has {len(rows)} rows for {len(photos)} cameras ({photos[0].parent} ...): there must "
            "be one per camera"
        )
    cameras = [
        row_camera(row, f"{poses} row {i}").resize(*image_size(photo))
        for i, (row, photo) in enumerate(zip(rows, photos, strict=True))
    ]
    return cameras, [row_bounds(row, f"{poses} row {i}") for i, row in enumerate(rows)]


def _numbers(moments: Sequence[str]) -> list[int]:
    """The frame numbers that names stand for; their places, from 0, where not all are different numbers."""
    numbers = [int(name) for name in moments if name.isdecimal()]
    return numbers if len(set(numbers)) == len(moments) else list(range(len(moments)))


def _plates(folder: Path, names: Sequence[str]) -> list[Path]:
    """The plates of cameras: by name where they are called as cameras are, else by order."""
    if not folder.is_dir():
        raise UserError(f"{folder} does not exist: give the folder of the background plates, one per camera")
    files = ordered_images(folder)
    _check_count(folder, len(files), names, "images")
    return _matched(files, names, folder)


def _matched(paths: Sequence[Path], names: Sequence[str], folder: Path) -> list[Path]:
    by_name = {path.stem: path for path in paths}
    known = [name for name in names if name in by_name]
    if not known:
        return list(paths)
    if len(known) < len(names):
        missing = next(name for name in names if name not in by_name)
        raise UserError(f"{folder} has {known[0]} but no {missing}: call its entries as the cameras are")
    return [by_name[name] for name in names]


def _check_count(folder: Path, found: int, names: Sequence[str], what: str) -> None:
    if found != len(names):
        raise UserError(
            f"{folder} holds {found} {what} for {len(names)} cameras: there must be one per camera"
        )


def _mattes(folder: Path, footage: _Footage) -> list[list[Path]]:
    """The matte of every camera and moment, in folders per camera, with the frames' names."""
    folders = _folders(folder)
    _check_count(folder, len(folders), footage.names, "folders")
    return [_camera_mattes(path, footage.moments) for path in _matched(folders, footage.names, folder)]


def _camera_mattes(folder: Path, moments: Sequence[str]) -> list[Path]:
    there = {path.stem: path for path in ordered_images(folder)}
    for moment in moments:
        if moment not in there:
            raise UserError(
                f"{folder} has no matte of frame {moment}: make mattes of all frames (scripts/rig.py mattes) "
                "or move the folder away"
            )
    return [there[moment] for moment in moments]
