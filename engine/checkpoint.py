"""Checkpoints that survive kills and full disks, and hold nothing that can run code.

`FOLDER/iter_N/` is written as `iter_N.tmp/` and renamed when every byte is on the disk, so a folder named
`iter_N` is complete. It holds

    model.safetensors   trainable weights and persistent buffers
    ema.safetensors     their moving average, when the run keeps one
    optimizer.pt        optimiser state: tensors and numbers, read with weights_only
    state.json          `State`: the step, the position in the data, counters, hashes of frozen weights
    config.yaml         the resolved experiment
    manifest.json       method, step, and the size and SHA-256 of every other file

A folder `iter_N` without manifest and state may be a published checkpoint of an original implementation: the
method's `load_original` decides.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml
from torch import Tensor, nn

from common.errors import UserError
from engine.config import build
from engine.pretrained import check_method, is_pretrained, load_into, locate, read_config
from engine.tensor_files import (
    read_safetensors,
    sha256,
    sync_folder,
    write_bytes,
    write_safetensors,
    write_torch,
)
from engine.weights import assign, frozen_hashes, saved_tensors

if TYPE_CHECKING:
    from engine.method import Method

logger = logging.getLogger(__name__)

_NAME = re.compile(r"iter_(\d+)")


class MissingCheckpointError(UserError):
    """There is no checkpoint where one was asked for."""


@dataclass
class State:
    """Where a run stands. Everything else that it does follows from this, the weights and the config."""

    step: int = 0  # optimiser steps done
    seed: int = 0
    samples_drawn: int = 0  # positions of the data stream consumed, by all processes together
    bad_samples: int = 0  # unreadable samples met and replaced
    skipped_steps: int = 0  # steps not taken because the loss or a gradient was not finite
    skipped_in_row: int = 0  # the latest of them, without a good step between
    world_size: int = 1
    frozen: dict[str, str] = field(default_factory=dict)  # SHA-256 of weights not trained, per part


@dataclass
class Snapshot:
    """What one checkpoint holds. optimizer: nested dicts and lists of tensors and numbers."""

    method: str
    state: State
    weights: Mapping[str, Tensor]
    ema: Mapping[str, Tensor] | None
    optimizer: Any
    config: dict[str, Any]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint folder that was found. original: weights alone, such as an original implementation's."""

    path: Path
    step: int
    original: bool


# Writing


def write(folder: Path, snapshot: Snapshot) -> Path:
    """Write `iter_N.tmp` below `folder`, on the disk to the last byte, and return it for `publish`.

    Raises UserError, and leaves nothing behind, when it cannot be written (disk full, no permission).
    """
    temporary = folder / f"iter_{snapshot.state.step}.tmp"
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        _write_files(temporary, snapshot)
        sync_folder(temporary)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise UserError(
            f"cannot write checkpoint {temporary} ({error.strerror}): "
            "make room, then continue from the last one with -r latest"
        ) from None
    return temporary


def _write_files(folder: Path, snapshot: Snapshot) -> None:
    files = {"model.safetensors": write_safetensors(folder / "model.safetensors", snapshot.weights)}
    if snapshot.ema is not None:
        files["ema.safetensors"] = write_safetensors(folder / "ema.safetensors", snapshot.ema)
    files["optimizer.pt"] = write_torch(folder / "optimizer.pt", snapshot.optimizer)
    files["state.json"] = write_bytes(folder / "state.json", _json(asdict(snapshot.state)))
    config = yaml.safe_dump(snapshot.config, sort_keys=False).encode()
    files["config.yaml"] = write_bytes(folder / "config.yaml", config)
    manifest = {"method": snapshot.method, "step": snapshot.state.step, "files": files}
    write_bytes(folder / "manifest.json", _json(manifest))


def _json(values: Any) -> bytes:
    return (json.dumps(values, indent=2) + "\n").encode()


def publish(temporary: Path, keep: int) -> Path:
    """Rename `iter_N.tmp` to `iter_N`, then remove all but the newest `keep` complete checkpoints."""
    final = temporary.with_suffix("")
    if final.exists():  # only ever a damaged one: `refuse_rewind` has seen to that
        shutil.rmtree(final)
    os.replace(temporary, final)
    sync_folder(final.parent)
    complete = [step for step, path in _folders(final.parent).items() if _is_ours(path) and not damage(path)]
    for step in sorted(complete)[:-keep]:
        _remove(_folders(final.parent)[step])
    return final


def _remove(path: Path) -> None:
    """Delete a checkpoint under a name that never counts as one, should the deletion be interrupted."""
    doomed = path.with_name(path.name + ".tmp")
    try:
        os.replace(path, doomed)
        shutil.rmtree(doomed)
    except OSError as error:
        logger.warning("cannot remove the old checkpoint %s (%s)", path, error.strerror)


def remove_leftovers(folder: Path) -> None:
    """Delete `iter_N.tmp` folders that a killed run left behind."""
    for path in folder.glob("iter_*.tmp"):
        logger.info("removing the unfinished checkpoint %s", path)
        shutil.rmtree(path, ignore_errors=True)


# Finding


def find(folder: Path, which: str) -> Checkpoint | None:
    """The checkpoint that `-r` names: a step, 'latest' (also '-1'), 'auto', or the folder of a pretrained
    method or the checkpoint file of an original, which count as step 0.

    'latest' and 'auto' pass over damaged folders with one log line each. Returns None only for 'auto' where
    there is no checkpoint. Raises UserError when what was asked for is missing or damaged.
    """
    folders = _folders(folder)
    if which in ("latest", "-1", "auto"):
        for step in sorted(folders, reverse=True):
            fault = damage(folders[step])
            if fault is None:
                return _checkpoint(folders[step], step)
            logger.warning("%s is passed over: %s", folders[step], fault)
        if which == "auto":
            return None
        raise MissingCheckpointError(f"{folder} holds no checkpoint iter_N")
    if not which.isdecimal():
        if is_pretrained(Path(which)) or Path(which).is_file():
            return Checkpoint(Path(which), 0, original=True)
        raise UserError(
            f"-r {which} is not a checkpoint: give a step, latest, auto, or a file or pretrained folder that "
            "exists"
        )
    if int(which) not in folders:
        there = ", ".join(str(step) for step in sorted(folders)) or "none"
        raise MissingCheckpointError(
            f"{folder / f'iter_{which}'} does not exist (checkpoints there: {there})"
        )
    fault = damage(folders[int(which)])
    if fault is not None:
        raise UserError(f"{fault}: resume from another checkpoint")
    return _checkpoint(folders[int(which)], int(which))


def _checkpoint(path: Path, step: int) -> Checkpoint:
    return Checkpoint(path, step, original=not _is_ours(path))


def open_folder(path: Path) -> Checkpoint:
    """The checkpoint in a folder of any name. Raises UserError when it is damaged."""
    fault = damage(path)
    if fault is not None:
        raise UserError(f"{fault}: use another checkpoint")
    match = _NAME.fullmatch(path.resolve().name)
    return _checkpoint(path, int(match[1]) if match else 0)


def _folders(folder: Path) -> dict[int, Path]:
    """Folders named iter_N, by N."""
    matches = [(_NAME.fullmatch(path.name), path) for path in folder.glob("iter_*") if path.is_dir()]
    return {int(match[1]): path for match, path in matches if match}


def _is_ours(path: Path) -> bool:
    return (path / "manifest.json").exists() or (path / "state.json").exists()


def damage(path: Path) -> str | None:
    """What is wrong with a checkpoint folder, naming the file; None if every file is there in full size."""
    if not _is_ours(path):
        return None if any(path.iterdir()) else f"{path} is empty"
    try:
        files = json.loads((path / "manifest.json").read_text())["files"]
    except FileNotFoundError:
        return f"{path / 'manifest.json'} is missing"
    except (ValueError, KeyError, TypeError):
        return f"{path / 'manifest.json'} is damaged"
    for name, entry in files.items():
        if not (path / name).is_file():
            return f"{path / name} is missing"
        size = (path / name).stat().st_size
        if size != entry["size"]:
            return f"{path / name} is damaged ({size} bytes instead of {entry['size']})"
    return None


def find_start(folder: Path, resume: str | None) -> Checkpoint | None:
    """Where a training run in `folder` starts: at the checkpoint that `-r` names, or, for None, afresh.

    Raises UserError as `find` does, and when the run would come to write over checkpoints that are there.
    """
    if resume is not None:
        try:
            found = find(folder, resume)
        except MissingCheckpointError as error:
            raise MissingCheckpointError(f"{error}: to start afresh leave -r out, or use -r auto") from None
        refuse_rewind(folder, 0 if found is None else found.step)
        return found
    folders = _folders(folder)
    if folders:
        raise UserError(
            f"{folder} already holds iter_{max(folders)}: continue it with -r latest, "
            "or start afresh in another --output_dir"
        )
    return None


def refuse_rewind(folder: Path, step: int) -> None:
    """Raise UserError if a run that stands at `step` would come upon later checkpoints that are intact."""
    later = [n for n, path in _folders(folder).items() if n > step and damage(path) is None]
    if later:
        raise UserError(
            f"{folder} already holds iter_{min(later)}, after the step {step} to resume from: "
            "move it away, or use -r latest"
        )


# Reading


def verify(path: Path) -> dict[str, Any]:
    """Check every file of a checkpoint of ours against its hash and return the manifest.

    Raises UserError naming the file that differs.
    """
    manifest = json.loads((path / "manifest.json").read_text())
    for name, entry in manifest["files"].items():
        if sha256(path / name) != entry["sha256"]:
            raise UserError(
                f"{path / name} is damaged (its SHA-256 is not the one in manifest.json): "
                "resume from another checkpoint"
            )
    return manifest


def read_state(path: Path) -> State:
    """The `State` of a verified checkpoint."""
    return State(**json.loads((path / "state.json").read_text()))


def read_optimizer(path: Path) -> Any:
    """The optimiser state of a verified checkpoint, on the CPU."""
    return torch.load(path / "optimizer.pt", map_location="cpu", weights_only=True)


def read_ema(path: Path) -> dict[str, Tensor] | None:
    """The averaged weights of a verified checkpoint; None if its run kept none."""
    file = path / "ema.safetensors"
    return read_safetensors(file) if file.exists() else None


def load_weights(method: Method, path: Path) -> None:
    """Load the weights of a folder: a checkpoint of ours (the raw weights, not the average), a pretrained
    method, or an original's checkpoint, which may also be a file.

    Raises UserError when the folder is damaged or not a checkpoint, or when names or shapes differ.
    """
    if not path.exists():
        raise UserError(f"{path} is not a checkpoint folder, nor an original's file")
    if path.is_dir() and is_pretrained(path):
        load_into(method, path)
        return
    fault = damage(path) if path.is_dir() else None
    if fault is not None:
        raise UserError(f"{fault}: use another checkpoint")
    if _is_ours(path):
        verify(path)
        method.load_frozen()
        assign(method, method.completed(read_safetensors(path / "model.safetensors")), path)
        if not method.keeps_frozen:
            check_frozen(method, read_state(path), path)
        return
    weights = method.load_original(path)
    if weights is None:
        raise UserError(
            f"{path} is not a checkpoint: it has no manifest.json, and {type(method).__name__} "
            "does not know it as one of an original implementation"
        )
    assign(method, weights, path)


def find_trained(folder: Path, which: str) -> Checkpoint:
    """The checkpoint that `-r` names. Raises MissingCheckpointError where there is none, else as `find`."""
    checkpoint = find(folder, which)
    if checkpoint is None:
        raise MissingCheckpointError(f"{folder} holds no checkpoint: train first, or give another folder")
    return checkpoint


def load_for_inference(method: Method, checkpoint: Checkpoint) -> None:
    """Load a checkpoint, averaged weights where it has them, into a method that only renders from now on."""
    load_averaged(method, checkpoint)
    method.prepare_inference()


def load_averaged(method: Method, checkpoint: Checkpoint) -> None:
    """Load a checkpoint as `load_weights` does, then the averaged weights where it has them."""
    load_weights(method, checkpoint.path)
    average = None if checkpoint.original else read_ema(checkpoint.path)
    if average is not None:
        assign(method, saved_tensors(method) | average, checkpoint.path)


def open_pretrained(kind: type[Method], place: str | Path, scene: Any = None) -> Method:
    """Build a method of class `kind` from a pretrained folder, an iter_N of ours or a hub model.

    With averaged weights where there are any. Raises UserError when the folder holds another method, or
    weights that do not fit.
    """
    folder = locate(place)
    name, model = read_config(folder)
    check_method(kind, name, folder)
    method = kind.create(build(kind.Config, model, "model"), scene)
    load_averaged(method, open_folder(folder))
    return method.eval()


def check_frozen(method: nn.Module, state: State, path: Path) -> None:
    """Raise UserError if the weights that are not trained differ from those the checkpoint was made with."""
    here = frozen_hashes(method)
    wrong = sorted(
        part for part in state.frozen.keys() | here.keys() if state.frozen.get(part) != here.get(part)
    )
    if wrong:
        raise UserError(
            f"{path} was trained on other frozen weights ({', '.join(wrong)}): use the same pretrained files"
        )
