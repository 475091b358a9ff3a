"""View samplers: bounds, curricula, determinism. What the originals draw is compared in tests/parity."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from common.errors import UserError
from dataloader.view_choice import TooFewFramesError, ViewSampler, farthest_points, ramp
from dataloader.view_samplers import (
    AllSampler,
    ArbitrarySampler,
    BoundedSampler,
    BoundedV2Sampler,
    OfficialSampler,
)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def centers(count: int, seed: int = 0) -> torch.Tensor:
    """A random walk."""
    return torch.randn(count, 3, generator=generator(seed)).cumsum(0)


@given(st.integers(46, 300), st.integers(0, 60000), st.integers(0, 2**40))
def test_bounded(n_frames: int, step: int, seed: int) -> None:
    sampler = BoundedSampler(min_distance_to_context_views=3)
    source, target = sampler.sample(n_frames, centers(n_frames), step, generator(seed), 2)
    low = ramp(25, 45, step, 10000)
    assert 0 <= source[0] < source[1] < n_frames
    assert low <= source[1] - source[0] <= ramp(45, 192, step, 10000)
    assert all(source[0] + 3 <= t <= source[1] - 3 for t in target)
    assert len(target) == 6


@given(
    st.integers(60, 300),
    st.integers(0, 80000),
    st.integers(0, 2**40),
    st.sampled_from(["random", "farthest_point", "equal"]),
    st.booleans(),
)
def test_boundedv2(n_frames: int, step: int, seed: int, strategy: Any, replace: bool) -> None:
    sampler = BoundedV2Sampler(
        random_num_context_views=True,
        extra_views_sampling_strategy=strategy,
        target_views_replace_sample=replace,
    )
    count = sampler.num_sources(step, generator(seed))
    assert 2 <= count <= sampler.most_sources(step) <= 8
    source, target = sampler.sample(n_frames, centers(n_frames), step, generator(seed), count)
    _, high, margin = sampler.bounds(step, count)
    assert len(set(source)) == len(source) == count
    assert max(source) - min(source) <= high
    assert (len(target), replace or len(set(target)) == 6) == (6, True)
    assert min(target) >= 0
    assert max(target) < n_frames
    assert max(target) - min(target) <= high + 2 * margin
    again = sampler.sample(n_frames, centers(n_frames), step, generator(seed), count)
    assert again == (source, target)


@given(st.integers(27, 300), st.integers(0, 2**40), st.booleans())
def test_official(n_frames: int, seed: int, has_input: bool) -> None:
    sampler = OfficialSampler(target_has_input=has_input)
    source, target = sampler.sample(n_frames, centers(n_frames), 0, generator(seed), 2)
    assert 25 <= source[1] - source[0] <= min(192, n_frames - 1)
    assert len(set(target)) == 6
    assert all(source[0] <= t <= source[1] for t in target)
    assert has_input or not set(source) & set(target)


def test_number_of_sources() -> None:
    grown = BoundedV2Sampler(random_num_context_views=True)
    drawn = {grown.num_sources(60000, generator(seed)) for seed in range(200)}
    assert drawn == set(range(2, 9))
    assert {grown.num_sources(0, generator(seed)) for seed in range(20)} == {2}
    assert BoundedV2Sampler(num_context_views=3).num_sources(9, generator(0)) == 3
    dynamic = OfficialSampler(dynamic_input_view_num=True)
    assert {dynamic.num_sources(0, generator(seed)) for seed in range(60)} == {2, 3, 4}
    assert AllSampler().window(4) == ([0, 1, 2, 3], [0, 1, 2, 3])
    fixed = ArbitrarySampler(context_views=(4, 1), target_views=(0,))
    assert fixed.num_sources(0, generator(0)) == 2
    assert fixed.sample(5, centers(5), 0, generator(0), 2) == ([4, 1], [0])


def test_equal_steps() -> None:
    sampler = BoundedV2Sampler(extra_views_sampling_strategy="equal", num_context_views=4)
    source, _ = sampler.sample(200, centers(200), 0, generator(0), 4)
    steps = {b - a for a, b in pairwise(source)}
    assert max(steps) - min(steps) <= 1


@pytest.mark.parametrize(
    "kind", [BoundedSampler, BoundedV2Sampler, ArbitrarySampler, AllSampler, OfficialSampler]
)
def test_every_sampler_is_one(kind: type) -> None:
    assert isinstance(kind(), ViewSampler)


@pytest.mark.parametrize(
    ("sampler", "n_frames"),
    [
        (BoundedSampler(), 25),
        (BoundedV2Sampler(), 25),
        (OfficialSampler(), 26),
        (ArbitrarySampler(context_views=(4, 9)), 9),
        (BoundedV2Sampler(num_target_views=40), 35),
    ],
)
def test_scenes_that_are_too_short(sampler: ViewSampler, n_frames: int) -> None:
    with pytest.raises(TooFewFramesError, match="frames"):
        for seed in range(20):
            sampler.sample(n_frames, centers(n_frames), 0, generator(seed), 2)


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (BoundedSampler, {"min_distance_between_context_views": 200}, "in this order"),
        (BoundedSampler, {"num_target_views": 0}, "num_target_views is 0"),
        (BoundedSampler, {"min_distance_to_context_views": 13}, "no frame for a target"),
        (BoundedV2Sampler, {"min_context_views": 9}, "max_context_views 8"),
        (OfficialSampler, {"num_views": 5}, "num_views is 5"),
        (OfficialSampler, {"num_views": 7, "target_has_input": False}, "num_views is 7"),
        (OfficialSampler, {"min_frame_dist": 3}, "at least 7"),
    ],
)
def test_settings_that_cannot_work(kind: type, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        kind(**settings)


def test_ramp() -> None:
    assert [ramp(2, 8, step, 60) for step in (0, 9, 10, 59, 60, 99)] == [2, 2, 3, 7, 8, 8]
    assert ramp(5, 9, 0, 0) == 9


def test_farthest_points() -> None:
    line = torch.tensor([[0.0, 0, 0], [1, 0, 0], [2, 0, 0], [10, 0, 0]])
    assert farthest_points(line, 3) == [3, 0, 2]
    with pytest.raises(ValueError, match="5 of 4"):
        farthest_points(line, 5)
