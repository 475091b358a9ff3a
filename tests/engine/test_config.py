"""Experiments: YAML and overrides -> checked dataclasses, errors that one can act on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml

from common.errors import UserError
from engine.config import Experiment, TrainingConfig, build, read_config, resolve, to_dict


@dataclass
class Inner:
    near: float = 0.1


@dataclass
class Model:
    layers: int = 4
    scale: float = 1.0
    fast: bool = False
    kind: Literal["a", "b"] = "a"
    size: tuple[int, int] = (8, 8)
    names: list[str] | None = None
    limit: int | None = None
    inner: Inner | None = None


def _resolve(tmp_path: Path, text: str = "method: toy", *words: str) -> Experiment:
    (tmp_path / "config.yaml").write_text(text)
    return resolve(read_config(tmp_path, words), Model)


def _error(tmp_path: Path, text: str = "method: toy", *words: str) -> str:
    with pytest.raises(UserError) as caught:
        _resolve(tmp_path, text, *words)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_defaults_file_and_overrides_in_this_order(tmp_path: Path) -> None:
    text = "method: toy\nmodel: {layers: 6, inner: {near: 1}}\ntraining:\n  steps: 7\ndata:\n"
    experiment = _resolve(tmp_path, text, "training.steps=9", "data.root=a/b=c", "model.inner.near=2e-3")
    assert experiment.model == Model(layers=6, inner=Inner(0.002))
    assert (experiment.training.steps, experiment.training.batch_size) == (9, 1)
    assert experiment.data.root == "a/b=c"


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("training.learning_rate=1e-4", 1e-4),  # YAML 1.1 reads this as text
        ("training.learning_rate='1e-4'", 1e-4),
        ("training.learning_rate=1", 1.0),
        ("model.fast=True", True),
        ("model.fast=False", False),
        ("model.fast=false", False),
        ("model.size=[3, 4]", (3, 4)),
        ("model.names=[x, y]", ["x", "y"]),
        ("model.names=null", None),
        ("model.limit=5", 5),
        ("data.root=", ""),
        ("data.root=123", "123"),
        ("data.root=0012", "0012"),  # YAML 1.1 reads an octal number
        ("data.root=1.50", "1.50"),
        ("data.root=2024-05-01", "2024-05-01"),
        ("training.learning_rate=0.10", 0.1),
        ("training.tracker=none", "none"),
    ],
)
def test_words_become_values_of_the_key_s_type(tmp_path: Path, word: str, value: Any) -> None:
    experiment = _resolve(tmp_path, "method: toy", word)
    section, key = word.partition("=")[0].split(".")
    found = getattr(getattr(experiment, section), key)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("word", "parts"),
    [
        ("training.stesp=5", ["'training.stesp'", "did you mean 'training.steps'"]),
        ("model.inner.naer=5", ["'model.inner.naer'", "'model.inner.near'"]),
        ("trainig.steps=5", ["'trainig'", "'training'"]),
        ("model.qqqq=5", ["'model.qqqq'", "known keys: layers, scale"]),
        ("training.steps=many", ["'training.steps' is 'many'", "a whole number"]),
        ("training.steps=1.5", ["a whole number"]),
        ("training.steps=True", ["a whole number"]),
        ("training.learning_rate=fast", ["'training.learning_rate' is 'fast'", "a number"]),
        ("model.fast=yep", ["'model.fast'", "True or False"]),
        ("model.fast=1", ["True or False"]),
        ("model.fast='False'", ["True or False"]),
        ("model.kind=c", ["choose from a, b"]),
        ("model.size=[1, 2, 3]", ["3 entries, it takes 2"]),
        ("model.size=4", ["must be a list"]),
        ("training.steps=0", ["training.steps", "at least 1"]),
        ("training.workers=-1", ["training.workers", "at least 0"]),
        ("training.keep=1", ["training.keep", "at least 2"]),
        ("training.learning_rate=nan", ["training.learning_rate", "above 0"]),
        ("training.ema_decay=1", ["training.ema_decay"]),
        ("training.on_nan=skip", ["training.on_nan", "skip(k)"]),
        ("training.on_nan=skip(0)", ["training.on_nan"]),
        ("data.max_bad_fraction=2", ["data.max_bad_fraction"]),
        ("data.max_size=-5", ["data.max_size", "at least 0"]),
        ("training.steps=010", ["a whole number"]),
        ("data.root=2024-13-45", ["not a YAML value"]),
        ("training.steps", ["key.path=value"]),
        ("training=5", ["'training'", "'key: value' lines"]),
        ("method.name=5", ["method is a value"]),
        ("data.root=[a", ["not a YAML value"]),
    ],
)
def test_errors_name_the_key_and_what_to_do(tmp_path: Path, word: str, parts: list[str]) -> None:
    message = _error(tmp_path, "method: toy", word)
    assert all(part in message for part in parts), message


def test_bad_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"config\.yaml does not exist"):
        read_config(tmp_path)
    assert "not valid YAML" in _error(tmp_path, "method: [toy")
    assert "'key: value' lines" in _error(tmp_path, "- method\n- toy")
    assert "unknown config key '3'" in _error(tmp_path, "method: toy\n3: x")
    (tmp_path / "config.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not valid YAML"):
        read_config(tmp_path)


def test_on_nan() -> None:
    assert TrainingConfig().nan_limit == 0
    assert TrainingConfig(on_nan="skip(12)").nan_limit == 12


def test_a_bare_no_is_the_choice_of_that_name() -> None:
    """YAML takes it for False."""
    assert build(TrainingConfig, {"precision": False}).precision == "no"
    with pytest.raises(UserError, match=r"'tracker' is False: choose from"):
        build(TrainingConfig, {"tracker": False})


@dataclass
class Modes:
    mode: Literal["single", "360"] = "single"


def test_a_choice_of_digits_is_no_number() -> None:
    """YAML takes it for one."""
    assert build(Modes, {"mode": 360}).mode == "360"
    with pytest.raises(UserError, match="'mode' is 180: choose from single, 360"):
        build(Modes, {"mode": 180})


def test_a_resolved_experiment_survives_yaml(tmp_path: Path) -> None:
    experiment = _resolve(tmp_path, "method: toy", "model.size=[3, 4]", "training.learning_rate=1e-5")
    again = _resolve(tmp_path, yaml.safe_dump(to_dict(experiment)))
    assert again == experiment


def test_a_folder_with_a_slip_in_its_name_is_hinted_at(tmp_path: Path) -> None:
    (tmp_path / "warp_plus_pose").mkdir()
    (tmp_path / "warp_plus_pose" / "config.yaml").write_text("method: x\n")
    with pytest.raises(UserError, match=r"did you mean .*warp_plus_pose"):
        read_config(tmp_path / "warp_and_pose")
    with pytest.raises(UserError) as other:
        read_config(tmp_path / "lvsm")
    assert "did you mean" not in str(other.value)
