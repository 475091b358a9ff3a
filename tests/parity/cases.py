"""Recorded inputs and outputs of the original implementations, and how a check says what it compared.

Cases are the `.safetensors` files below `$PARITY_DIR/METHOD/` (default: `../shared/parity`). Where that
folder is absent, the small ones that ship in `tests/parity/fixtures/` are used. A case's metadata entry
`case` is JSON with its kind, configuration and tolerance.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

_HERE = Path(__file__).resolve().parent


def parity_folder() -> Path:
    """Where the cases lie. A `$PARITY_DIR` that is set but absent is an error."""
    if "PARITY_DIR" in os.environ:
        folder = Path(os.environ["PARITY_DIR"])
        if not folder.is_dir():
            raise FileNotFoundError(f"$PARITY_DIR is {folder}, which is no folder")
        return folder
    shared = _HERE.parents[1].parent / "shared" / "parity"
    return shared if shared.is_dir() else _HERE / "fixtures"


@dataclass
class Case:
    """One file. `compared` collects the outputs that a check has compared."""

    path: Path
    compared: set[str] = field(default_factory=set)

    @cached_property
    def meta(self) -> dict[str, Any]:
        """The metadata of the file: kind, config, seed, tolerance, notes."""
        with safe_open(str(self.path), "pt") as file:
            return json.loads(file.metadata()["case"])

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        """Every tensor by its full name, `input.x`, `output.y`, ..."""
        with safe_open(str(self.path), "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)

    @property
    def kind(self) -> str:
        return self.meta["kind"]

    @property
    def config(self) -> dict[str, Any]:
        return self.meta["config"]

    def input(self, name: str) -> Tensor:
        return self.tensors[f"input.{name}"]

    def output(self, name: str) -> Tensor:
        """A recorded output, which from now on counts as compared: judge it."""
        self.compared.add(name)
        return self.tensors[f"output.{name}"]

    def inputs(self) -> list[str]:
        """Names of the inputs."""
        return [name.removeprefix("input.") for name in self.tensors if name.startswith("input.")]

    def outputs(self) -> list[str]:
        """Names of the recorded outputs."""
        return [name.removeprefix("output.") for name in self.tensors if name.startswith("output.")]

    def text(self, name: str) -> str:
        """An input stored as bytes."""
        return bytes(self.input(name).numpy()).decode()

    def close(self, name: str, actual: Any, rtol: float = 0.0, atol: float = 0.0) -> None:
        """Assert that `actual` equals the output `name` within rtol * |recorded| + atol."""
        recorded = self.output(name)
        actual = torch.as_tensor(actual)
        assert actual.shape == recorded.shape, f"{name}: {tuple(actual.shape)}, not {tuple(recorded.shape)}"
        torch.testing.assert_close(
            actual.double(), recorded.double(), rtol=rtol, atol=atol, msg=lambda text: f"{name}: {text}"
        )

    def finish(self) -> None:
        """Assert that something was compared, and that no recorded output was forgotten."""
        assert self.compared, f"{self.path.name}: nothing was compared"
        forgotten = set(self.outputs()) - self.compared
        assert not forgotten, f"{self.path.name}: outputs never compared: {sorted(forgotten)}"


def collect(method: str, not_built: dict[str, str]) -> list[Case]:
    """The cases of a method, less the kinds of products that do not exist yet (kind -> reason)."""
    cases = [Case(path) for path in sorted((parity_folder() / method).glob("*.safetensors"))]
    return [case for case in cases if case.kind not in not_built]


def case_name(case: Case) -> str:
    """The name pytest shows."""
    return case.path.stem
