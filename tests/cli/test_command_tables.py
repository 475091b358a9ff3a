"""Every command that a docs page names as the counterpart of an original's exists: its --help works."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

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
                    chosen = words[:2]
                elif "-e" in words:
                    chosen += ["-e", words[words.index("-e") + 1]]
                found.add(tuple(chosen))
    return [list(words) for words in sorted(found)]


def test_there_are_tables() -> None:
    assert len(named_commands()) >= 5


@pytest.mark.parametrize("words", named_commands(), ids=" ".join)
def test_help(words: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, *words, "--help"], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout
    assert "examples:" in done.stdout
