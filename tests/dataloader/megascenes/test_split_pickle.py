"""Split pickles, honest and hostile."""

from __future__ import annotations

import os
import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.errors import UserError
from dataloader.megascenes.split_pickle import read_split_pickle


def dump(path: Path, value: Any, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(value, protocol))
    return path


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_lists_of_plain_values_come_back(tmp_path: Path, entry: Callable, protocol: int) -> None:
    value = [entry(), tuple(entry(1, 2)), OrderedDict(a=1)]
    assert read_split_pickle(dump(tmp_path / "split.pkl", value, protocol)) == value


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_numpy_numbers_become_plain_ones(tmp_path: Path, protocol: int) -> None:
    arrays = [np.float64(1.5), np.int32(-7), np.arange(6.0).reshape(2, 3), np.arange(3, dtype=">i2")]
    arrays.append(np.asfortranarray(np.arange(6.0).reshape(2, 3)))
    read = read_split_pickle(dump(tmp_path / "split.pkl", arrays, protocol))
    assert read == [1.5, -7, [[0, 1, 2], [3, 4, 5]], [0, 1, 2], [[0, 1, 2], [3, 4, 5]]]
    assert type(read[0]) is float


class _Runs:
    def __init__(self, function: Callable, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (os.system, "system"),
        (eval, "eval"),
        (np.load, "load"),
        (getattr, "getattr"),
        (np.ndarray.dumps, "getattr"),
    ],
)
def test_a_pickle_that_runs_something_is_refused(tmp_path: Path, function: Callable, name: str) -> None:
    mark = tmp_path / "mark"
    path = dump(tmp_path / "split.pkl", [_Runs(function, f"touch {mark}")])
    with pytest.raises(UserError, match=rf"split\.pkl asks for .*{name}"):
        read_split_pickle(path)
    assert not mark.exists()


def test_arrays_of_objects_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="do not trust"):
        read_split_pickle(dump(tmp_path / "split.pkl", [np.array([{}], dtype=object)]))


def test_a_cut_off_pickle_is_refused_wherever_it_was_cut(tmp_path: Path, entry: Callable) -> None:
    path = dump(tmp_path / "split.pkl", [entry()])
    data = path.read_bytes()
    for length in range(0, len(data) - 1, 7):
        path.write_bytes(data[:length])
        with pytest.raises(UserError, match=r"split\.pkl"):
            read_split_pickle(path)


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds a dict"):
        read_split_pickle(dump(tmp_path / "split.pkl", {}))
    with pytest.raises(UserError, match="cannot be read"):
        read_split_pickle(tmp_path / "missing.pkl")
    rng = np.random.default_rng(0)
    for _ in range(50):
        (tmp_path / "noise.pkl").write_bytes(rng.bytes(200))
        with pytest.raises(UserError):
            read_split_pickle(tmp_path / "noise.pkl")
