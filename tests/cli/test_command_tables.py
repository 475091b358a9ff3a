"""Every command that a docs page names as the counterpart of an original's exists: its --help works."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.cli.conftest import CallMain

ROOT = Path(__file__).resolve().parents[2]
HEADING = "## The original's commands"
SCRIPTS = r"(?:scripts/\w+|train|test|video_script)\.py"


def named_commands() -> list[list[str]]:
    """Script, sub-command and experiment of the commands in the right columns of all such tables."""
    found = set()
    for page in sorted((ROOT / "docs").glob("*.md")):
        table = page.read_text().partition(HEADING)[2].partition("\n## ")[0]
        for row in re.findall(r"^\|.*\|(.*)\|$", table, re.MULTILINE):
            for command in re.findall(rf"`({SCRIPTS} [^`]*)`", row):
                words = shlex.split(command)
                chosen = words[:1]
                if words[0].startswith("scripts/"):
                    chosen += [word for word in words[1:2] if not word.startswith("-")]
                elif "-e" in words:
                    chosen += ["-e", words[words.index("-e") + 1]]
                found.add(tuple(chosen))
    return [list(words) for words in sorted(found)]


def test_there_are_tables() -> None:
    assert len(named_commands()) >= 5


@pytest.mark.parametrize("words", named_commands(), ids=" ".join)
def test_help(words: list[str], call_main: CallMain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    code, printed, errors = call_main(*words, "--help")
    assert code == 0, errors
    assert "usage:" in printed
    assert "examples:" in printed
