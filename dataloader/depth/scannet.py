"""ScanNet scans as the geometry benchmark reads them: .sens files unpacked, pairs of frames as depth tasks
(specs/scene_lifting 6.1).

A processed scan is a folder `scene0000_00/` with depth/N.png (16 bit, millimetres), color/N.jpg, pose/N.txt
(camera-to-world) and intrinsic/intrinsic_depth.txt, as the original's processing leaves it.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from common.errors import UserError
from common.files import replacing
from dataloader.depth.pairs import DepthProtocol, SkippedPair, make_task
from dataloader.depth.sens_files import SensFile, SensFrame, open_sens
from dataloader.depth.tasks import DepthTask
from dataloader.images import read_depth, read_image, resize_image, to_tensor
from geometry.cameras import Cameras
from geometry.views import Views

STEP, GAP = 50, 10  # frames between the starts of pairs, and between the frames of a pair
_BORDER = 15  # colours up to this (of 255) are taken for the photos' black borders
_JPEG_QUALITY = 95
_INTRINSIC = Path("intrinsic", "intrinsic_depth.txt")


@dataclass
class Unpacked:
    """What unpacking one scan did: frames written, and those that were there already."""

    made: int = 0
    present: int = 0


def find_sens(folder: Path) -> list[Path]:
    """The .sens files in a folder or in its scans' folders, sorted. Raises UserError when there is none."""
    found = sorted([*folder.glob("*.sens"), *folder.glob("*/*.sens")])
    if not found:
        raise UserError(f"{folder} holds no scan (SCENE/SCENE.sens): give the folder of the scans")
    return found


def unpack_scan(path: Path, folder: Path) -> Unpacked:
    """Write a .sens file's frames into a folder; complete frames there are left alone.

    Raises UserError, naming frame and byte, when the file is damaged; what came before it is kept.
    """
    done = Unpacked()
    with open_sens(path) as file:
        with replacing(folder / _INTRINSIC) as partial:
            np.savetxt(partial, file.header.depth_intrinsic, fmt="%.9g")
        for frame in file.frames():
            targets = frame_files(folder, str(frame.index))
            if all(target.is_file() for target in targets):
                done.present += 1
                continue
            _write_frame(file, frame, *targets)
            done.made += 1
    return done


def frame_files(folder: Path, frame: str) -> tuple[Path, Path, Path]:
    """Where a frame's photo, depth and pose lie in a processed scan."""
    return (
        folder / "color" / f"{frame}.jpg",
        folder / "depth" / f"{frame}.png",
        folder / "pose" / f"{frame}.txt",
    )


def _write_frame(file: SensFile, frame: SensFrame, color: Path, depth: Path, pose: Path) -> None:
    photo, map_ = file.photo(frame), _millimetres(file.depth(frame), file.header.depth_shift)
    with replacing(color) as partial:
        if file.header.color_kind == "jpeg":  # as it is: compressing it again would lose more
            partial.write_bytes(frame.color)
        else:
            Image.fromarray(photo).save(partial, format="JPEG", quality=_JPEG_QUALITY)
    with replacing(depth) as partial:
        Image.fromarray(map_).save(partial, format="PNG")
    with replacing(pose) as partial:
        np.savetxt(partial, frame.c2w, fmt="%.9g")


def _millimetres(depth: NDArray[np.uint16], shift: float) -> NDArray[np.uint16]:
    """Depth in 1 / shift metres as millimetres; farther than 65.5 m is unknown."""
    if shift == 1000:
        return depth
    scaled = (depth.astype(np.float64) * 1000 / shift).round()
    return np.where(scaled < 65536, scaled, 0).astype(np.uint16)


def scan_folders(root: Path, scenes: int) -> list[Path]:
    """The processed scans of the first so many scenes (every rescan counts), in natural order.

    Raises UserError when there is none.
    """
    wanted = re.compile(r"scene(\d{4})")
    numbered = [(path, wanted.search(path.name)) for path in root.iterdir()] if root.is_dir() else []
    found = [path for path, match in numbered if match and int(match[1]) < scenes and path.is_dir()]
    if not found:
        raise UserError(
            f"{root} holds no processed scan of scenes 0 to {scenes - 1} (scene0000_00/pose/N.txt): "
            "make them with python scripts/benchmark.py scannet-process"
        )
    return sorted(found, key=lambda path: natural_key(path.name))


def natural_key(text: str) -> list[tuple[int, str]]:
    """A sorting key by which 'frame 9' comes before 'frame 10'."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", text) if part]


@dataclass(frozen=True)
class ScannetScan:
    """A processed scan. estimate: photo (Views [1]) -> z-depth [1, 1, H, W] that stands in for the first
    frame's own depth; None: its own.
    """

    folder: Path
    protocol: DepthProtocol
    estimate: Callable[[Views], Tensor] | None = None

    @property
    def name(self) -> str:
        return self.folder.name

    def tasks(self) -> Iterator[DepthTask | SkippedPair]:
        """The pairs in order; those that lack a file or a pose are skipped, and say why.

        Raises UserError when the scan has no frames, or damaged ones.
        """
        frames = sorted((path.stem for path in (self.folder / "pose").glob("*.txt")), key=natural_key)
        if not frames:
            raise UserError(f"{self.folder} holds no pose/N.txt: unpack the scan again with scannet-process")
        intrinsic = read_matrix(self.folder / _INTRINSIC)
        for start in range(0, len(frames) - GAP, STEP):
            pair = frames[start], frames[start + GAP]
            name = f"{pair[0]}-{pair[1]}"
            lacking = next(
                (path for f in pair for path in frame_files(self.folder, f) if not path.is_file()), None
            )
            if lacking is not None:
                yield SkippedPair(self.name, name, f"{lacking} is missing")
                continue
            source, target = (self._frame(intrinsic, frame) for frame in pair)
            if not all(view.cameras.c2w.isfinite().all() for view in (source, target)):
                yield SkippedPair(self.name, name, "tracking was lost: a pose is not finite")
                continue
            yield scannet_task(source, target, self.protocol, self.name, name, self.estimate)

    def _frame(self, intrinsic: NDArray[np.float64], frame: str) -> Views:
        color_file, depth_file, pose_file = frame_files(self.folder, frame)
        depth = read_depth(depth_file)
        photo = read_image(color_file)
        size = depth.shape[0], depth.shape[1]
        if self.protocol.legacy:
            photo = np.asarray(Image.fromarray(photo).resize((size[1], size[0]), Image.Resampling.NEAREST))
        return scannet_view(resize_image(photo, size), depth, intrinsic, read_matrix(pose_file), frame)


def scannet_view(
    photo: NDArray[np.uint8],
    depth: NDArray[np.float32],
    intrinsic: NDArray[np.float64],
    c2w: NDArray[np.float64],
    name: str,
) -> Views:
    """A frame as Views [1]. photo: [H, W, 3]. depth: [H, W] metres, 0 = unknown. intrinsic, c2w: [4, 4]."""
    height, width = depth.shape
    camera = Cameras(
        torch.from_numpy(intrinsic[None, :3, :3]).double(),
        torch.from_numpy(c2w[None]).double(),
        height,
        width,
    )
    known = torch.from_numpy(np.ascontiguousarray(depth))[None, None]
    return Views(to_tensor(photo)[None], camera, known, (known > 0).float(), names=[name])


def scannet_task(
    source: Views,
    target: Views,
    protocol: DepthProtocol,
    scene: str,
    name: str,
    estimate: Callable[[Views], Tensor] | None = None,
) -> DepthTask:
    """The task of a pair of frames; pixels of the black border around the target's photo are not scored."""
    if estimate is not None:
        source = replace(source, depth=estimate(source), valid=None)
    lit = (target.images[0] * 255 > _BORDER + 0.5).all(0)
    return make_task(source, target, protocol, scene, name, scored=lit)


def read_matrix(path: Path) -> NDArray[np.float64]:
    """A 4x4 matrix from a text file. Raises UserError when it is missing or something else."""
    try:
        matrix = np.loadtxt(io.StringIO(path.read_text()), dtype=np.float64)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path} ({error}): unpack the scan again") from None
    if matrix.shape != (4, 4):
        raise UserError(f"{path} holds {matrix.shape}, not a 4x4 matrix: unpack the scan again")
    return matrix
