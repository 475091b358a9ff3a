"""Tensor files written in one pass: every byte goes through SHA-256 on its way to the disk."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import types
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, cast

import torch
from torch import Tensor

from common.errors import UserError

_BLOCK = 1 << 22  # bytes read at a time when a file is hashed
_SAFETENSORS_NAMES = {  # https://github.com/huggingface/safetensors, "Format"
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


class HashingFile:
    """A file opened for writing that knows the size and SHA-256 of what went into it.

    A failed write is remembered and raised by `close`, not at once: `torch.save` replaces exceptions that
    pass through its C++ writer with one of its own.
    """

    def __init__(self, path: Path) -> None:
        self._file = open(path, "wb", buffering=0)  # noqa: SIM115 (closed by close)
        self._hash = hashlib.sha256()
        self._error: OSError | None = None
        self.size = 0

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        try:
            self._write_all(view)
        except OSError as error:
            self._error = error
        self._hash.update(view)
        self.size += len(view)
        return len(view)

    def _write_all(self, view: memoryview) -> None:
        while len(view) and self._error is None:  # the system may take less than it is given
            view = view[self._file.write(view) :]

    def flush(self) -> None:
        """Do nothing: `close` puts the file on the disk, once."""

    def close(self) -> dict[str, Any]:
        """Put the file on the disk and return its manifest entry. Raises OSError if any byte was lost."""
        with self._file:
            if self._error is not None:
                raise self._error
            os.fsync(self._file.fileno())
        return {"size": self.size, "sha256": self._hash.hexdigest()}


def write_bytes(path: Path, data: bytes) -> dict[str, Any]:
    """Write a file and return its manifest entry {size, sha256}. Raises OSError."""
    file = HashingFile(path)
    file.write(data)
    return file.close()


def write_torch(path: Path, values: Any) -> dict[str, Any]:
    """`torch.save` nested dicts and lists of tensors and numbers; returns the manifest entry."""
    file = HashingFile(path)
    torch.save(values, cast("IO[bytes]", file))
    return file.close()


def write_safetensors(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Write tensors in the safetensors format, one at a time; returns the manifest entry.

    The format: header length (8 bytes, little endian), JSON header {name: dtype, shape, offsets}, data.
    Wide types come first so that every tensor is aligned.
    """
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header, offset = {}, 0
    for name in names:
        tensor = tensors[name]
        end = offset + tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": _SAFETENSORS_NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file = HashingFile(path)
    file.write(len(text).to_bytes(8, "little") + text)
    for name in names:
        if tensors[name].numel():
            file.write(_bytes(tensors[name]))
    return file.close()


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, on the CPU. Raises UserError when it is missing or damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: give the path of a weights file") from None
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is not a readable safetensors file ({error}): get it again") from None


class _Inert:
    """Stands for an object whose class is not trusted: it takes anything and does nothing."""

    def __new__(cls, *args: Any, **kwargs: Any) -> _Inert:
        return object.__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...

    def __setitem__(self, key: Any, value: Any) -> None: ...

    def append(self, value: Any) -> None: ...

    def extend(self, values: Any) -> None: ...


# All that rebuilding tensors in nested containers needs.
_TRUSTED = {
    ("collections", "OrderedDict"),
    ("torch", "Size"),
    ("torch._utils", "_rebuild_tensor"),
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_parameter"),
    ("torch.serialization", "_get_layout"),
}


class _InertUnpickler(pickle.Unpickler):
    """Loads tensors and plain containers; any other class or function becomes an inert placeholder."""

    def find_class(self, module: str, name: str) -> Any:
        trusted = (module, name) in _TRUSTED or (module == "torch" and name.endswith("Storage"))
        return super().find_class(module, name) if trusted else _Inert


def read_torch(path: Path) -> Any:
    """What `torch.save` wrote, memory-mapped where its format allows; nothing in the file is ever run.

    Lightning files hold callbacks and settings of arbitrary classes beside the weights: whatever is neither a
    tensor nor a plain container becomes a placeholder. Raises UserError when the file is missing, cut off or
    something else.
    """
    reader = types.ModuleType("inert_pickle")
    reader.Unpickler = _InertUnpickler  # type: ignore[attr-defined]
    reader.load = lambda file, **options: _InertUnpickler(file, **options).load()  # type: ignore[attr-defined]
    try:
        mapped = zipfile.is_zipfile(path)  # files of torch before 1.6 cannot be mapped
        return torch.load(path, map_location="cpu", weights_only=False, pickle_module=reader, mmap=mapped)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: give the path of a weights file") from None
    except (OSError, RuntimeError, EOFError, ValueError, TypeError, AttributeError, LookupError) as error:
        reason = str(error).splitlines()[0] if str(error) else "it is empty"
        raise UserError(f"{path} is not a readable weights file ({reason}): get it again") from None
    except pickle.UnpicklingError as error:
        raise UserError(f"{path} is not a readable weights file ({error}): get it again") from None


def sha256(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal text."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def sha256_tensors(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and values, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        if tensor.numel():
            digest.update(_bytes(tensor))
    return digest.hexdigest()


def _bytes(tensor: Tensor) -> memoryview:
    """The values of a tensor that has some, as they lie in memory."""
    values: Any = tensor.detach().to("cpu").contiguous().reshape(-1).view(torch.uint8).numpy()
    return memoryview(values)


def sync_folder(folder: Path) -> None:
    """Put a folder's entries (names, renames) on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
