"""Experiments: a folder's `config.yaml` plus `key=value` words -> checked dataclasses.

Every error is one sentence that names the key, and the nearest known key when it is unknown.
"""

from __future__ import annotations

import dataclasses
import datetime
import difflib
import re
import types
import typing
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from common.errors import UserError
from dataloader.rig.config import RigConfig
from dataloader.room_scenes import RoomsConfig
from engine.key_value_files import SUFFIX, find_key_values, read_key_values

T = TypeVar("T")
_KINDS = {bool: "True or False", int: "a whole number", float: "a number", str: "text"}


@dataclass
class DataConfig:
    """The scene an experiment works on (`data:`)."""

    root: str = ""  # scene folder, or 'builtin:NAME'
    format: str = "auto"  # mvsnet, colmap, nerfstudio, llff; auto = what the folder holds
    images: str = "images"  # name of the photo folder inside root
    mesh: str = ""  # surface file, relative to root; empty = the one the folder holds
    max_size: int = 0  # long side of the photos in pixels; 0 = as they are
    source: str = "train"  # split the method is given
    target: str = "test"  # split that is scored
    hold_out_every: int = 8  # split of scenes that bring none: every n-th photo is a test view
    test_views: str = ""  # photos to hold out instead, by position: '0,7,14', '::7', '3:9'
    left_out_views: str = ""  # photos to use for nothing, likewise
    ray_cache: str = ""  # folder made by scripts/scene.py cache-rays; empty = cast rays as they are drawn
    threads: int = 0  # that decode photos; 0 = none besides the program's own
    pairs: str = ""  # folder (or file) of split files, for methods trained on image pairs
    warps: str = ""  # folder of the pairs' warped images, where they are prepared
    depths: str = ""  # folder of depth maps NAME.npy of a scene's photos; of several scenes, one folder each
    index: str = ""  # evaluation index of a set of scenes: which views are given, which are scored
    rooms: RoomsConfig = field(default_factory=RoomsConfig)  # of builtin:rooms
    rig: RigConfig = field(default_factory=RigConfig)  # clips of several cameras
    cache: str = ""  # folder for copies of remote files; empty = $PARALLAX_CACHE or ~/.cache/parallax
    max_bad_fraction: float = 0.001  # unreadable samples or evaluated scenes tolerated, as a fraction
    validation_scenes: int = 8  # of many: how many tasks are scored while training, evenly spread; 0 = all

    def __post_init__(self) -> None:
        _require(self.max_size >= 0, "data.max_size", self.max_size, "at least 0 (0 keeps the photos' size)")
        _require(self.validation_scenes >= 0, "data.validation_scenes", self.validation_scenes, "at least 0")
        _require(0 <= self.max_bad_fraction <= 1, "data.max_bad_fraction", self.max_bad_fraction, "in [0, 1]")


@dataclass
class TrainingConfig:
    """How an experiment is trained (`training:`)."""

    steps: int = 1000  # optimiser steps
    batch_size: int = 1  # samples per process and micro-batch (-b)
    accumulation: int = 1  # micro-batches per step
    workers: int = 0  # loader processes (-w)
    seed: int = 0
    learning_rate: float = 1e-3
    warmup_steps: int = 0  # linear from initial_lr_factor
    initial_lr_factor: float = 0.0  # factor on the learning rate at the first step of the warm-up
    schedule: Literal["constant", "cosine", "linear", "exponential", "multistep", "poly"] = "constant"
    final_lr_factor: float = 0.1  # factor at the last step (cosine, linear, exponential)
    milestones: tuple[int, ...] = ()  # steps from which the learning rate is lower (multistep)
    milestone_factor: float = 0.1  # what each milestone multiplies it by
    poly_power: float = 0.9  # poly: the learning rate is what is left of the run, to this power
    clip_norm: float = 0.0  # global gradient norm; 0 = off
    skip_norm: float = 0.0  # a step whose gradient norm exceeds this is left out; 0 = off
    ema_decay: float = 0.0  # 0 = no moving average of the weights
    log_every: int = 10  # steps between logged scalars
    save_every: int = 500  # steps between checkpoints
    keep: int = 2  # newest checkpoints kept, at least 2
    validate_every: int = 0  # steps between validations; 0 = none
    on_nan: str = "stop"  # stop, or skip(k): skip such steps, stop after k in a row
    preview_every: int = 0  # steps between pictures of what the method makes of a batch; 0 = none
    init_from: str = ""  # checkpoint folder to take weights from, at step 0
    precision: Literal["launch", "no", "bf16", "fp16"] = "launch"  # launch: as the accelerate file says
    tracker: Literal["tensorboard", "wandb", "none"] = "tensorboard"

    def __post_init__(self) -> None:
        for key in ("steps", "batch_size", "accumulation", "log_every", "save_every"):
            _require(getattr(self, key) >= 1, f"training.{key}", getattr(self, key), "at least 1")
        for key in (
            "workers",
            "warmup_steps",
            "initial_lr_factor",
            "clip_norm",
            "skip_norm",
            "validate_every",
            "preview_every",
            "final_lr_factor",
            "milestone_factor",
            "seed",
        ):
            _require(getattr(self, key) >= 0, f"training.{key}", getattr(self, key), "at least 0")
        _require(self.learning_rate > 0, "training.learning_rate", self.learning_rate, "above 0")
        _require(self.poly_power > 0, "training.poly_power", self.poly_power, "above 0")
        _require(
            all(step >= 1 for step in self.milestones),
            "training.milestones",
            self.milestones,
            "of steps from 1",
        )
        _require(0 <= self.ema_decay < 1, "training.ema_decay", self.ema_decay, "in [0, 1)")
        _require(self.keep >= 2, "training.keep", self.keep, "at least 2 (so many checkpoints are kept)")
        _require(
            _skip_limit(self.on_nan) is not None, "training.on_nan", self.on_nan, "stop or skip(k), k >= 1"
        )

    @property
    def nan_limit(self) -> int:
        """How many non-finite steps in a row end the run; 0: the first one does."""
        return _skip_limit(self.on_nan) or 0


def _skip_limit(text: str) -> int | None:
    """0 for 'stop', k for 'skip(k)', None for anything else."""
    match = re.fullmatch(r"stop|skip\(([1-9]\d*)\)", text.replace(" ", ""))
    return None if match is None else int(match[1] or 0)


def _require(condition: bool, name: str, value: Any, rule: str) -> None:
    if not condition:
        raise UserError(f"config key {name!r} is {value!r}: it must be {rule}")


@dataclass
class Experiment:
    """A resolved experiment: `folder/config.yaml` with the overrides applied."""

    method: str
    model: Any
    data: DataConfig = field(default_factory=DataConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)


def read_config(
    folder: Path,
    overrides: Sequence[str] = (),
    translate: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """Read the config of a folder (`config_file`) and apply dotted `key=value` words.

    translate: applied to the file's content before the words are. Raises UserError for a bad file or word.
    """
    path = config_file(folder)
    config = read_key_values(path) if path.suffix == SUFFIX else _read_yaml(path)
    config = config if translate is None else translate(config)
    return override(config, overrides)


def config_file(place: Path) -> Path:
    """Where an experiment is written down: `config.yaml` in a folder, or, where it has none, the one file of
    `key = value` lines there, an original's; such a file may also be named itself.

    Raises UserError where there is neither, or several of the latter.
    """
    if place.suffix == SUFFIX and place.is_file():
        return place
    path = place / "config.yaml"
    found = path if path.is_file() else find_key_values(place)
    if found is None:
        raise UserError(f"{path} does not exist: -e takes a folder that holds a config.yaml{_near(place)}")
    return found


def _read_yaml(path: Path) -> dict[str, Any]:
    import yaml

    try:
        config = yaml.safe_load(path.read_text()) or {}
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid YAML ({' '.join(str(error).split())})") from None
    if not isinstance(config, dict):
        raise UserError(f"{path} must hold 'key: value' lines")
    return config


def override(config: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A raw config with dotted `key=value` words applied, in place. Raises UserError for a bad word."""
    for word in overrides:
        key, separator, text = word.partition("=")
        if not separator or not key:
            raise UserError(f"{word!r} is not an override: write key.path=value")
        _assign(config, key.split("."), _word_value(word, text), word)
    return config


def _near(folder: Path) -> str:
    """A hint at the experiment beside a folder that does not exist, whose name is most like its."""
    beside = [path.parent.name for path in folder.parent.glob("*/config.yaml")]
    near = difflib.get_close_matches(folder.name, beside, n=1)
    return f"; did you mean {folder.parent / near[0]}?" if near else ""


def _word_value(word: str, text: str) -> Any:
    """The YAML value of an override's text; names such as 0001, 1.50 or 2024-05-01 stay text."""
    import yaml

    try:
        value = yaml.safe_load(text) if text else ""
    except (yaml.YAMLError, ValueError):  # ValueError: a date that does not exist
        raise UserError(f"override {word!r}: {text!r} is not a YAML value (quote it)") from None
    spelt_otherwise = (
        isinstance(value, (int, float)) and re.fullmatch(r"[\d._:]+", text) and str(value) != text
    )
    return text if spelt_otherwise or isinstance(value, datetime.date) else value


def _assign(config: dict[str, Any], keys: list[str], value: Any, word: str) -> None:
    for key in keys[:-1]:
        if config.get(key) is None:  # absent, or a section without entries
            config[key] = {}
        config = config[key]
        if not isinstance(config, dict):
            raise UserError(f"override {word!r}: {key} is a value, not a section")
    config[keys[-1]] = value


def build(kind: type[T], values: Any, path: str = "") -> T:
    """Make a dataclass from a mapping, checking keys and types.

    path: prefix for messages, e.g. 'training'.
    """
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise UserError(f"config section {path!r} must hold 'key: value' lines")
    hints = typing.get_type_hints(kind)
    known = {item.name: item for item in dataclasses.fields(kind)}  # type: ignore[arg-type]
    arguments = {}
    for key, value in values.items():
        name = f"{path}.{key}" if path else str(key)
        if key not in known:
            raise UserError(f"unknown config key {name!r}{_suggestion(str(key), list(known), path)}")
        arguments[key] = _convert(hints[key], value, name)
    return kind(**arguments)


def _suggestion(key: str, known: list[str], path: str) -> str:
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    prefix = f"{path}." if path else ""
    return f": did you mean {prefix + near[0]!r}?" if near else f"; known keys: {', '.join(known)}"


def _convert(hint: Any, value: Any, name: str) -> Any:
    """Check a YAML value against a type hint; ints become floats, lists become tuples, '1e-4' becomes a
    number.
    """
    if dataclasses.is_dataclass(hint):
        return build(hint, value, name)  # type: ignore[arg-type]
    origin = get_origin(hint)
    if origin is Literal:
        if value is False and "no" in get_args(hint):  # YAML takes a bare no for False
            return "no"
        if type(value) is int and str(value) in get_args(hint):  # and words of digits for numbers
            return str(value)
        if value not in get_args(hint):
            raise UserError(
                f"config key {name!r} is {value!r}: choose from {', '.join(map(str, get_args(hint)))}"
            )
        return value
    if origin in (Union, types.UnionType):
        if value is None and type(None) in get_args(hint):
            return None
        return _convert(next(arg for arg in get_args(hint) if arg is not type(None)), value, name)
    if origin in (list, tuple):
        return _convert_sequence(hint, origin, value, name)
    return _convert_scalar(hint, value, name)


def _convert_sequence(hint: Any, origin: type, value: Any, name: str) -> Any:
    if not isinstance(value, (list, tuple)):
        raise UserError(f"config key {name!r} is {value!r}: it must be a list")
    kinds = [kind for kind in get_args(hint) if kind is not Ellipsis]
    if origin is tuple and Ellipsis not in get_args(hint) and len(kinds) != len(value):
        raise UserError(f"config key {name!r} has {len(value)} entries, it takes {len(kinds)}")
    fixed = origin is tuple and len(kinds) == len(value)
    return origin(_convert(kinds[i] if fixed else kinds[0], item, name) for i, item in enumerate(value))


def _convert_scalar(hint: Any, value: Any, name: str) -> Any:
    if hint is Any:
        return value
    if hint is float and not isinstance(value, bool) and isinstance(value, (int, float, str)):
        with suppress(ValueError):  # not a number: the message below says so
            return float(value)
    elif hint is str and isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    elif isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    raise UserError(f"config key {name!r} is {value!r}: it must be {_KINDS.get(hint, hint.__name__)}")


def resolve(raw: dict[str, Any], method_config: type) -> Experiment:
    """Turn a raw config into a checked Experiment. method_config: dataclass of the `model:` section."""
    known = ["method", "model", "data", "training"]
    for key in raw:
        if key not in known:
            raise UserError(f"unknown config key {str(key)!r}{_suggestion(str(key), known, '')}")
    return Experiment(
        method=str(raw["method"]),
        model=build(method_config, raw.get("model"), "model"),
        data=build(DataConfig, raw.get("data"), "data"),
        training=build(TrainingConfig, raw.get("training"), "training"),
    )


def to_dict(experiment: Experiment) -> dict[str, Any]:
    """The resolved experiment as plain values, for config.yaml in outputs and checkpoints."""
    return dataclasses.asdict(experiment)
