"""`int.npy`, `ext.npy`, `scenes.npy` of a stack of clips: lists in array files (specs/mask_volume 4.4).

An entry per scene: a list of matrices, or a name. As scenes differ in length, they are arrays of objects,
pickles really, which are read without running anything that they hold. Where all scenes are of one length,
the original's files hold one array of all matrices, its numbers often objects.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from common.errors import UserError
from dataloader.plain_pickles import array_numbers, load_plain, opening_plain


class _Array:
    """Stands for a `numpy.ndarray` of a shape. values: its numbers, or its objects as a flat list."""

    values: NDArray[Any] | list[Any]
    shape: tuple[int, ...]

    def __setstate__(self, state: tuple) -> None:
        _, shape, kind, fortran, data = state
        self.shape = tuple(shape)
        if not getattr(kind, "is_object", False):
            self.values = array_numbers(state)
        elif isinstance(data, list) and not fortran and len(data) == int(np.prod(self.shape)):
            self.values = data
        else:
            raise ValueError("an array of objects is not as long as it says")


def read_matrices(path: Path, shape: tuple[int, int]) -> list[NDArray[np.float64]]:
    """[n, *shape] float64 per scene. Raises UserError when the file is malformed or holds something else."""
    matrices = []
    for number, entry in enumerate(_entries(path)):
        try:
            array = _numbers(entry)
        except (TypeError, ValueError):
            raise UserError(f"{path}: the matrices of scene {number} differ in shape: make it anew") from None
        if array.ndim != 3 or array.shape[1:] != shape:
            expected = f"[frames, {shape[0]}, {shape[1]}]"
            raise UserError(f"{path}: scene {number} is {list(array.shape)}, it must be {expected}")
        matrices.append(array)
    return matrices


def read_names(path: Path) -> list[str]:
    """A name per scene. Raises UserError when the file is malformed or holds something else."""
    names = _entries(path)
    if not all(isinstance(name, str) for name in names):
        raise UserError(f"{path} holds something else than the names of scenes: make it anew")
    return [str(name) for name in names]


def _numbers(entry: Any) -> NDArray[np.float64]:
    """Nested lists, arrays and numbers as one array."""
    if isinstance(entry, _Array):
        if isinstance(entry.values, np.ndarray):
            return entry.values.astype(np.float64)
        nested = any(isinstance(value, _Array | list) for value in entry.values)
        values = [_numbers(value) for value in entry.values] if nested else entry.values
        numbers = np.array(values, np.float64)
        return numbers.reshape(*entry.shape, *numbers.shape[1:])
    if isinstance(entry, list):
        return np.array([_numbers(value) for value in entry], np.float64)
    return np.asarray(entry, np.float64)


def _entries(path: Path) -> list[Any]:
    """What a file holds per scene."""
    with opening_plain(path, "list of cameras or scenes") as file:
        return _read(file)


def _read(file: BinaryIO) -> list[Any]:
    version = np.lib.format.read_magic(file)
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    _, _, kind = header(file)
    if not kind.hasobject:
        file.seek(0)
        return list(np.load(file, allow_pickle=False))
    value = load_plain(file, _Array)
    if not isinstance(value, _Array) or not value.shape:
        raise ValueError("it holds no list")
    return list(value.values if len(value.shape) == 1 else _numbers(value))
