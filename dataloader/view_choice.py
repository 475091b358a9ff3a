"""What view samplers share: the choice they make, their interface, and draws of numbers and points."""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from common.errors import UserError


class Choice(NamedTuple):
    """Record indices of the views given and of the views to make."""

    source: list[int]
    target: list[int]


class TooFewFramesError(UserError):
    """The scene has too few frames for the sampler at this step: draw another scene."""


@runtime_checkable
class ViewSampler(Protocol):
    """What the samplers below have in common."""

    def num_sources(self, step: int, generator: torch.Generator) -> int:
        """How many frames are given, for a whole batch."""
        ...

    def sample(
        self, n_frames: int, centers: Tensor, step: int, generator: torch.Generator, num_sources: int
    ) -> Choice:
        """Draw from frames 0 .. n_frames - 1, whose camera centres are `centers` [n_frames, 3].

        Raises TooFewFramesError where the scene is too short.
        """
        ...

    def window(self, n_frames: int) -> Choice:
        """What is taken without any draw, for pictures: the widest choice that the scene allows."""
        ...


def ramp(first: int, last: int, step: int, steps: int) -> int:
    """A whole number that grows (or falls) linearly from `first` to `last` over `steps` optimiser steps."""
    if steps <= 0 or step >= steps:
        return last
    return first + int((last - first) * step / steps)


def farthest_points(points: Tensor, count: int) -> list[int]:
    """Indices of `count` points [P, 3] spread out: the one farthest from the mean, then ever the farthest.

    Each further point is the farthest from those chosen so far. Raises ValueError for more points than there
    are.
    """
    if count > len(points):
        raise ValueError(f"{count} of {len(points)} points cannot be chosen")
    chosen = [int((points - points.mean(0)).norm(dim=-1).argmax())]
    distance = (points - points[chosen[0]]).norm(dim=-1)
    while len(chosen) < count:
        chosen.append(int(distance.argmax()))
        distance = torch.minimum(distance, (points - points[chosen[-1]]).norm(dim=-1))
    return chosen[:count]


def integer(low: int, high: int, generator: torch.Generator) -> int:
    """A whole number in low .. high - 1."""
    return int(torch.randint(low, high, (), generator=generator))


def integers(count: int, draws: int, generator: torch.Generator) -> list[int]:
    """Whole numbers in 0 .. count - 1, with replacement."""
    return torch.randint(0, count, (draws,), generator=generator).tolist()


def need_frames(n_frames: int, needed: int) -> None:
    """Raise TooFewFramesError for a scene with fewer frames than are needed."""
    if n_frames < needed:
        raise TooFewFramesError(f"it has {n_frames} frames, the view sampler needs {needed}: leave it out")
