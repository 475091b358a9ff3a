"""Evaluation indices: files, tasks, and the rules that choose views."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from common.errors import UserError
from dataloader.re10k.index import Entries, check_frames, index_tasks, read_index, subset, write_index
from dataloader.re10k.index_rules import (
    IndexRule,
    interior_entry,
    nearest_entry,
    nested,
    pair_entry,
    video_entry,
)
from dataloader.room_scenes import RoomScenes
from dataloader.scene_sets import ViewTask
from dataloader.toy import make_cameras
from geometry.overlap import overlap

ENTRIES: Entries = {"room1": ((0, 5), (2, 3)), "room7": None, "room0": ((4, 1, 3), (2,))}


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_files(tmp_path: Path) -> None:
    write_index(ENTRIES, tmp_path / "index.json")
    assert read_index(tmp_path / "index.json") == ENTRIES
    assert json.loads((tmp_path / "index.json").read_text())["room0"] == {
        "context": [4, 1, 3],
        "target": [2],
    }


@pytest.mark.parametrize(
    "entry", [{}, {"context": [1]}, {"context": [], "target": [1]}, {"context": [-1], "target": [1]}, [1], 3]
)
def test_malformed_entries(tmp_path: Path, entry: object) -> None:
    (tmp_path / "index.json").write_text(json.dumps({"a": entry}))
    with pytest.raises(UserError, match=r"index.json: a must be null or"):
        read_index(tmp_path / "index.json")


def test_tasks() -> None:
    rooms = RoomScenes(range(3), 6, (8, 8))
    tasks = index_tasks(ENTRIES, rooms, "index")
    assert tasks == [ViewTask(1, (0, 5), (2, 3)), ViewTask(0, (4, 1, 3), (2,))]
    with pytest.raises(UserError, match=r"names room1, which builtin:rooms lacks \(1 of 2 scenes"):
        index_tasks(ENTRIES, RoomScenes([0, 7]), "index")
    assert index_tasks(subset(ENTRIES, {"room0"}), RoomScenes([0, 7]), "index")[0].scene == 0
    with pytest.raises(UserError, match="every entry is null"):
        index_tasks({"room7": None}, rooms, "index")
    with pytest.raises(UserError, match="names frame 5 of scene room1, which has 5"):
        check_frames(tasks[0], 5, "room1")


def test_pairs_satisfy_their_rule() -> None:
    cameras = make_cameras(0, 20, 5, 8)
    rule = IndexRule(min_ctx_distance=5, max_ctx_distance=8, min_ctx_overlap=0.5)
    for seed in range(3):
        entry = pair_entry(cameras, rule, generator(seed))
        assert entry is not None
        (left, right), targets = entry
        assert 5 <= right - left <= 9
        assert rule.fits(overlap(cameras[left], cameras[right]))
        assert len(set(targets)) == 3
        assert all(left <= t <= right for t in targets)
        assert entry == pair_entry(cameras, rule, generator(seed))
    assert pair_entry(cameras, IndexRule(min_ctx_distance=20, max_ctx_distance=50), generator(0)) is None


def test_targets_away_from_all_sources() -> None:
    cameras = make_cameras(0, 60, 18, 32)
    rule = IndexRule(5, 3, 0.1, 1.0, 30, 40, min_tgt_to_ctx_distance=3)
    for seed in range(5):
        entry = interior_entry(cameras, rule, generator(seed))
        if entry is not None:
            assert min(abs(t - s) for t in entry[1] for s in entry[0]) >= 3
            assert (min(entry[0]), max(entry[0])) == tuple(sorted(entry[0][:2]))
            assert nested({"a": entry}, 2)["a"] == (tuple(sorted(entry[0][:2])), entry[1])
            break
    else:
        pytest.fail("no seed gave an entry")
    crowded = IndexRule(5, 3, 0.1, 1.0, 30, 40, min_tgt_to_ctx_distance=30)
    assert interior_entry(cameras, crowded, generator(0)) is None


def test_video_and_nearest() -> None:
    assert video_entry(((7, 3), (5,))) == ((7, 3), (3, 4, 5, 6, 7))
    assert video_entry(None) is None
    cameras = make_cameras(0, 9, 8, 8)
    cameras.c2w[:, :3, 3] = torch.arange(9).double()[:, None]
    assert nearest_entry(cameras, 2, targets=(4, 5)) == ((3, 6), (4, 5))
    assert nearest_entry(cameras, 2, targets=(4, 5), candidates=(0, 1, 4)) == ((1, 0), (4, 5))
    assert nearest_entry(cameras, 2, targets=(9,)) is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"min_ctx_distance": 200}, "--max_ctx_distance 135"),
        ({"min_ctx_overlap": 1.1}, "--min_ctx_overlap 1.1"),
        ({"num_context_views": 1}, "at least 2"),
        ({"num_target_views": 50}, "do not fit"),
    ],
)
def test_rules_that_cannot_work(settings: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        IndexRule(**settings)
