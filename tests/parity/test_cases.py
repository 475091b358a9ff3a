"""The collector of recorded cases: what is found, and what counts as compared."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.parity.cases import Case, collect, parity_folder


def write_case(folder: Path, name: str, kind: str) -> None:
    folder.mkdir(exist_ok=True)
    meta = {"case": json.dumps({"kind": kind, "config": {"n": 3}, "name": name})}
    tensors = {"input.x": torch.arange(3.0), "output.y": torch.arange(3.0) + 1, "output.z": torch.zeros(2)}
    save_file(tensors, str(folder / f"{name}.safetensors"), metadata=meta)


@pytest.fixture
def case(tmp_path: Path) -> Case:
    write_case(tmp_path, "one", "sum")
    return Case(tmp_path / "one.safetensors")


def test_a_case_is_read(case: Case) -> None:
    assert case.kind == "sum"
    assert case.config == {"n": 3}
    assert case.inputs() == ["x"]
    assert sorted(case.outputs()) == ["y", "z"]
    case.close("y", case.input("x") + 1)


def test_differences_are_found(case: Case) -> None:
    with pytest.raises(AssertionError, match="y: "):
        case.close("y", case.input("x") + 1.01, atol=1e-3)
    with pytest.raises(AssertionError, match="not \\(3,\\)"):
        case.close("y", torch.zeros(1))


def test_comparing_nothing_or_not_everything_fails(case: Case) -> None:
    with pytest.raises(AssertionError, match="nothing was compared"):
        case.finish()
    case.close("y", case.input("x") + 1)
    with pytest.raises(AssertionError, match="never compared: \\['z'\\]"):
        case.finish()
    case.close("z", torch.zeros(2))
    case.finish()


def test_only_kinds_without_a_product_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARITY_DIR", str(tmp_path))
    write_case(tmp_path / "method", "a", "known")
    write_case(tmp_path / "method", "b", "later")
    write_case(tmp_path / "method", "c", "unheard of")
    assert [case.kind for case in collect("method", {"later": "not built yet"})] == ["known", "unheard of"]


def test_a_folder_that_is_named_but_absent_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARITY_DIR", str(tmp_path / "missing"))
    with pytest.raises(FileNotFoundError, match="PARITY_DIR"):
        parity_folder()
