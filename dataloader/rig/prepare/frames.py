"""A rig's frames before its cameras are known: FRAMES/cam00/00000.jpg ..., one folder per camera."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from common.cli import progress
from common.errors import UserError
from common.files import replacing
from dataloader.images import image_size, read_image
from dataloader.rig.folders import camera_folders, ordered_images
from dataloader.rig.prepare.folders import completing, in_order
from dataloader.scene import ImageSize


@dataclass(frozen=True)
class RigFrames:
    """Frame files per camera, both sorted by name. sizes: (height, width) of each camera's first frame."""

    root: Path
    cameras: dict[str, list[Path]]
    sizes: dict[str, ImageSize]

    def __len__(self) -> int:
        """Moments: frames per camera."""
        return len(next(iter(self.cameras.values())))

    @property
    def names(self) -> list[str]:
        return list(self.cameras)

    @property
    def size(self) -> ImageSize:
        """(height, width) of every camera. Raises UserError where they differ."""
        return one_size({str(self.root / name): size for name, size in self.sizes.items()})

    def fingerprint(self) -> str:
        """A digest of the frames' names and file sizes: what was made from them knows them again by it."""
        listed = [
            f"{name}/{path.name}:{path.stat().st_size}" for name in self.names for path in self.cameras[name]
        ]
        return hashlib.sha256("\n".join(listed).encode()).hexdigest()[:16]


def one_size(sizes: dict[str, ImageSize]) -> ImageSize:
    """The size that all cameras (by what messages call them) have. Raises UserError where they differ."""
    first, *others = sizes
    for name in others:
        if sizes[name] != sizes[first]:
            raise UserError(
                f"{name} is {text_of(sizes[name])}, {first} is {text_of(sizes[first])}: the cameras of a rig "
                "must have one size (rig.py undistort --size makes it so)"
            )
    return sizes[first]


def text_of(size: ImageSize) -> str:
    """(height, width) as people write it."""
    return f"{size[1]}x{size[0]}"


def open_rig(root: Path) -> RigFrames:
    """The camera folders of a rig.

    Raises UserError when there is none, one holds no frame, or their frames differ in number.
    """
    folders = camera_folders(root)
    if not folders:
        raise UserError(f"{root} holds no camera folder (cam00/, cam01/, ...): run rig.py from-videos first")
    cameras = {folder.name: _frames(folder) for folder in folders}
    check_counts({name: len(files) for name, files in cameras.items()}, str(root))
    return RigFrames(root, cameras, {name: image_size(files[0]) for name, files in cameras.items()})


def _frames(folder: Path) -> list[Path]:
    files = ordered_images(folder)
    stems = {path.stem: path for path in files}
    for path in files:
        if stems[path.stem] is not path:
            raise UserError(f"{folder} holds {path.name} and {stems[path.stem].name}: remove one of them")
    return files


def check_counts(counts: dict[str, int], source: str) -> None:
    """Raise UserError unless all cameras have as many frames; the message says how many each has."""
    if len(set(counts.values())) > 1:
        shortest = min(counts, key=lambda name: counts[name])
        listed = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise UserError(
            f"{source}: the cameras have different numbers of frames ({listed}): cut them to the "
            f"{counts[shortest]} of {shortest} (rig.py from-videos --shortest does)"
        )


def read_frame(path: Path, size: ImageSize) -> NDArray[np.uint8]:
    """[H, W, 3] uint8. Raises UserError when the file is unreadable or not of its camera's size."""
    frame = read_image(path)
    if frame.shape[:2] != size:
        raise UserError(
            f"{path} is {text_of((frame.shape[0], frame.shape[1]))}, its camera's first frame "
            f"{text_of(size)}: all frames of a camera must have one size"
        )
    return frame


def write_frame(image: NDArray[np.uint8], path: Path, quality: int = 95) -> None:
    """Write [H, W, 3 or 4] uint8 as PNG, or as JPEG of this quality without chroma subsampling."""
    with replacing(path) as partial:
        if path.suffix == ".png":
            Image.fromarray(image).save(partial, format="PNG", compress_level=4)
        else:
            Image.fromarray(image).save(partial, format="JPEG", quality=quality, subsampling=0)


def convert_frames(
    files: Sequence[Path],
    folder: Path,
    suffix: str,
    convert: Callable[[Path], NDArray[np.uint8]],
    quality: int = 95,
) -> int:
    """Write `convert(file)` of every file as `folder/STEM` + suffix, on several threads, with a progress bar.

    The folder appears when it is whole; one that is there is kept, and a killed run continues. Returns the
    number of images made now.
    """
    if folder.is_dir():
        return 0

    def write(path: Path) -> bool:
        target = partial / f"{path.stem}{suffix}"
        if target.exists():
            return False
        write_frame(convert(path), target, quality)
        return True

    with completing(folder) as partial, progress(files, folder.name, len(files), "frame") as bar:
        return sum(in_order(write, bar))


def per_camera(values: Sequence[float], count: int, flag: str) -> list[float]:
    """One value per camera: as many as given, or the same for all. Raises UserError for any other number."""
    if len(values) not in (1, count):
        raise UserError(f"{flag} has {len(values)} values for {count} cameras: give one, or one per camera")
    return list(values) * (count if len(values) == 1 else 1)
