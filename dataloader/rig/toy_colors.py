"""Draws the textures of procedural rigs: from plain to busy, from grey to colourful."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from dataloader.rig.toy_stage import PAINT, PATTERNS, Floats

_FINEST = 70.0  # highest frequency of noise, per distance of the far wall
_ROWS = {"brick": 0.5, "planks": 0.3}  # height of the rows of a pattern, by its period


def draw_paint(random: np.random.Generator, wall: float, saturation: float, pattern: str = "") -> NDArray[np.void]:
    """A PAINT for surfaces up to the far wall, at `wall` metres.

    saturation: how colourful, 0 to 1. pattern: one of PATTERNS; empty draws it.
    """
    pattern = pattern or str(random.choice(PATTERNS, p=_shares()))
    base = _tone(random, saturation)
    second = np.clip(base + random.choice([-1, 1]) * random.uniform(0.12, 0.4) * (0.6 + 0.4 * random.random(3)), 0, 1)
    other = _tone(random, saturation)
    darker_or_lighter = base * random.uniform(0.35, 0.75) if random.random() < 0.5 else 0.4 + 0.6 * base
    period = wall * float(np.exp(random.uniform(math.log(0.025), math.log(0.12))))
    angle = random.choice([0, math.pi / 2, random.uniform(0, math.pi)], p=[0.55, 0.25, 0.2])
    if pattern in _ROWS and random.random() < 0.8:
        angle = 0.0
    axis = np.array([math.cos(angle), math.sin(angle)])
    along = np.array([-axis[1], axis[0]]) / _ROWS.get(pattern, 1.0)
    fields = (
        PATTERNS.index(pattern),
        random.uniform(0.35, 1.0),
        np.stack([base, second, other if random.random() < 0.35 else darker_or_lighter]),
        _octaves(random, wall),
        np.stack([axis, along]) / period,
        int(random.integers(1 << 30)),
    )
    return np.array(fields, PAINT)


def _shares() -> Floats:
    """How often each pattern is drawn: a quarter of the surfaces are without any."""
    return np.where(np.array(PATTERNS) == "none", 0.25, 0.75 / (len(PATTERNS) - 1))


def _tone(random: np.random.Generator, saturation: float) -> Floats:
    """A colour [3], grey to colourful."""
    return random.uniform(0.2, 0.95) * (1 - saturation * random.random() * random.random(3))


def _octaves(random: np.random.Generator, wall: float) -> Floats:
    """[3, 2] frequencies (per metre) and weights of noise."""
    coarse = math.exp(random.uniform(math.log(3.0), math.log(20.0)))
    step = min(random.uniform(1.9, 3.2), math.sqrt(_FINEST / coarse))
    weight = random.uniform(0.3, 1.0, 3)
    return np.stack([coarse * step ** np.arange(3) / wall, weight / weight.sum()], -1)
