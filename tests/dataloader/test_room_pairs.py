"""Procedural pairs: exact, repeatable, and warps that show what the target shows."""

from __future__ import annotations

import pytest
import torch

from common.errors import UserError
from dataloader.pair_sets import PairSizes, open_pairs_of
from dataloader.room_pairs import RoomPairs
from engine.config import DataConfig
from engine.metrics import psnr


@pytest.fixture(scope="module")
def rooms() -> RoomPairs:
    return RoomPairs(3, 700, 48, 24)


def test_a_pair_depends_on_its_index_alone(rooms: RoomPairs) -> None:
    again = RoomPairs(1, 702, 48, 24).pair(0)
    first = rooms.pair(2)
    assert first.name == again.name
    assert torch.equal(first.target, again.target)
    assert not torch.equal(first.target, rooms.pair(1).target)


def test_the_warp_shows_the_target_where_it_covers(rooms: RoomPairs) -> None:
    for i in range(len(rooms)):
        pair = rooms.pair(i)
        assert pair.coverage is not None
        assert pair.small_warp is not None
        covered = (pair.coverage > 0.999).float()[None]
        assert 0.2 < covered.mean() < 1
        assert psnr(pair.full_warp()[None], pair.target[None], covered) > 22
        assert pair.small_warp.shape == (3, 24, 24)


def test_faded_edges_are_black_in_proportion(rooms: RoomPairs) -> None:
    pair = rooms.pair(0)
    assert pair.warp is not None
    assert pair.coverage is not None
    partly = (pair.coverage > 0) & (pair.coverage < 1)
    assert partly.any()
    restored = pair.full_warp() * pair.coverage
    torch.testing.assert_close(restored, pair.warp, atol=0.01, rtol=0)


def test_splits_have_different_rooms() -> None:
    data = open_pairs_of(DataConfig(root="builtin:room_pairs:5"), PairSizes(32, 16), True)
    train, val, test = (data.split(name) for name in ("train", "val", "test"))
    assert len(train) == 5
    names = {s.name(i) for s in (train, val, test) for i in range(len(s))}
    assert len(names) == len(train) + len(val) + len(test)
    with pytest.raises(UserError, match="no split 'trian'"):
        data.split("trian")


@pytest.mark.parametrize("root", ["builtin:room_pairs:x", "builtin:room_pairs:0"])
def test_a_wrong_number_of_rooms_is_named(root: str) -> None:
    with pytest.raises(UserError, match="room_pairs:N"):
        open_pairs_of(DataConfig(root=root), PairSizes(32, 16), True)


def test_missing_split_files_are_named(tmp_path: object) -> None:
    data = DataConfig(root=str(tmp_path), format="megascenes", pairs=str(tmp_path), warps=str(tmp_path))
    with pytest.raises(UserError, match=r"trainsplit\.pkl does not exist"):
        open_pairs_of(data, PairSizes(256, 32), True).split("train")
