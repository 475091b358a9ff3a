"""Pairs of posed scenes, and the warps between them."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from common.errors import UserError
from dataloader.lenses import Lens
from dataloader.pairs import Pair, PairSet
from dataloader.scene import Scene
from dataloader.scene_pairs import Choice, ScenePairs, attach_depths, close_pairs, nearest_sources
from dataloader.toy import make_scene


@pytest.fixture(scope="module")
def room() -> Scene:
    return make_scene(seed=1, n_views=9, height=96, width=128)


def same(one: Pair, two: Pair) -> bool:
    assert one.warp is not None
    assert two.warp is not None
    images = zip((one.source, one.target, one.warp), (two.source, two.target, two.warp), strict=True)
    return one.name == two.name and one.scale == two.scale and all(torch.equal(a, b) for a, b in images)


def covered_psnr(pair: Pair) -> float:
    assert pair.warp is not None
    assert pair.coverage is not None
    error = ((pair.warp - pair.target) ** 2)[:, pair.coverage[0] == 1]
    return -10 * error.mean().log10().item()


@pytest.mark.parametrize("depth", ["map", "mesh"])
def test_the_warp_shows_the_target_where_it_covers_it(room: Scene, depth: str) -> None:
    scene = room if depth == "map" else replace(room, records=[replace(r, depth=None) for r in room.records])
    pairs = ScenePairs([scene], [Choice(0, 3, 3), Choice(0, 3, 4), Choice(0, 4, 3)])
    assert isinstance(pairs, PairSet)
    for index, least in enumerate([32, 21, 21]):
        pair = pairs.pair(index)
        assert pair.coverage is not None
        assert pair.target_canvas.cut(pair.coverage).mean() > 0.7
        assert covered_psnr(pair) > least


def test_a_pair_is_complete(room: Scene) -> None:
    pairs = ScenePairs([room], nearest_sources([room]), size=64, small=8)
    pair = pairs.pair(1)
    assert pair.name == pairs.name(1) == "room1_0007_to_0008"
    assert pair.source.shape == pair.target.shape == (3, 64, 64)
    assert (pair.target_canvas.top, pair.target_canvas.height) == (8, 48)
    assert pair.warp is not None
    assert pair.small_warp is not None
    assert pair.coverage is not None
    assert pair.small_warp.shape == (3, 8, 8)
    assert (pair.warp[:, :8] == 1).all()
    assert (pair.coverage[:, :8] == 0).all()
    depth = room.records[7].load_depth()
    assert depth is not None
    assert pair.scale == pytest.approx(np.quantile(depth, 0.2), rel=1e-6)
    assert torch.equal(pair.target_camera.c2w, room.records[8].camera.c2w)


def test_a_pair_depends_on_its_index_alone(room: Scene) -> None:
    choices = close_pairs([room], max_angle=40, max_distance=1)
    one = ScenePairs([room], choices, size=32, small=8, kept=1)
    first = [one.pair(i) for i in (0, 5, 0)]
    other = pickle.loads(pickle.dumps(one))
    assert same(first[0], first[2])
    assert same(first[1], other.pair(5))


def test_the_nearest_source_is_chosen(room: Scene) -> None:
    choices = nearest_sources([room, room])
    assert choices == [Choice(n, s, t) for n in (0, 1) for s, t in ((1, 0), (7, 8))]
    within = nearest_sources([room], "all", "all")
    assert all(c.source != c.target for c in within)
    assert all(abs(c.source - c.target) == 1 for c in within)


def test_training_pairs_keep_to_the_limits(room: Scene) -> None:
    choices = close_pairs([room], max_angle=20, max_distance=5)
    poses = room.cameras().c2w
    for i in room.split("train"):
        for j in room.split("train"):
            angle = torch.rad2deg(torch.acos((poses[i, :3, 2] @ poses[j, :3, 2]).clamp(-1, 1)))
            assert (Choice(0, i, j) in choices) == (i != j and angle.item() <= 20)
    fewer = close_pairs([room], max_angle=20, max_distance=0.6)
    assert set(fewer) < set(choices)


def test_photos_may_differ_in_size(posed_scene: Callable[..., Scene]) -> None:
    scene = posed_scene(4, size=[(24, 32), (32, 24), (24, 24), (30, 32)])
    for record in scene.records:
        record.depth = np.full((12, 16), 4.0, np.float32)
    pairs = ScenePairs([scene], nearest_sources([scene], "all", "all"), size=32, small=8)
    for index in range(4):
        pair = pairs.pair(index)
        assert pair.warp is not None
        assert pair.warp.shape == (3, 32, 32)


def test_what_cannot_be_is_refused(room: Scene, posed_scene: Callable[..., Scene]) -> None:
    with pytest.raises(UserError, match="no depth map"):
        ScenePairs([posed_scene()], [Choice(0, 0, 1)])
    with pytest.raises(UserError, match="no split 'validation'"):
        nearest_sources([room], targets="validation")
    with pytest.raises(UserError, match="no photo but the one to make"):
        nearest_sources([replace(room, splits={"train": [2], "test": [2]})])
    with pytest.raises(UserError, match="holds no photo"):
        nearest_sources([replace(room, splits={"train": [], "test": [2]})])
    with pytest.raises(UserError, match="raise the limits"):
        close_pairs([room], max_angle=0.1)
    blind = replace(room.records[0], depth=np.zeros((96, 128), np.float32))
    with pytest.raises(UserError, match="unknown everywhere"):
        ScenePairs([replace(room, records=[blind, *room.records[1:]])], [Choice(0, 0, 1)]).pair(0)


def test_depth_maps_may_come_from_a_folder(room: Scene, tmp_path: Path) -> None:
    for record in room.records:
        np.save(tmp_path / f"{record.name}.npy", record.load_depth())
    bare = replace(room, surface=None, records=[replace(r, depth=None) for r in room.records])
    given, own = (ScenePairs([s], [Choice(0, 3, 4)]).pair(0) for s in (attach_depths(bare, tmp_path), room))
    assert same(given, own)
    (tmp_path / "0005.npy").unlink()
    with pytest.raises(UserError, match="no depth map of the photo 0005"):
        attach_depths(bare, tmp_path)
    lens = Lens(np.eye(3), (0.1, 0.0, 0.0), (0.0, 0.0))
    with pytest.raises(UserError, match="undistort the photos first"):
        attach_depths(replace(room, records=[replace(room.records[0], lens=lens)]), tmp_path)
