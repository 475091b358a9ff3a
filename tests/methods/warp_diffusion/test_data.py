"""Training samples of pairs: pure functions of pair and seed."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor

from common.errors import UserError
from dataloader.pair_sets import PairSizes, RoomPairData
from dataloader.pairs import Pair, PairSet
from methods.warp_diffusion.data import PairSample, PairSamples, pair_pose, pair_warp
from tests.methods.warp_diffusion.tiny import SIDE, tiny_config


def room_pairs(split: str = "train") -> PairSet:
    return RoomPairData(PairSizes(SIDE, SIDE // 2)).split(split)


@pytest.fixture(scope="module")
def pairs() -> PairSet:
    return room_pairs()


def same(a: PairSample, b: PairSample, names: list[str] | None = None) -> bool:
    """Whether parts of two samples (all, unless named) are equal to the bit."""
    for item in fields(PairSample):
        x, y = getattr(a, item.name), getattr(b, item.name)
        if (names is None or item.name in names) and not (x is y if x is None else torch.equal(x, y)):
            return False
    return True


@pytest.mark.parametrize("warp", ["none", "pixels", "latent"])
def test_a_draw_depends_on_pair_and_seed_alone(pairs: PairSet, warp: str) -> None:
    config = tiny_config(warp=warp)
    samples = PairSamples(pairs, config)
    first = samples.draw(1, 7)
    torch.manual_seed(99)
    samples.draw(0, 7)
    assert same(samples.draw(1, 7), first)
    assert same(PairSamples(room_pairs(), config).draw(1, 7), first)
    other = samples.draw(1, 8)
    assert same(other, first, ["source", "target", "pose", "warp", "small_warp", "coverage"])
    assert not torch.equal(other.noise, first.noise)
    assert not torch.equal(other.uniform, first.uniform)
    assert not torch.equal(samples.draw(0, 7).source, first.source)
    assert not torch.equal(first.noise, first.posterior)


def test_time_steps_and_dropout_are_uniform(pairs: PairSet) -> None:
    samples = PairSamples(pairs, tiny_config(warp="none"))
    drawn = samples.collate([samples.draw(0, seed) for seed in range(400)])
    assert int(drawn.t.min()) >= 0
    assert int(drawn.t.max()) <= 999
    assert float(drawn.t.float().mean()) == pytest.approx(500, abs=60)
    assert float(drawn.uniform.mean()) == pytest.approx(0.5, abs=0.06)
    assert float(drawn.noise.std()) == pytest.approx(1, abs=0.01)


def test_ranges_and_shapes_and_what_a_variant_lacks(pairs: PairSet) -> None:
    for warp, present in (
        ("none", set()),
        ("pixels", {"small_warp"}),
        ("latent", {"warp", "coverage", "small_warp"}),
    ):
        samples = PairSamples(pairs, tiny_config(warp=warp))
        batch = samples.collate([samples.draw(index, 0) for index in range(3)])
        assert {n for n in ("warp", "small_warp", "coverage") if getattr(batch, n) is not None} == present
        assert batch.source.shape == batch.target.shape == (3, 3, SIDE, SIDE)
        assert batch.pose.shape == (3, 19)
        assert batch.noise.shape == batch.posterior.shape == (3, 12, SIDE // 2, SIDE // 2)
        assert batch.source.min() < -0.2
        assert batch.source.abs().max() <= 1
        assert same(batch.to(torch.device("cpu")), batch)
        alone = samples.draw(2, 0)
        assert torch.equal(batch.noise[2:], alone.noise)
        assert torch.equal(batch.draws.t[2:], alone.t)


def test_warps_fade_or_keep_their_colours(pairs: PairSet) -> None:
    """Where a pixel is covered in part, `faded` is the colour times the coverage, `full` the colour."""
    pair = pairs.pair(0)
    assert pair.coverage is not None
    full = pair_warp(pair, tiny_config(warp_edges="full"))
    faded = pair_warp(pair, tiny_config(warp_edges="faded"))
    whole, none = pair.coverage == 1, pair.coverage == 0
    edge = ~whole & ~none
    assert torch.equal(full.where(whole, torch.zeros(())), faded.where(whole, torch.zeros(())))
    assert not full.where(none, torch.zeros(())).any()
    close = (full * pair.coverage - faded).abs().where(edge, torch.zeros(()))
    assert float(close.max()) <= 2 / 255
    made = faded_pair(pair)
    assert float((made.full_warp() - 0.8).abs().max()) < 1e-6
    assert torch.equal(pair_warp(made, tiny_config(warp_edges="faded")), made.warp)


def faded_pair(pair: Pair) -> Pair:
    """A pair whose warp is one colour, covered by a quarter."""
    coverage: Tensor = torch.full((1, SIDE, SIDE), 0.25)
    return replace(pair, warp=torch.full((3, SIDE, SIDE), 0.8) * coverage, coverage=coverage)


def test_poses_as_a_configuration_wants_them(pairs: PairSet) -> None:
    pair = pairs.pair(0)
    own, squashed = pair_pose(pair, tiny_config()), pair_pose(pair, tiny_config(pose="zeronvs"))
    moved = own.reshape(-1)[[3, 7, 11]]
    torch.testing.assert_close(squashed[[3, 7, 11]], 5 * torch.tanh(moved / 10))
    assert pair_pose(replace(pair, target_camera=pair.source_camera), tiny_config())[
        :16
    ].tolist() == pytest.approx(torch.eye(4).flatten().tolist(), abs=1e-6)


def test_pairs_without_warps_are_named(pairs: PairSet) -> None:
    bare = replace(pairs.pair(0), warp=None, small_warp=None, coverage=None)
    with pytest.raises(UserError, match=f"pair {bare.name} has no warp"):
        pair_warp(bare, tiny_config(warp_edges="faded"))
    assert PairSamples(pairs, tiny_config()).name(0) == pairs.name(0)
    assert PairSamples(pairs, tiny_config()).size == len(pairs)
