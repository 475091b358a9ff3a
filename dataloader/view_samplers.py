"""Which frames of a video are given and which are to make: draws by frame number, for training.

Every sampler is a small frozen dataclass of settings. `num_sources(step, generator)` says how many frames are
given: ask it once per batch, since the members of a batch must agree. `sample(n_frames, centers, step,
generator, num_sources)` draws them. All randomness comes from the generator; `step` is the optimiser step,
which curricula follow. Sources and targets come in the order drawn: sort them where order matters.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from common.errors import UserError
from dataloader.view_choice import (
    Choice,
    TooFewFramesError,
    farthest_points,
    integer,
    integers,
    need_frames,
    ramp,
)


@dataclass(frozen=True)
class BoundedSampler:
    """Two sources a bounded number of frames apart, targets between them, drawn with replacement.

    All distances in frames. The bounds grow from `initial_*` to their values over `warm_up_steps` steps.
    """

    num_target_views: int = 6
    min_distance_between_context_views: int = 45
    max_distance_between_context_views: int = 192
    min_distance_to_context_views: int = 0  # of a target from either source
    warm_up_steps: int = 10000
    initial_min_distance_between_context_views: int = 25
    initial_max_distance_between_context_views: int = 45

    def __post_init__(self) -> None:
        _check_counts(self, "num_target_views")
        _check_gap(self)
        nearest = min(
            self.min_distance_between_context_views, self.initial_min_distance_between_context_views
        )
        if 2 * self.min_distance_to_context_views > nearest:
            raise UserError(
                f"min_distance_to_context_views is {self.min_distance_to_context_views}: sources may be "
                f"{nearest} frames apart, which leaves no frame for a target"
            )

    def num_sources(self, step: int, generator: torch.Generator) -> int:
        return 2

    def sample(
        self, n_frames: int, centers: Tensor, step: int, generator: torch.Generator, num_sources: int
    ) -> Choice:
        low, high = _gap_bounds(self, step, self.warm_up_steps)
        left, right = _draw_pair(n_frames, low, high, generator)
        margin = self.min_distance_to_context_views
        targets = torch.randint(
            left + margin, right + 1 - margin, (self.num_target_views,), generator=generator
        )
        return Choice([left, right], targets.tolist())

    def window(self, n_frames: int) -> Choice:
        right = min(self.max_distance_between_context_views, n_frames - 1)
        margin = self.min_distance_to_context_views
        return Choice([0, right], list(range(margin, right + 1 - margin)))


@dataclass(frozen=True)
class BoundedV2Sampler:
    """Two or more sources, and targets up to some frames beyond the outermost ones (`boundedv2`).

    All distances in frames. Three curricula in optimiser steps: the distance of the outer sources, how far
    targets lie outside, and the largest random number of sources. A number of sources c drawn at random
    divides both bounds of the distance by max(max_context_views // c, 1).
    """

    num_context_views: int = 2
    num_target_views: int = 6
    min_distance_between_context_views: int = 45
    max_distance_between_context_views: int = 192
    max_distance_to_context_views: int = 45  # of a target beyond the outer sources
    context_gap_warm_up_steps: int = 50000
    target_gap_warm_up_steps: int = 5000
    initial_min_distance_between_context_views: int = 25
    initial_max_distance_between_context_views: int = 45
    initial_max_distance_to_context_views: int = 5
    extra_views_sampling_strategy: Literal["random", "farthest_point", "equal"] = "farthest_point"
    random_num_context_views: bool = False
    min_context_views: int = 2
    max_context_views: int = 8
    max_context_views_warm_up_steps: int = 60000
    target_views_replace_sample: bool = False

    def __post_init__(self) -> None:
        _check_counts(self, "num_target_views", "num_context_views", "min_context_views")
        _check_gap(self)
        if not 2 <= self.min_context_views <= self.max_context_views:
            raise UserError(
                f"min_context_views is {self.min_context_views}, max_context_views {self.max_context_views}: "
                "at least 2, and in this order"
            )

    def most_sources(self, step: int) -> int:
        """The largest number of sources that may be drawn at a step."""
        return ramp(
            self.min_context_views, self.max_context_views, step, self.max_context_views_warm_up_steps
        )

    def num_sources(self, step: int, generator: torch.Generator) -> int:
        if not self.random_num_context_views:
            return self.num_context_views
        return integer(self.min_context_views, self.most_sources(step) + 1, generator)

    def bounds(self, step: int, num_sources: int) -> tuple[int, int, int]:
        """(least, largest distance of the outer sources, how far targets lie outside) at a step."""
        low, high = _gap_bounds(self, step, self.context_gap_warm_up_steps)
        if self.random_num_context_views:
            divisor = max(self.max_context_views // num_sources, 1)
            low, high = low // divisor, high // divisor
        margin = ramp(
            self.initial_max_distance_to_context_views,
            self.max_distance_to_context_views,
            step,
            self.target_gap_warm_up_steps,
        )
        return max(low, num_sources - 1), max(high, num_sources - 1), margin

    def sample(
        self, n_frames: int, centers: Tensor, step: int, generator: torch.Generator, num_sources: int
    ) -> Choice:
        low, high, margin = self.bounds(step, num_sources)
        left, right = _draw_pair(n_frames, low, high, generator)
        sources = self._sources(left, right, num_sources, centers, generator)
        start, stop = max(left - margin, 0), min(right + margin, n_frames - 1) + 1
        if self.target_views_replace_sample:
            targets = torch.randint(start, stop, (self.num_target_views,), generator=generator)
        else:
            if stop - start < self.num_target_views:
                raise TooFewFramesError(
                    f"{stop - start} frames are too few for {self.num_target_views} targets: leave it out"
                )
            targets = start + torch.randperm(stop - start, generator=generator)[: self.num_target_views]
        return Choice(sources, targets.tolist())

    def _sources(
        self, left: int, right: int, count: int, centers: Tensor, generator: torch.Generator
    ) -> list[int]:
        """The outer frames and `count` - 2 more. Farthest points may replace the outer frames as well."""
        extra = count - 2
        if extra <= 0:
            return [left, right][:count]
        if self.extra_views_sampling_strategy == "farthest_point":
            spread = [left + i for i in farthest_points(centers[left : right + 1], count)]
            return [spread[0], *sorted(spread[1:-1]), spread[-1]]
        if self.extra_views_sampling_strategy == "equal":
            return [left + round(i * (right - left) / (count - 1)) for i in range(count)]
        inside = left + 1 + torch.randperm(right - left - 1, generator=generator)[:extra]
        return [left, *sorted(inside.tolist()), right]

    def window(self, n_frames: int) -> Choice:
        right = min(self.max_distance_between_context_views, n_frames - 1)
        stop = min(right + self.max_distance_to_context_views, n_frames - 1) + 1
        return Choice([0, right], list(range(stop)))


@dataclass(frozen=True)
class ArbitrarySampler:
    """Sources and targets anywhere: drawn with replacement, or the frames named.

    context_views, target_views: frames to take instead of drawing; empty = draw.
    """

    num_context_views: int = 2
    num_target_views: int = 1
    context_views: tuple[int, ...] = ()
    target_views: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        _check_counts(self, "num_context_views", "num_target_views")

    def num_sources(self, step: int, generator: torch.Generator) -> int:
        return len(self.context_views) or self.num_context_views

    def sample(
        self, n_frames: int, centers: Tensor, step: int, generator: torch.Generator, num_sources: int
    ) -> Choice:
        need_frames(n_frames, max((*self.context_views, *self.target_views, 0)) + 1)
        sources = list(self.context_views) or integers(n_frames, num_sources, generator)
        targets = list(self.target_views) or integers(n_frames, self.num_target_views, generator)
        return Choice(sources, targets)

    def window(self, n_frames: int) -> Choice:
        sources = list(self.context_views) or list(range(self.num_context_views))
        return Choice(sources, list(self.target_views) or list(range(n_frames)))


@dataclass(frozen=True)
class AllSampler:
    """Every frame is source and target."""

    def num_sources(self, step: int, generator: torch.Generator) -> int:
        return 0  # as many as the scene has

    def sample(
        self, n_frames: int, centers: Tensor, step: int, generator: torch.Generator, num_sources: int
    ) -> Choice:
        return self.window(n_frames)

    def window(self, n_frames: int) -> Choice:
        return Choice(list(range(n_frames)), list(range(n_frames)))


@dataclass(frozen=True)
class OfficialSampler:
    """The official selection: both ends of a stretch of frames and random ones inside, shared out.

    The first `num_input_views` of [start, end, inside ...] are the sources. The targets are drawn from all
    `num_views` frames (target_has_input), or are the last ones.
    """

    num_views: int = 8
    num_input_views: int = 2
    num_target_views: int = 6
    min_frame_dist: int = 25
    max_frame_dist: int = 192
    target_has_input: bool = True
    dynamic_input_view_num: bool = False  # 2 to 4 sources, drawn per batch

    def __post_init__(self) -> None:
        _check_counts(self, "num_input_views", "num_target_views")
        most = self.num_input_views + (0 if self.target_has_input else self.num_target_views)
        if self.num_views < max(most, self.num_target_views, 2):
            raise UserError(
                f"num_views is {self.num_views}: too few for {self.num_input_views} inputs and "
                f"{self.num_target_views} targets"
            )
        if not self.num_views - 1 <= self.min_frame_dist <= self.max_frame_dist:
            raise UserError(
                f"min_frame_dist is {self.min_frame_dist}, max_frame_dist {self.max_frame_dist}: "
                f"at least {self.num_views - 1}, and in this order"
            )

    def num_sources(self, step: int, generator: torch.Generator) -> int:
        return integer(2, 5, generator) if self.dynamic_input_view_num else self.num_input_views

    def sample(
        self, n_frames: int, centers: Tensor, step: int, generator: torch.Generator, num_sources: int
    ) -> Choice:
        draw = random.Random(int(torch.randint(2**62, (), generator=generator)))
        need_frames(n_frames, max(self.num_views, self.min_frame_dist + 2))
        views = self.views(n_frames, draw)
        assert views is not None
        return Choice(views[:num_sources], [views[i] for i in self.targets(draw)])

    def views(self, n_frames: int, draw: random.Random) -> list[int] | None:
        """[start, end, others ...] in the original's order of draws; None where the video is too short."""
        if n_frames < self.num_views or n_frames - 1 <= self.min_frame_dist:
            return None
        distance = draw.randint(self.min_frame_dist, min(n_frames - 1, self.max_frame_dist))
        start = draw.randint(0, n_frames - distance - 1)
        inside = draw.sample(range(start + 1, start + distance), self.num_views - 2)
        return [start, start + distance, *inside]

    def targets(self, draw: random.Random) -> list[int]:
        """Positions in `views` of the targets."""
        if self.target_has_input:
            return draw.sample(range(self.num_views), self.num_target_views)
        return list(range(self.num_views - self.num_target_views, self.num_views))

    def window(self, n_frames: int) -> Choice:
        end = min(self.max_frame_dist, n_frames - 1)
        return Choice([0, end], list(range(end + 1)))


def _gap_bounds(sampler: BoundedSampler | BoundedV2Sampler, step: int, steps: int) -> tuple[int, int]:
    """Least and largest distance of the outer sources at a step, before the scene's length is known."""
    low = ramp(
        sampler.initial_min_distance_between_context_views,
        sampler.min_distance_between_context_views,
        step,
        steps,
    )
    high = ramp(
        sampler.initial_max_distance_between_context_views,
        sampler.max_distance_between_context_views,
        step,
        steps,
    )
    return low, high


def _draw_pair(n_frames: int, low: int, high: int, generator: torch.Generator) -> tuple[int, int]:
    """Two frames `low` .. `high` apart."""
    need_frames(n_frames, low + 1)
    gap = integer(low, min(high, n_frames - 1) + 1, generator)
    left = integer(0, n_frames - gap, generator)
    return left, left + gap


def _check_counts(sampler: object, *names: str) -> None:
    for name in names:
        if getattr(sampler, name) < 1:
            raise UserError(f"view sampler: {name} is {getattr(sampler, name)}, it must be at least 1")


def _check_gap(sampler: BoundedSampler | BoundedV2Sampler) -> None:
    for prefix in ("", "initial_"):
        low = getattr(sampler, f"{prefix}min_distance_between_context_views")
        high = getattr(sampler, f"{prefix}max_distance_between_context_views")
        if not 1 <= low <= high:
            raise UserError(
                f"view sampler: {prefix}min_distance_between_context_views is {low}, "
                f"{prefix}max_distance_between_context_views {high}: at least 1, and in this order"
            )
