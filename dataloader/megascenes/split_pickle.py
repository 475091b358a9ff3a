"""The split files of MegaScenes NVS: pickles, read without running anything that they hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from common.errors import UserError
from dataloader.plain_pickle import MALFORMED, ForbiddenError, array_numbers, load_plain


class _Array(list):
    """Stands for a `numpy.ndarray` of numbers, as nested lists."""

    def __setstate__(self, state: tuple) -> None:
        self[:] = np.atleast_1d(array_numbers(state)).tolist()


def read_split_pickle(path: Path) -> list[Any]:
    """The list that a split pickle holds: numbers, texts, lists, tuples and dicts only; arrays become lists.

    The whole list lives in memory, about 2 kB per pair. Raises UserError when the file is missing, cut off,
    holds no list, or names anything that such data do not need.
    """
    try:
        with path.open("rb") as file:
            value = load_plain(file, _Array)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): give the path of a split file") from None
    except ForbiddenError as error:
        raise UserError(
            f"{path} asks for {error}, which no list of image pairs needs: do not trust this file"
        ) from None
    except MALFORMED as error:
        reason = str(error) or type(error).__name__
        raise UserError(f"{path} is cut off or no pickle ({reason}): copy it again") from None
    if not isinstance(value, list):
        raise UserError(f"{path} holds a {type(value).__name__}: a split file holds a list of pairs")
    return value
