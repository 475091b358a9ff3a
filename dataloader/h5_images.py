"""Images inside HDF5 files, read one at a time.

Open files are kept per process, a few at most, and closed before a process forks: HDF5 files that are open
across a fork share their place in the file.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from common.errors import UserError

_KEPT = 8  # open files per process

_lock = threading.RLock()
_files: OrderedDict[tuple[str, int, int], Any] = OrderedDict()  # by path, inode and time of change


@contextmanager
def reading(path: Path) -> Iterator[Any]:
    """The open `h5py.File` of a path, for this block only; one thread at a time.

    Raises UserError when the file is missing, or the block cannot read what it asks for.
    """
    with _lock:
        try:
            yield _open(path)
        except FileNotFoundError:
            raise UserError(f"{path} does not exist: give the path of an .h5 file") from None
        except (OSError, LookupError, RuntimeError) as error:
            reason = str(error).strip("'\"")
            raise UserError(f"{path} cannot be read ({reason}): is the file whole?") from None


def _open(path: Path) -> Any:
    h5py = _h5py()
    state = path.stat()
    key = (str(path), state.st_ino, state.st_mtime_ns)
    if key not in _files:
        while len(_files) >= _KEPT:
            _files.popitem(last=False)[1].close()
        _files[key] = h5py.File(path, "r")
    _files.move_to_end(key)
    return _files[key]


def close_all() -> None:
    """Close the files that are kept open."""
    while _files:
        _files.popitem()[1].close()


def _before_fork() -> None:
    _lock.acquire()
    close_all()


@cache
def _h5py() -> Any:
    """The library, imported late.

    It takes a lock of its own before a fork. What is registered last runs first, so ours is registered after
    it: reading takes the two locks in that order too, and neither can wait for the other.
    """
    import h5py

    os.register_at_fork(before=_before_fork, after_in_parent=_lock.release, after_in_child=_lock.release)
    return h5py


@dataclass(frozen=True)
class H5Image:
    """One image of a data set [..., H, W, C] uint8 (`dataloader.images.StoredImage`).

    index: its place along the leading axes.
    """

    path: Path
    dataset: str
    index: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.path} {self.dataset}[{', '.join(map(str, self.index))}]"

    def read(self) -> NDArray[np.uint8]:
        """[H, W, C] uint8. Raises UserError when it cannot be read."""
        with reading(self.path) as file:
            return np.asarray(file[self.dataset][self.index])


class H5Images(Sequence[H5Image]):
    """The images of a data set along the axis that follows `index`. count: how many there are."""

    def __init__(self, path: Path, dataset: str, index: tuple[int, ...], count: int) -> None:
        self._path, self._dataset, self._index, self._count = path, dataset, index, count

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, item: int) -> H5Image: ...
    @overload
    def __getitem__(self, item: slice) -> list[H5Image]: ...
    def __getitem__(self, item: int | slice) -> H5Image | list[H5Image]:
        if isinstance(item, slice):
            return [self[i] for i in range(self._count)[item]]
        return H5Image(self._path, self._dataset, (*self._index, range(self._count)[item]))
