"""`sceneNNN.h5`: a clip's photos, cutouts and plates in one file, and its poses beside it.

`sceneNNN.h5` holds `rgb` uint8 [C, T, H, W, 3], `fg_rgb` [C, T, H, W, 4] (cutouts: colour, 0 where alpha is
0, and alpha) and `bg_rgb` [C, H, W, 3], lzf compressed, one image per chunk. `sceneNNN_pb.npy` holds the rows
of `poses_bounds.npy`, made for photos of any size: x and y are scaled to H and W, each by its own factor (the
original scales both as the widths go). Files of ours also name the cameras (attribute 'cameras') and the
moments (data set 'frames'). Source: specs/mask_volume 4.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.cli import progress
from common.errors import UserError
from common.files import replacing
from dataloader.formats.llff import camera_row, read_rows, row_bounds, row_camera
from dataloader.h5_images import H5Image, H5Images, reading
from dataloader.images import MatteSource, photo_pixels, read_cutout, resize_image
from dataloader.rig.clip import Clip
from dataloader.scene import ImageSize

_CHANNELS = {"rgb": 3, "fg_rgb": 4, "bg_rgb": 3}


def poses_path(path: Path) -> Path:
    """The pose file that belongs to an archive."""
    return path.with_name(f"{path.stem}_pb.npy")


@dataclass
class _Contents:
    """What an archive says of itself. shape: (C, T, H, W). held: names of the data sets that it has."""

    shape: tuple[int, int, int, int]
    held: set[str]
    names: list[str]
    frames: list[int]


def open_archive(path: Path) -> Clip:
    """Open an archive; its images are read one at a time, when they are asked for.

    Raises UserError when it or its pose file is missing or malformed, or they differ in their cameras.
    """
    path = Path(path)
    contents = _contents(path)
    count, moments, height, width = contents.shape
    poses = poses_path(path)
    rows = read_rows(poses)
    if len(rows) != count:
        raise UserError(f"{poses} has {len(rows)} rows for the {count} cameras of {path.name}")
    return Clip(
        path.stem,
        contents.names,
        [row_camera(row, f"{poses} row {i}").resize(height, width) for i, row in enumerate(rows)],
        [row_bounds(row, f"{poses} row {i}") for i, row in enumerate(rows)],
        _images(path, "rgb", count, moments),
        frames=contents.frames,
        plates=[H5Image(path, "bg_rgb", (i,)) for i in range(count)] if "bg_rgb" in contents.held else None,
        mattes=_images(path, "fg_rgb", count, moments) if "fg_rgb" in contents.held else None,
    )


def _images(path: Path, dataset: str, count: int, moments: int) -> Sequence[H5Images]:
    return [H5Images(path, dataset, (camera,), moments) for camera in range(count)]


def _contents(path: Path) -> _Contents:
    with reading(path) as file:
        held = {name for name in _CHANNELS if name in file}
        if "rgb" not in held:
            raise UserError(f"{path} has no data set 'rgb' [cameras, frames, height, width, 3]: pack it anew")
        shape = file["rgb"].shape
        for name in held:
            _check(path, name, file[name], shape)
        names = [str(name) for name in file.attrs.get("cameras", [])]
        frames = [int(number) for number in file["frames"][()]] if "frames" in file else []
    if len(names) != shape[0]:
        names = [f"cam{i:02d}" for i in range(shape[0])]
    return _Contents(shape[:4], held, names, frames if len(frames) == shape[1] else list(range(shape[1])))


def _check(path: Path, name: str, data: Any, rgb: tuple[int, ...]) -> None:
    """Raise UserError unless a data set is of bytes and of the shape that belongs to `rgb`."""
    expected = (rgb[0], *rgb[2:4]) if name == "bg_rgb" else rgb[:4]
    if data.dtype != np.uint8 or len(rgb) != 5 or data.shape != (*expected, _CHANNELS[name]):
        shape = " x ".join(map(str, (*expected, _CHANNELS[name])))
        raise UserError(
            f"{path}: {name} is {data.dtype} {list(data.shape)}, it must be uint8 "
            f"[{shape}] as 'rgb' has it: pack it anew"
        )


def write_archive(clip: Clip, path: Path, size: ImageSize | None = None) -> None:
    """Write an archive and its pose file, an image at a time; both are written whole or not at all.

    size: (height, width) to resize the images to (Lanczos); None keeps theirs. An archive of that name is
    replaced. Raises UserError when an image cannot be read, a camera does not fit a pose row
    (`formats.llff.write`), or the files cannot be written.
    """
    path = Path(path)
    size = size or clip.size
    cameras = zip(clip.cameras, clip.bounds, clip.names, strict=True)
    rows = np.stack([camera_row(*camera) for camera in cameras])
    with replacing(path) as partial:
        _write_images(clip, partial, size)
        with replacing(poses_path(path)) as poses, poses.open("wb") as file:
            np.save(file, rows)


def _write_images(clip: Clip, path: Path, size: ImageSize) -> None:
    import h5py

    count, moments = len(clip.cameras), len(clip)
    with h5py.File(path, "w") as file:
        file.attrs["cameras"] = clip.names
        file["frames"] = np.array(clip.frames, dtype=np.int64)
        rgb = _create(file, "rgb", (count, moments, *size))
        cutouts = None if clip.mattes is None else _create(file, "fg_rgb", (count, moments, *size))
        if clip.plates is not None:
            plates = _create(file, "bg_rgb", (count, *size))
            for camera, plate in enumerate(clip.plates):
                plates[camera] = resize_image(photo_pixels(plate), size)
        places = [(camera, moment) for camera in range(count) for moment in range(moments)]
        for camera, moment in progress(places, clip.name, len(places), "photo", leave=False):
            record = clip.record(camera, moment)
            photo = record.load()
            rgb[camera, moment] = resize_image(photo, size)
            if cutouts is not None and record.foreground is not None:
                cutouts[camera, moment] = _cutout(record.foreground, photo, record.source, size)


def _create(file: Any, name: str, leading: tuple[int, ...]) -> Any:
    """An empty data set of images, one per chunk."""
    image = (*leading[-2:], _CHANNELS[name])
    chunk = (*(1 for _ in leading[:-2]), *image)
    shape = (*leading[:-2], *image)
    return file.create_dataset(name, shape, np.uint8, chunks=chunk, compression="lzf", shuffle=True)


def _cutout(matte: MatteSource, photo: NDArray[np.uint8], source: str, size: ImageSize) -> NDArray[np.uint8]:
    """[H, W, 4]: what a matte cuts out of its photo; a matte without colours takes the photo's.

    Raises UserError where the two differ in size.
    """
    if isinstance(matte, np.ndarray):
        if matte.shape != photo.shape[:2]:
            raise UserError(
                f"{source} has a matte of {list(matte.shape)} pixels: make it of the photo's size"
            )
        cutout = np.dstack([photo, np.where(matte, 255, 0).astype(np.uint8)])
    else:
        cutout = read_cutout(matte) if isinstance(matte, Path) else matte.read()
    cutout = np.array(resize_image(cutout, size))
    cutout[cutout[..., 3] == 0] = 0
    return cutout
