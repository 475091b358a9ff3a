"""Folders per frame, as the mask-volume renderer reads them, from folders per camera (specs/mask_volume 4.3).

OUT/00000/images/000.jpg ...    (one per camera; images_640x360 where they were resized)
OUT/00000/poses_bounds.npy      (in every frame folder)
OUT/00000/qual_path.txt         (a camera path, in the first one only)
"""

from __future__ import annotations

import shutil
from pathlib import Path

from common.cli import progress
from common.errors import UserError
from dataloader.formats.llff import read_rows
from dataloader.images import resize_image
from dataloader.rig.folders import POSES
from dataloader.rig.prepare.folders import claim, completing, digest, in_order
from dataloader.rig.prepare.frames import RigFrames, read_frame, text_of, write_frame
from dataloader.scene import ImageSize

PATH = "qual_path.txt"


def write_frame_folders(
    rig: RigFrames, out: Path, start: int = 0, end: int | None = None, size: ImageSize | None = None
) -> int:
    """Write frames start ... end - 1 (None: all) of a rig with `poses_bounds.npy`. Returns the folders made.

    size: (height, width) to resize to (Lanczos, written as PNG); None copies the files as they are. Folders
    that are there are kept: a killed run continues. Raises UserError for one camera only, a range that is not
    there, another number of poses than cameras, and when `out` holds anything else.
    """
    poses = rig.root / POSES
    _check(rig, poses)
    end = len(rig) if end is None else end
    if not 0 <= start < end <= len(rig):
        raise UserError(f"--range {start} {end}: {rig.root} has frames 0 to {len(rig) - 1}; END is not taken")
    claim(out, {"made_by": "from-frames", "frames": rig.fingerprint(), "poses": digest(poses), "size": size})
    todo = [number for number in range(start, end) if not (out / f"{number:05d}").is_dir()]
    with progress(todo, "frames", len(todo), "frame") as bar:
        return sum(
            in_order(lambda number: _write_folder(rig, poses, out / f"{number:05d}", number, size), bar)
        )


def _check(rig: RigFrames, poses: Path) -> None:
    if len(rig.cameras) < 2:
        raise UserError(f"{rig.root} has one camera: a rig has 2 at least")
    rig.size  # noqa: B018 (raises where cameras differ)
    rows = read_rows(poses)
    if len(rows) != len(rig.cameras):
        raise UserError(
            f"{poses} has {len(rows)} rows for {len(rig.cameras)} cameras: estimate the poses again (rig.py "
            "calibrate)"
        )


def _write_folder(rig: RigFrames, poses: Path, folder: Path, number: int, size: ImageSize | None) -> bool:
    with completing(folder) as partial:
        images = partial / ("images" if size is None else f"images_{text_of(size)}")
        images.mkdir(exist_ok=True)
        for camera, (name, files) in enumerate(rig.cameras.items()):
            if size is None:
                shutil.copyfile(files[number], images / f"{camera:03d}{files[number].suffix.lower()}")
            else:
                frame = read_frame(files[number], rig.sizes[name])
                write_frame(resize_image(frame, size), images / f"{camera:03d}.png")
        shutil.copyfile(poses, partial / POSES)
    return True
