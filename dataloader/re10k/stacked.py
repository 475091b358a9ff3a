"""Clips stacked in one HDF5 file, `WIDTHxHEIGHT.h5`, as a set of scenes (specs/mask_volume 4.4).

The file holds a data set per scene, named '0', '1', ..., [frames, height, width, 3] uint8. Files of ours
(`stack_h5`) hold the cameras too; those of the original have them in `int.npy` (normalised K per frame) and
`ext.npy` (w2c), and the scenes' names in `scenes.npy`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from common.errors import UserError
from dataloader.h5_images import H5Image, reading
from dataloader.re10k.examples import check_cameras, frame_name
from dataloader.re10k.object_lists import read_matrices, read_names
from dataloader.scene import ImageSize, Record, Scene
from geometry.cameras import Cameras

_NAME = re.compile(r"\d+x\d+\.h5")
_MAX_FOV = 180.0  # degrees; the original leaves no scene out

Matrices = list[NDArray[np.float64]]


class StackedScenes:
    """The scenes of a file, in the order of their numbers; photos are read one at a time.

    path: the file. Raises UserError when it is missing or malformed, or comes without cameras. A set may be
    sent to loader processes: each opens the file by itself.
    """

    chunk_sizes: Sequence[int] | None = None

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.name = str(path)
        with reading(self.path) as file:
            count = sum(name.isdecimal() for name in file)
            self._shapes = [_shape(file, str(i), self.path) for i in range(count)]
            keys = [file[str(i)].attrs.get("key", "") for i in range(count)]
            own = "K" in file and "w2c" in file
        if not count:
            raise UserError(f"{self.path} holds no scene: its data sets are called 0, 1, ...")
        self._lists = None if own else self._read_lists(count)
        self._keys = [str(key) for key in keys] if all(keys) else self._read_keys(count)

    def _read_lists(self, count: int) -> tuple[Matrices, Matrices]:
        """K and w2c per scene of the original's files."""
        folder = self.path.parent
        if not (folder / "int.npy").is_file():
            raise UserError(f"{self.path} holds no cameras (groups K, w2c), nor does int.npy beside it")
        lists = read_matrices(folder / "int.npy", (3, 3)), read_matrices(folder / "ext.npy", (4, 4))
        for name, matrices in zip(("int.npy", "ext.npy"), lists, strict=True):
            if len(matrices) != count:
                raise UserError(
                    f"{folder / name} is of {len(matrices)} scenes, {self.path.name} holds {count}: they "
                    "belong to different runs"
                )
        return lists

    def _read_keys(self, count: int) -> list[str]:
        path = self.path.with_name("scenes.npy")
        keys = read_names(path) if path.is_file() else [str(i) for i in range(count)]
        if len(keys) != count:
            raise UserError(f"{path} names {len(keys)} scenes, {self.path.name} holds {count}")
        return keys

    def __len__(self) -> int:
        return len(self._keys)

    def key(self, index: int) -> str:
        return self._keys[index]

    def scene(self, index: int) -> Scene:
        """Scene `index`. Raises UserError for cameras that are broken or not as many as photos."""
        source = f"{self.path}, scene {self._keys[index]}"
        frames, height, width = self._shapes[index]
        K, w2c = self._cameras(index)
        if K.shape != (frames, 3, 3) or w2c.shape != (frames, 4, 4):
            raise UserError(f"{source} has {frames} frames, its K are {K.shape}, its w2c {w2c.shape}")
        cameras = _cameras(K, w2c, (height, width), source)
        records = [
            Record(frame_name(i), cameras[i], H5Image(self.path, str(index), (i,))) for i in range(frames)
        ]
        return Scene(self._keys[index], records)

    def _cameras(self, index: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """Normalised K [frames, 3, 3] and w2c [frames, 4, 4] of a scene."""
        if self._lists is not None:
            return self._lists[0][index], self._lists[1][index]
        with reading(self.path) as file:
            return file["K"][str(index)][()], file["w2c"][str(index)][()]


def _shape(file: Any, name: str, path: Path) -> tuple[int, int, int]:
    """(frames, height, width) of a scene's data set. Raises UserError for one that holds no photos."""
    data = file[name]
    if len(data.shape) != 4 or data.shape[-1] != 3 or data.dtype != np.uint8 or not len(data):
        raise UserError(
            f"{path}: scene {name} is {data.dtype} {list(data.shape)}, it must be uint8 "
            "[frames, height, width, 3]"
        )
    return data.shape[:3]


def _cameras(K: NDArray[Any], w2c: NDArray[Any], size: ImageSize, source: str) -> Cameras:
    """[N] float64 cameras in pixels. Raises UserError for broken ones."""
    scale = torch.tensor([size[1], size[0], 1.0], dtype=torch.float64)
    poses = torch.from_numpy(np.asarray(w2c, np.float64))
    inverse, failed = torch.linalg.inv_ex(poses)
    if failed.any():
        raise UserError(f"{source}, frame {int(failed.argmax())}: the pose cannot be inverted")
    cameras = Cameras(torch.from_numpy(np.asarray(K, np.float64)) * scale[:, None], inverse, *size)
    check_cameras(cameras, source, _MAX_FOV)
    return cameras


def stacked_file(root: Path) -> Path | None:
    """The stack that a path is or that its folder holds; None where there is none.

    Raises UserError where there are several.
    """
    if root.is_file():
        return root if _NAME.fullmatch(root.name) else None
    found = sorted(path for path in root.glob("*.h5") if _NAME.fullmatch(path.name))
    if len(found) > 1:
        raise UserError(f"{root} holds {len(found)} stacks ({found[0].name}, ...): name one as data.root")
    return found[0] if found else None
