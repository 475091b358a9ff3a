"""Random numbers that belong to one item of a long preparation, whoever makes it and when."""

from __future__ import annotations

import hashlib

import torch


def keyed_generator(seed: int, key: str) -> torch.Generator:
    """A generator on the CPU that depends on the seed and the item's name, and on nothing else."""
    digest = hashlib.blake2b(f"{seed} {key}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)
