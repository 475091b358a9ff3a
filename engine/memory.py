"""Running out of memory as one line that says which setting to lower."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from common.errors import UserError

TRAINING = "lower -b (training.batch_size); training.accumulation keeps the samples per step"
RENDERING = "lower -b, or data.max_size"
FILMING = "lower data.max_size"

_CPU = "can't allocate memory"  # what torch's CPU allocator says, in a RuntimeError


@contextmanager
def out_of_memory(advice: str) -> Iterator[None]:
    """Turn a device's or torch's lack of memory inside the block into a UserError that gives the advice."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise UserError(f"the GPU has too little memory ({_reason(error)}): {advice}") from None
    except RuntimeError as error:
        if _CPU not in str(error):
            raise
        raise UserError(f"this machine has too little memory: {advice}") from None


def _reason(error: BaseException) -> str:
    """The first two sentences of CUDA's report: how much was asked for, of how much."""
    sentences = " ".join(str(error).split()).split(". ")
    return ". ".join(sentences[:2]).removesuffix(".") or "out of memory"
