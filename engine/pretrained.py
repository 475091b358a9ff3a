"""Methods as folders to pass on: `config.json` says what to build, `model.safetensors` fills it.

Such a folder holds everything that rendering needs, also weights that are not trained, and nothing of the run
that made it. It is read from a disk or from the model hub.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.errors import UserError
from common.files import replacing
from engine.config import read_config as read_yaml
from engine.tensor_files import read_safetensors, write_bytes, write_safetensors
from engine.weights import all_tensors, assign, shorten

if TYPE_CHECKING:
    from engine.method import Method

logger = logging.getLogger(__name__)

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
_LIBRARY = "parallax"  # tells our config.json from those of other libraries
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")

_CARD = """---
library_name: {library}
tags: [novel-view-synthesis, {method}]
---
# {method}

Weights of the method `{method}` of Parallax.

    from methods import load_pretrained
    method = load_pretrained("FOLDER_OR_HUB_NAME")

`config.json` holds the settings of the model, `model.safetensors` all of its weights.
"""


def is_pretrained(folder: Path) -> bool:
    """Whether a folder is one that `save` wrote."""
    if not (folder / CONFIG).is_file() or not (folder / WEIGHTS).is_file():
        return False
    try:
        return json.loads((folder / CONFIG).read_text()).get("library") == _LIBRARY
    except (ValueError, AttributeError):
        return False


def save(method: Method, folder: Path) -> list[Path]:
    """Write `config.json`, `model.safetensors` and, where there is none, a model card; returns the files.

    Every file is written whole or not at all, `config.json` last. Raises UserError when they cannot be.
    """
    tensors = all_tensors(method)
    empty = [name for name, tensor in tensors.items() if tensor.is_meta]
    if empty:
        raise UserError(f"{method.method_name} has no weights to save ({empty[0]} is empty): load some first")
    config = {"library": _LIBRARY, "method": method.method_name, "model": _plain(method.config)}
    card = _CARD.format(library=_LIBRARY, method=method.method_name)
    (folder / CONFIG).unlink(missing_ok=True)  # until the new one is there, the folder is not complete
    with replacing(folder / WEIGHTS) as path:
        write_safetensors(path, tensors)
    if not (folder / CARD).exists():
        with replacing(folder / CARD) as path:
            write_bytes(path, card.encode())
    with replacing(folder / CONFIG) as path:
        write_bytes(path, (json.dumps(config, indent=2) + "\n").encode())
    return [folder / name for name in (CONFIG, WEIGHTS, CARD)]


def _plain(config: Any) -> dict[str, Any]:
    return dataclasses.asdict(config) if dataclasses.is_dataclass(config) else {}  # type: ignore[arg-type]


def locate(place: str | Path) -> Path:
    """The folder that a path or the name of a hub model (OWNER/NAME, fetched if need be) stands for.

    Raises UserError when there is no such folder, or the hub cannot give it.
    """
    folder = Path(place)
    if folder.is_dir():
        return folder
    if not _HUB_NAME.fullmatch(str(place)):
        raise UserError(f"{place} is neither a folder nor the name of a hub model (OWNER/NAME)")
    from dataloader.hub import snapshot

    try:
        return snapshot(str(place), patterns=(CONFIG, WEIGHTS))
    except UserError as error:
        raise UserError(
            f"{place} is no folder, and {error}: run 'hf download {place} --local-dir DIR' where there is a "
            "network, and give DIR"
        ) from None


def read_config(folder: Path) -> tuple[str, dict[str, Any]]:
    """The method's name and its model settings, of a folder of `save` or of one of our `iter_N`.

    Raises UserError when it is neither, or its configuration cannot be read.
    """
    if (folder / "manifest.json").is_file():
        config = read_yaml(folder)
    elif is_pretrained(folder):
        config = json.loads((folder / CONFIG).read_text())
    else:
        raise UserError(
            f"{folder} holds no pretrained method: it needs {CONFIG} and {WEIGHTS} as save_pretrained writes "
            "them, or be an iter_N of ours"
        )
    if not isinstance(config.get("method"), str) or not isinstance(config.get("model"), dict):
        raise UserError(f"the configuration in {folder} names no method and model: write it again")
    return config["method"], config["model"]


def check_method(kind: type[Method], name: str, folder: Path) -> None:
    """Raise UserError if a folder's method is not the one it is to be loaded into."""
    if name != kind.method_name:
        raise UserError(f"{folder} holds a {name}, not a {kind.method_name}: load it as {name}")


def load_into(method: Method, folder: Path) -> None:
    """Fill a method from a folder of `save`, strictly but for what an earlier stage of training lacks.

    Raises UserError, and changes nothing, when it is another method's or names or shapes differ.
    """
    check_method(type(method), read_config(folder)[0], folder)
    tensors = method.completed(read_safetensors(folder / WEIGHTS))
    missing = [name for name in all_tensors(method) if name not in tensors]
    if missing:
        raise UserError(f"the weights in {folder} do not fit this model: missing: {shorten(missing)}")
    assign(method, tensors, folder)
