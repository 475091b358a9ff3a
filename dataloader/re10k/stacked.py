"""Scenes of one HDF5 file of decoded frames: of `stack_h5`, or of the original (specs/mask_volume 4.4).

`WIDTHxHEIGHT.h5` holds a data set per scene, '0', '1', ..., [frames, height, width, 3] uint8. Cameras are in
its groups 'K' (over width and height) and 'w2c', or, in files of the original, beside it in `int.npy` and
`ext.npy`: object arrays, which are pickles; they are read without running anything.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.lib import format as npy

from common.errors import UserError
from dataloader.h5_images import H5Images, reading
from dataloader.re10k.examples import frame_name
from dataloader.scene import Record, Scene
from geometry.cameras import Cameras

_NAME = re.compile(r"(\d+)x(\d+)\.h5")
# All that arrays in an object array need, in the modules of old and new numpy.
_TRUSTED = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("_codecs", "encode"),
}


def stacked_file(folder: Path) -> Path | None:
    """The file of such scenes in a folder, None where there is none. Raises UserError for several."""
    files = sorted(path for path in folder.glob("*.h5") if _NAME.fullmatch(path.name))
    if len(files) > 1:
        raise UserError(f"{folder} holds {files[0].name} and {files[1].name}: keep the size that is wanted")
    return files[0] if files else None


class StackedScenes:
    """The scenes of a `WIDTHxHEIGHT.h5`. Frames are read one at a time, when they are asked for."""

    chunk_sizes: Sequence[int] | None = None

    def __init__(self, path: Path) -> None:
        self._path, self.name = path, str(path)
        with reading(path) as file:
            numbers = sorted(int(name) for name in file if name.isdecimal())
            own = "K" in file and "w2c" in file
            self._keys = [str(file[str(n)].attrs.get("key", n)) for n in numbers]
            self._shapes = [tuple(file[str(n)].shape) for n in numbers]
        if not numbers or numbers != list(range(len(numbers))):
            raise UserError(
                f"{path} holds no scenes '0', '1', ...: make it with scripts/re10k.py to-chunks --h5"
            )
        self._lists = None if own else [_read_list(path.with_name(name)) for name in ("int.npy", "ext.npy")]
        if self._lists is not None and any(len(values) != len(numbers) for values in self._lists):
            raise UserError(f"int.npy or ext.npy beside {path} is of another number of scenes: make all anew")

    def __len__(self) -> int:
        return len(self._keys)

    def key(self, index: int) -> str:
        return self._keys[index]

    def scene(self, index: int) -> Scene:
        """Scene `index`. Raises UserError where it cannot be read, or its cameras do not fit its frames."""
        count, height, width = self._shapes[index][:3]
        if self._lists is None:
            with reading(self._path) as file:
                K, w2c = (np.asarray(file[name][str(index)]) for name in ("K", "w2c"))
        else:
            K, w2c = (np.asarray(values[index], dtype=np.float64) for values in self._lists)
        source = f"{self._path}, scene {index}"
        if K.shape != (count, 3, 3) or w2c.shape != (count, 4, 4) or len(self._shapes[index]) != 4:
            raise UserError(f"{source} has {count} frames and cameras of the shape {K.shape}: make it anew")
        if not (np.isfinite(K).all() and np.isfinite(w2c).all()):
            raise UserError(f"{source} has cameras that are not finite: make it anew")
        cameras = _cameras(K, w2c, height, width)
        photos = H5Images(self._path, str(index), (), count)
        return Scene(self._keys[index], [Record(frame_name(i), cameras[i], photos[i]) for i in range(count)])


def _cameras(K: Any, w2c: Any, height: int, width: int) -> Cameras:
    """[N] float64 cameras in pixels of normalised intrinsics [N, 3, 3] and poses [N, 4, 4]."""
    scale = torch.tensor([[width], [height], [1.0]], dtype=torch.float64)
    poses = torch.linalg.inv(torch.from_numpy(np.asarray(w2c, dtype=np.float64)))
    return Cameras(torch.from_numpy(np.asarray(K, dtype=np.float64)) * scale, poses, height, width)


class _ArrayUnpickler(pickle.Unpickler):
    """Loads arrays of numbers and lists of them, nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _TRUSTED:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} is no array")


def _read_list(path: Path) -> list[Any]:
    """The entries of an array file, one per scene. Raises UserError when it is missing or something else."""
    try:
        with path.open("rb") as file:
            return _entries(file)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: it holds the cameras of the .h5 file beside it") from None
    except (OSError, ValueError, EOFError, TypeError, pickle.UnpicklingError) as error:
        raise UserError(f"{path} is not a readable list of cameras ({error}): make it anew") from None


def _entries(file: IO[bytes]) -> list[Any]:
    version = npy.read_magic(file)
    read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    _, _, dtype = read_header(file)
    if not dtype.hasobject:  # scenes of one length make a plain array
        file.seek(0)
        return list(np.load(file, allow_pickle=False))
    return list(_ArrayUnpickler(file).load())
