"""Output folders that appear when they are whole, remember how they were made, and continue after a kill."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from common.errors import UserError
from common.files import replacing

RECORD = "made_with.json"
_OURS = {RECORD, "run.json"}
_WORKERS = min(4, os.cpu_count() or 1)  # each may hold a few hundred MB of a large frame

T = TypeVar("T")
R = TypeVar("R")


def claim(folder: Path, options: dict[str, Any]) -> None:
    """Make `folder` the place of work with these options (JSON values), which `made_with.json` records.

    What an earlier run with the same options finished there is kept. Raises UserError when the folder holds
    anything that was not made with them, or cannot be written.
    """
    record = folder / RECORD
    options = json.loads(json.dumps(options))
    before = _read(record)
    if before == options:
        return
    entries = list(folder.iterdir()) if folder.is_dir() else []
    finished = sorted(path.name for path in entries if path.name not in _OURS and not _is_partial(path))
    if finished or (folder.exists() and not folder.is_dir()):
        raise UserError(f"{folder} {_difference(before, options)}: delete it or choose another place")
    for path in entries:
        if _is_partial(path):
            shutil.rmtree(path)
    with replacing(record) as partial:
        partial.write_text(json.dumps(options, indent=1) + "\n")


def _read(record: Path) -> Any:
    try:
        return json.loads(record.read_text())
    except (OSError, ValueError):
        return None


def _difference(before: Any, options: dict[str, Any]) -> str:
    if not isinstance(before, dict):
        return "exists and was not made by this command"
    differing = [key for key in {**options, **before} if before.get(key) != options.get(key)]
    return f"was made with other options ({', '.join(differing)})"


def _is_partial(path: Path) -> bool:
    return path.is_dir() and path.name.startswith(".") and path.name.endswith(".partial")


def digest(*files: Path) -> str:
    """What the bytes of files are known again by. Raises UserError for one that cannot be read."""
    found = hashlib.sha256()
    for path in files:
        try:
            found.update(path.read_bytes())
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error.strerror or error})") from None
    return found.hexdigest()[:16]


@contextmanager
def completing(folder: Path) -> Iterator[Path]:
    """A folder `.NAME.partial` to fill, which becomes `folder` when the block ends well.

    What a killed run left in it is still there. Raises UserError when it cannot be written.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    try:
        partial.mkdir(parents=True, exist_ok=True)
        yield partial
        os.replace(partial, folder)
    except OSError as error:
        raise UserError(f"cannot write {folder} ({error.strerror or error})") from None


def in_order(function: Callable[[T], R], items: Iterable[T], workers: int = _WORKERS) -> Iterator[R]:
    """`map` on several threads, with at most twice as many items under way as threads.

    Results come in the items' order; what a call raises is raised here.
    """
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[R]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) >= 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
