"""Pickles of numbers, texts and containers, read without running anything that they hold.

A pickle may name any function to be called. Here only the few names that numbers and containers need are
known, and even those are our own stand-ins: nothing of NumPy runs on what a file says.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from common.errors import UserError

_NUMBERS = "biuf"  # kinds of NumPy types that are numbers


class _Forbidden(Exception):  # noqa: N818 (it never leaves this module)
    """A pickle names something that is not allowed."""


class _Type:
    """Stands for a `numpy.dtype` of numbers."""

    def __init__(self, name: str, *_: Any) -> None:
        self.name, self.order = str(name), "<"

    def __setstate__(self, state: tuple) -> None:
        self.order = ">" if state[1] == ">" else "<"

    def open(self) -> np.dtype:
        kind = np.dtype(self.order + self.name.lstrip("<>|="))
        if kind.kind not in _NUMBERS:
            raise _Forbidden(f"the numpy type {self.name}")
        return kind


class _Array(list):
    """Stands for a `numpy.ndarray` of numbers, as nested lists."""

    def __setstate__(self, state: tuple) -> None:
        _, shape, kind, fortran, data = state
        self[:] = _values(data, kind, shape, "F" if fortran else "C")


def _values(data: bytes, kind: Any, shape: Any, order: Any = "C") -> list:
    if not isinstance(kind, _Type) or not isinstance(data, (bytes, bytearray)):
        raise _Forbidden("a numpy array of objects")
    return np.atleast_1d(np.frombuffer(data, kind.open()).reshape(shape, order=order)).tolist()


def _scalar(kind: Any, data: Any) -> float:
    if not isinstance(kind, _Type) or not isinstance(data, bytes):
        raise _Forbidden("a numpy object")
    return np.frombuffer(data, kind.open())[0].item()


def _latin1(text: str, encoding: str = "latin1") -> bytes:
    """How pickles of protocols below 3 write bytes."""
    if encoding != "latin1":
        raise _Forbidden(f"_codecs.encode to {encoding}")
    return text.encode("latin1")


def _numpy_names() -> dict[tuple[str, str], Any]:
    functions: dict[str, dict[str, Callable[..., Any]]] = {
        "multiarray": {"scalar": _scalar, "_reconstruct": lambda *_: _Array()},
        "numeric": {"_frombuffer": _values},
    }
    return {
        (f"numpy.{core}.{module}", name): function
        for core in ("core", "_core")  # renamed in NumPy 2
        for module, names in functions.items()
        for name, function in names.items()
    }


_ALLOWED: dict[tuple[str, str], Any] = {
    **_numpy_names(),
    ("numpy", "ndarray"): "ndarray",  # only ever an argument of _reconstruct
    ("numpy", "dtype"): _Type,
    ("_codecs", "encode"): _latin1,
    ("collections", "OrderedDict"): OrderedDict,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise _Forbidden(f"{module}.{name}")
        return _ALLOWED[module, name]

    def persistent_load(self, pid: Any) -> NoReturn:
        raise _Forbidden("an object outside the file")


_MALFORMED = (
    *(pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError, LookupError, ImportError),
    *(ArithmeticError, MemoryError, RecursionError),
)


def read_plain_pickle(path: Path, kind: str) -> Any:
    """What a pickle holds: numbers, texts, lists, tuples and dicts only; arrays become lists.

    kind: what the file should be ('split file'), for messages. All of it lives in memory. Raises UserError
    when the file is missing, cut off, or names anything that such data do not need.
    """
    try:
        with path.open("rb") as file:
            return _Unpickler(file).load()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): give the path of a {kind}") from None
    except _Forbidden as error:
        raise UserError(f"{path} asks for {error}, which no {kind} needs: do not trust this file") from None
    except _MALFORMED as error:
        reason = str(error) or type(error).__name__
        raise UserError(f"{path} is cut off or no pickle ({reason}): copy it again") from None
