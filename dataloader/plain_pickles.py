"""Pickles of numbers, texts and containers, read without running anything that they hold.

A pickle may name any function to be called. Here only the few names that numbers and containers need are
known, and even those are our own stand-ins: nothing of NumPy runs on what a file says.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, Protocol

import numpy as np
from numpy.typing import NDArray

from common.errors import UserError

_NUMBERS = "biuf"  # kinds of NumPy types that are numbers


class _Forbidden(Exception):  # noqa: N818 (it never leaves this module)
    """A pickle names something that is not allowed; the message is what."""


# what a file that is no pickle, or cut off, may raise
_MALFORMED = (
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
        """The type itself. It must be one of numbers."""
        kind = np.dtype(self.order + self.name.lstrip("<>|="))
        if kind.kind not in _NUMBERS:
            raise _Forbidden(f"the numpy type {self.name}")
        return kind


class PickledArray(Protocol):
    """Stands for a `numpy.ndarray`; every reader has its own."""

    def __setstate__(self, state: tuple) -> None:
        """state: (version, shape, `PickledType`, in Fortran's order, bytes, or a list of objects)."""
        ...


def array_numbers(state: tuple) -> NDArray[Any]:
    """The array that a `PickledArray` of numbers stands for; one of objects is refused as no plain data."""
    _, shape, kind, fortran, data = state
    if not isinstance(kind, PickledType) or not isinstance(data, (bytes, bytearray)):
        raise _Forbidden("a numpy array of objects")
    return np.frombuffer(data, kind.open()).reshape(shape, order="F" if fortran else "C")


class _Lists(list):
    """Stands for a `numpy.ndarray` of numbers, as nested lists."""

    def __setstate__(self, state: tuple) -> None:
        self[:] = np.atleast_1d(array_numbers(state)).tolist()


def read_plain_pickle(path: Path, kind: str) -> Any:
    """What a pickle holds: numbers, texts, lists, tuples and dicts only; arrays become lists.

    kind: what the file should be ('split file'), for messages. All of it lives in memory. Raises UserError
    when the file is missing, cut off, or names anything that such data do not need.
    """
    with opening_plain(path, kind) as file:
        return load_plain(file, _Lists)


@contextmanager
def opening_plain(path: Path, kind: str) -> Iterator[BinaryIO]:
    """An open file for `load_plain`, whose failures become UserErrors (see `read_plain_pickle`)."""
    try:
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): give the path of a {kind}") from None
    except _Forbidden as error:
        raise UserError(f"{path} asks for {error}, which no {kind} needs: do not trust this file") from None
    except _MALFORMED as error:
        reason = str(error) or type(error).__name__
        raise UserError(f"{path} is cut off or no {kind} ({reason}): copy it again") from None


def load_plain(file: BinaryIO, array: type[PickledArray]) -> Any:
    """What the pickle that an open file goes on with holds; NumPy's arrays as `array`s."""
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
            raise _Forbidden(f"{module}.{name}")
        return self._allowed[module, name]

    def persistent_load(self, pid: Any) -> NoReturn:
        raise _Forbidden("an object outside the file")


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
        raise _Forbidden("a numpy object")
    return np.frombuffer(data, kind.open())[0].item()


def _latin1(text: str, encoding: str = "latin1") -> bytes:
    """How pickles of protocols below 3 write bytes."""
    if encoding != "latin1":
        raise _Forbidden(f"_codecs.encode to {encoding}")
    return text.encode("latin1")
