"""Memory that is used again. Fresh memory costs the system more per byte than the kernels need to fill it."""

from __future__ import annotations

import math
import weakref
from threading import Lock

import numpy as np
import torch
from torch import Tensor

_KEPT = 6  # most buffers kept: features, their gradient's values and indices, for two grids
_SPARE = 1.25  # buffers are made this much larger than asked for, since batches differ a little


class Buffers:
    """Lends uninitialised float32 or int64 tensors, whose memory comes back when nothing refers to it.

    A tensor lent is an ordinary one: it may be kept, viewed or saved for a backward pass as long as wanted.
    """

    def __init__(self) -> None:
        self._buffers: list[tuple[np.ndarray, weakref.ref]] = []
        self._lock = Lock()

    def take(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """A tensor of a shape; its numbers are whatever lay there."""
        bytes_needed = math.prod(shape) * dtype.itemsize
        with self._lock:
            memory = self._find(bytes_needed)
            view = memory[:bytes_needed]
            self._buffers.append((memory, weakref.ref(view)))
        return torch.from_numpy(view).view(dtype).view(shape)

    def zeros(self, *shape: int) -> Tensor:
        """A float32 tensor of zeros."""
        return self.take(*shape).zero_()

    def release(self) -> None:
        """Give the memory that nobody uses back to the system."""
        with self._lock:
            self._buffers = [pair for pair in self._buffers if pair[1]() is not None]

    def _find(self, size: int) -> np.ndarray:
        """The smallest free buffer that holds `size` bytes and is not far too large, or a new one."""
        free = [i for i, (_, lent) in enumerate(self._buffers) if lent() is None]
        fitting = [i for i in free if size <= len(self._buffers[i][0]) <= 4 * size + 4096]
        if fitting:
            return self._buffers.pop(min(fitting, key=lambda i: len(self._buffers[i][0])))[0]
        if len(self._buffers) >= _KEPT:  # forget free ones, and the oldest lent: their users keep them alive
            self._buffers = [pair for i, pair in enumerate(self._buffers) if i not in free][1 - _KEPT :]
        return np.empty(int(_SPARE * size) // 64 * 64 + 64, np.uint8)


BUFFERS = Buffers()
