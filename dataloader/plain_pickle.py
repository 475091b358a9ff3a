"""Pickles of plain data, read without running anything that they hold.

A pickle may name any function to be called. Here only the few names that numbers and containers need are
known, and even those are our own stand-ins: nothing of NumPy runs on what a file says.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, BinaryIO, NoReturn, Protocol

import numpy as np
from numpy.typing import NDArray

_NUMBERS = "biuf"  # kinds of NumPy types that are numbers


class ForbiddenError(Exception):
    """A pickle names something that is not allowed; the message is what."""


# What else may be raised by a file that is no pickle, or cut off.
MALFORMED = (
    *(pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError, LookupError, ImportError),
    *(ArithmeticError, MemoryError, RecursionError),
)


class PickledType:
    """Stands for a `numpy.dtype`."""

    def __init__(self, name: str, *_: Any) -> None:
        self.name, self.order = str(name), "<"

    def __setstate__(self, state: tuple) -> None:
        self.order = ">" if state[1] == ">" else "<"

    @property
    def is_object(self) -> bool:
        return self.name.startswith("O")

    def open(self) -> np.dtype:
        """The type itself. Raises ForbiddenError unless it is one of numbers."""
        kind = np.dtype(self.order + self.name.lstrip("<>|="))
        if kind.kind not in _NUMBERS:
            raise ForbiddenError(f"the numpy type {self.name}")
        return kind


class PickledArray(Protocol):
    """Stands for a `numpy.ndarray`; every reader has its own."""

    def __setstate__(self, state: tuple) -> None:
        """state: (version, shape, `PickledType`, in Fortran's order, bytes, or a list of objects)."""
        ...


def array_numbers(state: tuple) -> NDArray[Any]:
    """The array that a `PickledArray` of numbers stands for. Raises ForbiddenError for one of objects."""
    _, shape, kind, fortran, data = state
    if not isinstance(kind, PickledType) or not isinstance(data, (bytes, bytearray)):
        raise ForbiddenError("a numpy array of objects")
    return np.frombuffer(data, kind.open()).reshape(shape, order="F" if fortran else "C")


def load_plain(file: BinaryIO, array: type[PickledArray]) -> Any:
    """Numbers, texts, containers and `array`s of the pickle that a file goes on with.

    Raises ForbiddenError where it names anything else, `MALFORMED` where it is cut off or no pickle.
    """
    return _Unpickler(file, array).load()


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: BinaryIO, array: type[PickledArray]) -> None:
        super().__init__(file)
        self._allowed = {
            **_numpy_names(array),
            ("numpy", "ndarray"): "ndarray",  # only ever an argument of _reconstruct
            ("numpy", "dtype"): PickledType,
            ("_codecs", "encode"): _latin1,
            ("collections", "OrderedDict"): OrderedDict,
        }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._allowed:
            raise ForbiddenError(f"{module}.{name}")
        return self._allowed[module, name]

    def persistent_load(self, pid: Any) -> NoReturn:
        raise ForbiddenError("an object outside the file")


def _numpy_names(array: type[PickledArray]) -> dict[tuple[str, str], Any]:
    def from_buffer(data: Any, kind: Any, shape: Any, order: Any = "C") -> PickledArray:
        made = array()
        made.__setstate__((1, shape, kind, order == "F", data))
        return made

    functions: dict[str, dict[str, Callable[..., Any]]] = {
        "multiarray": {"scalar": _scalar, "_reconstruct": lambda *_: array()},
        "numeric": {"_frombuffer": from_buffer},
    }
    return {
        (f"numpy.{core}.{module}", name): function
        for core in ("core", "_core")  # renamed in NumPy 2
        for module, names in functions.items()
        for name, function in names.items()
    }


def _scalar(kind: Any, data: Any) -> float:
    if not isinstance(kind, PickledType) or not isinstance(data, bytes):
        raise ForbiddenError("a numpy object")
    return np.frombuffer(data, kind.open())[0].item()


def _latin1(text: str, encoding: str = "latin1") -> bytes:
    """How pickles of protocols below 3 write bytes."""
    if encoding != "latin1":
        raise ForbiddenError(f"_codecs.encode to {encoding}")
    return text.encode("latin1")
