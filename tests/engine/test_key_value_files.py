"""Config files of `key = value` lines: what counts as one, how lines are read, and how `-e` finds them."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.errors import UserError
from engine.config import config_file, read_config
from engine.key_value_files import find_key_values, read_key_values

TEXT = """
# a comment
; another
[section]
root_dir = /data/some folder/train   # where it is
--lr: 5e-4
name='quoted # text'
size = [640, 360]
debug
empty =
"""


def test_lines_are_read_as_text(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text(TEXT)
    assert read_key_values(file) == {
        "root_dir": "/data/some folder/train",
        "lr": "5e-4",
        "name": "quoted # text",
        "size": "[640, 360]",
        "debug": "True",
        "empty": "",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lr = 1\n= 3\n", r"a\.txt line 2 is not 'key = value': '= 3'"),
        ("lr = 1\n\nlr = 2\n", r"a\.txt line 3 gives 'lr' a second time"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(UserError, match=message):
        read_key_values(tmp_path / "a.txt")


def test_bytes_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"a\.txt is no text"):
        read_key_values(tmp_path / "a.txt")


def test_a_folder_holds_one_such_file_and_maybe_other_texts(tmp_path: Path) -> None:
    assert find_key_values(tmp_path) is None
    (tmp_path / "notes.txt").write_text("These notes are not a config file: at all\n")
    (tmp_path / "numbers.txt").write_text("1 2 3\n")
    assert find_key_values(tmp_path) is None
    with pytest.raises(UserError, match=r"config\.yaml does not exist"):
        config_file(tmp_path)
    (tmp_path / "train.txt").write_text("# train\nlr = 1\n")
    assert config_file(tmp_path) == tmp_path / "train.txt"
    assert config_file(tmp_path / "train.txt") == tmp_path / "train.txt"
    assert read_config(tmp_path, ["training.steps=3"]) == {"lr": "1", "training": {"steps": 3}}
    (tmp_path / "test.txt").write_text("lr = 1\n")
    with pytest.raises(UserError, match=r"several config files .test\.txt, train\.txt.: name one"):
        config_file(tmp_path)
    (tmp_path / "config.yaml").write_text("method: toy\n")
    assert config_file(tmp_path) == tmp_path / "config.yaml"
