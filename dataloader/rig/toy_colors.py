"""Draws the textures of procedural rigs: from plain to busy, from grey to colourful."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from dataloader.rig.toy_site import log_uniform
from dataloader.rig.toy_stage import PAINT, PATTERNS, Floats

_PATTERNED = 0.75  # how often there is a pattern
_FINEST = 70.0  # highest frequency of noise, per distance of the far wall
_ROWS = {"brick": 0.5, "planks": 0.3}  # height of the rows of a pattern, by its period


def draw_paint(random: np.random.Generator, wall: float, saturation: float) -> NDArray[np.void]:
    """A PAINT for surfaces up to the far wall, at `wall` metres.

    saturation: how colourful, 0 to 1.
    """
    pattern = PATTERNS[1 + random.integers(len(PATTERNS) - 1)] if random.random() < _PATTERNED else "none"
    base = _tone(random, saturation)
    second = np.clip(base + _either(random) * random.uniform(0.12, 0.5) * random.uniform(0.5, 1, 3), 0, 1)
    kin = base * random.uniform(0.35, 0.75) if random.random() < 0.5 else 0.4 + 0.6 * base
    third = _tone(random, saturation) if random.random() < 0.35 else kin
    period = wall * log_uniform(random, 0.025, 0.12)
    angle = 0.0
    if random.random() < (0.2 if pattern in _ROWS else 0.45):
        angle = math.pi / 2 if random.random() < 0.5 else random.uniform(0, math.pi)
    axis = np.array([math.cos(angle), math.sin(angle)])
    along = np.array([-axis[1], axis[0]]) / _ROWS.get(pattern, 1.0)
    fields = (
        PATTERNS.index(pattern),
        random.uniform(0.35, 1.0),
        np.stack([base, second, third]),
        _octaves(random, wall),
        np.stack([axis, along]) / period,
        int(random.integers(1 << 30)),
    )
    return np.array(fields, PAINT)


def _either(random: np.random.Generator) -> int:
    return 1 if random.random() < 0.5 else -1


def _tone(random: np.random.Generator, saturation: float) -> Floats:
    """A colour [3], grey to colourful."""
    return random.uniform(0.2, 0.95) * (1 - saturation * random.uniform(0.2, 1.0) * random.random(3))


def _octaves(random: np.random.Generator, wall: float) -> Floats:
    """[3, 2] frequencies (per metre) and weights of noise."""
    coarse = log_uniform(random, 3.0, 20.0)
    step = min(random.uniform(1.9, 3.2), math.sqrt(_FINEST / coarse))
    weight = random.uniform(0.3, 1.0, 3)
    return np.stack([coarse * step ** np.arange(3) / wall, weight / weight.sum()], -1)
