"""The split files of MegaScenes NVS, which are pickles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from common.errors import UserError
from dataloader.plain_pickles import read_plain_pickle


def read_split_pickle(path: Path) -> list[Any]:
    """The list that a split pickle holds: numbers, texts, lists, tuples and dicts only; arrays become lists.

    The whole list lives in memory, about 2 kB per pair. Raises UserError when the file is missing, cut off,
    holds no list, or names anything that such data do not need.
    """
    value = read_plain_pickle(path, "split file")
    if not isinstance(value, list):
        raise UserError(f"{path} holds a {type(value).__name__}: a split file holds a list of pairs")
    return value
