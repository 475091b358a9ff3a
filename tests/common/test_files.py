"""Files appear whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.errors import UserError
from common.files import replacing


def test_a_finished_block_replaces_the_file(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.txt"
    for text in ("old", "new"):
        with replacing(path) as partial:
            assert partial.suffix == ".tmp"
            partial.write_text(text)
        assert path.read_text() == text
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]


def test_an_interrupted_block_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(KeyError), replacing(path) as partial:
        partial.write_text("half")
        raise KeyError("stop")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file.txt"]


def test_unwritable_places_are_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "below.txt", Path("/proc/none/x.txt")):
        with pytest.raises(UserError, match=f"cannot write {path}"), replacing(path) as partial:
            partial.write_text("x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="cannot write"), replacing(tmp_path / "folder") as partial:
        partial.write_text("x")
