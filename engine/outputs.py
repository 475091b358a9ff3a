"""Output folders that say how they were made."""

from __future__ import annotations

import json
import platform
import shlex
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from common.errors import UserError
from common.files import replacing

_LIBRARIES = ("torch", "torchvision", "accelerate", "numpy", "pillow", "open3d", "scikit-image")


def versions() -> dict[str, str]:
    """Versions of Python, the project and the libraries a result depends on (those that are installed)."""
    found = {"python": platform.python_version()}
    for library in ("parallax-nvs", *_LIBRARIES):
        try:
            found[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            continue
    return found


def prepare_folder(folder: Path) -> Path:
    """Create an output folder and check that it can be written. Raises UserError otherwise."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(
            f"cannot write to {folder} ({error.strerror}): choose another output folder"
        ) from None
    return folder


def write_provenance(folder: Path, config: dict[str, Any], seed: int) -> None:
    """Write `run.json`: command, resolved config, seed, versions and hardware of what the folder holds."""
    record = {
        "command": shlex.join(sys.argv),
        "config": config,
        "seed": seed,
        "versions": versions(),
        "device": torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else platform.processor() or "cpu",
    }
    with replacing(folder / "run.json") as path:
        path.write_text(json.dumps(record, indent=2, default=str) + "\n")
