"""Long work in stages that can be killed at any time and continues with the first unfinished one."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.files import replacing

logger = logging.getLogger(__name__)

RECORD = "stages.json"


@dataclass(frozen=True)
class Stage:
    """One step. options: all that its result depends on besides the stages before it (JSON values).

    outputs: files and folders it makes, relative to the root. run: writes them below the folder it is given,
    from the root's files of earlier stages, and returns one sentence with its main figure. keep_partial: the
    folder still holds what a killed run of the same stage left there.
    """

    name: str
    options: dict[str, Any]
    outputs: tuple[str, ...]
    run: Callable[[Path], str]
    keep_partial: bool = False


@dataclass
class _Record:
    """What is finished: stage name -> key and figure. Kept in `work/stages.json`."""

    path: Path
    finished: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path) -> _Record:
        if not path.exists():
            return cls(path)
        try:
            return cls(path, json.loads(path.read_text()))
        except (OSError, ValueError) as error:
            raise UserError(f"{path} cannot be read ({error}): delete it to start over") from None

    def add(self, name: str, key: str, figure: str, seconds: float) -> None:
        self.finished[name] = {"key": key, "figure": figure, "seconds": round(seconds, 2)}
        with replacing(self.path) as partial:
            partial.write_text(json.dumps(self.finished, indent=1) + "\n")


def run_stages(root: Path, stages: Sequence[Stage], inputs: str) -> dict[str, str]:
    """Run the stages that are not finished, in order, one log line each; returns stage name -> figure.

    inputs: a digest of what the first stage reads. A stage is finished when it is recorded under the same key
    (a hash of inputs, its options and those of all stages before it) and its outputs exist; its outputs
    replace older ones only when they are whole. Works in `root/work`. Raises UserError when that cannot be
    written.
    """
    work = root / "work"
    record = _Record.open(work / RECORD)
    key, figures, redo = inputs, {}, False
    for number, stage in enumerate(stages, start=1):
        key = hashlib.sha256(json.dumps([key, stage.name, stage.options]).encode()).hexdigest()[:16]
        before = record.finished.get(stage.name, {})
        complete = all((root / output).exists() for output in stage.outputs)
        label = f"[{number}/{len(stages)}] {stage.name:<9}"
        if before.get("key") == key and complete and not redo:
            figures[stage.name] = before["figure"]
            logger.info("%s %s (done before)", label, before["figure"])
            continue
        redo = True
        started = time.perf_counter()
        figures[stage.name] = _run(root, stage, work / f"{stage.name}.{key}.partial")
        seconds = time.perf_counter() - started
        record.add(stage.name, key, figures[stage.name], seconds)
        logger.info("%s %s (%.1f s)", label, figures[stage.name], seconds)
    return figures


def _run(root: Path, stage: Stage, scratch: Path) -> str:
    """Run one stage in a scratch folder and move its outputs into place."""
    try:
        for stale in scratch.parent.glob(f"{stage.name}.*.partial"):
            if stale != scratch or not stage.keep_partial:
                shutil.rmtree(stale)
        scratch.mkdir(parents=True, exist_ok=True)
        figure = stage.run(scratch)
        for output in stage.outputs:
            _replace(scratch / output, root / output)
        shutil.rmtree(scratch)
    except OSError as error:
        raise UserError(
            f"cannot write to {root} ({error.strerror or error}): free some space or choose another folder"
        ) from None
    return figure


def _replace(source: Path, target: Path) -> None:
    """Move a file or folder over another one."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_dir():
        shutil.rmtree(target)
    os.replace(source, target)
