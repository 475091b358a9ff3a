"""Scripts called in the tests' own process: quicker than a process each, and what they raise is seen."""

from __future__ import annotations

import importlib.util
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from accelerate.state import AcceleratorState

CallMain = Callable[..., tuple[int, str, str]]
Finished = subprocess.CompletedProcess[str]
Run = Callable[..., Finished]


@pytest.fixture
def call_main(
    repo_root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[CallMain]:
    """Call a script's main, by its path in the repository: exit code, stdout, stderr."""
    scripts: dict[str, ModuleType] = {}
    root = logging.getLogger()
    before = root.handlers[:], root.level

    def call(name: str, *words: str | Path) -> tuple[int, str, str]:
        AcceleratorState._reset_state(reset_partial_state=True)
        if name not in scripts:
            scripts[name] = _load(repo_root / name)
        monkeypatch.setattr(sys, "argv", [Path(name).name, *map(str, words)])
        code = 0
        try:
            scripts[name].main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    yield call
    root.handlers[:], root.level = before


@pytest.fixture
def run(call_main: CallMain) -> Run:
    """As `call_main`; what it returns is that of a process."""

    def call(*words: str | Path) -> Finished:
        return subprocess.CompletedProcess(words, *call_main(*words))

    return call


def refusal(finished: Finished) -> str:
    """The error line of a command that refused bad input with exit code 2."""
    assert finished.returncode == 2, finished.stderr
    assert "Traceback" not in finished.stderr
    lines = [line for line in finished.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, finished.stderr
    return lines[0]


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"{path.stem}_script", path)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = script  # dataclasses look their module up
    spec.loader.exec_module(script)
    return script
