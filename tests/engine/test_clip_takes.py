"""What is filmed of a clip: its own path or a rig's, at the photos' size, from the cameras of its task."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from common.errors import UserError
from engine.clip_takes import clip_path, clip_take, find_clips, own_path
from engine.config import DataConfig
from engine.takes import Wish
from geometry.cameras import Cameras
from geometry.rig_path_files import write_rig_path
from methods.baselines.photos import NearestView
from tests.engine.clips import HEIGHT, NAMES, WIDTH, MadeClips, clip_sets


def _rig() -> Cameras:
    return MadeClips().scene(0).cameras()


def _take(wish: Wish, clips: int = 1, **options):
    sets = clip_sets(clips)
    return clip_take(sets, clips - 1, NearestView(), DataConfig(), wish, Path("out"), **options)


@pytest.mark.parametrize(
    ("path", "default"), [("x_axis", 30), ("circle", 60), ("spiral", 120), ("input", 3), ("extreme", 60)]
)
def test_paths_of_a_rig_by_name(path: str, default: int) -> None:
    scene = MadeClips().scene(0)
    cameras, fps = clip_path(path, scene, _rig())
    assert (len(cameras), fps) == (default, 30.0)
    assert (cameras.height, cameras.width) == (HEIGHT, WIDTH)
    frames = min(7, default)
    assert len(clip_path(path, scene, _rig(), frames)[0]) == frames


def test_a_path_file_gets_the_size_of_the_photos(tmp_path: Path) -> None:
    path = tmp_path / "p.txt"
    write_rig_path(_rig().resize(2 * HEIGHT, 2 * WIDTH), path)
    cameras, _ = clip_path(str(path), MadeClips().scene(0), _rig().resize(HEIGHT, 2 * WIDTH))
    assert (cameras.height, cameras.width) == (HEIGHT, 2 * WIDTH)
    expected = _rig().resize(HEIGHT, 2 * WIDTH).K
    torch.testing.assert_close(cameras.K, expected)  # x and y each by its own factor
    assert len(clip_path(str(path), MadeClips().scene(0), _rig(), 2)[0]) == 2


def test_the_take_follows_the_tasks_cameras_and_the_clips_moments() -> None:
    take = _take(Wish([], frames=6), clips=2)
    assert take.folder == Path("out/clip1")
    [(name, cameras, fps, moments)] = take.paths
    assert (name, len(cameras), fps, moments) == ("spiral", 6, 30.0, [0, 1, 2, 3, 0, 1])
    source = take.source(2)
    assert source.names == NAMES[:2]
    torch.testing.assert_close(source.images, MadeClips(2).scene(6).views([0, 1]).images)
    assert _take(Wish(["input"])).folder == Path("out")
    assert _take(Wish(["input"]), sources=[2, 0]).source(0).names == ["cam02", "cam00"]


def test_times_of_a_camera_path_say_the_moment(tmp_path: Path) -> None:
    frame = {"camera_to_world": torch.eye(4).flatten().tolist(), "fov": 60}
    content: dict[str, Any] = {"render_height": 10, "render_width": 20, "fps": 24}
    content["camera_path"] = [frame | {"render_time": time} for time in (3.0, 3.0, 1.0)]
    path = tmp_path / "c.json"
    path.write_text(json.dumps(content))
    [(_, cameras, fps, moments)] = _take(Wish([str(path)])).paths
    assert (fps, moments, cameras.width) == (24, [3, 3, 1], 20)


def test_a_clip_brings_its_own_path(tmp_path: Path) -> None:
    for frame in ("00002", "00001"):
        (tmp_path / frame / "images").mkdir(parents=True)
    np.save(tmp_path / "00001/poses_bounds.npy", np.zeros((2, 17)))
    assert own_path(str(tmp_path)) is None
    (tmp_path / "00002/qual_path.txt").touch()  # that of the first frame folder alone is one
    assert own_path(str(tmp_path)) is None
    (tmp_path / "qual_path.txt").touch()
    assert own_path(str(tmp_path)) == str(tmp_path / "qual_path.txt")
    (tmp_path / "00001/qual_path.txt").touch()
    assert own_path(str(tmp_path)) == str(tmp_path / "00001/qual_path.txt")
    assert own_path("builtin:rigs") is None


def test_clips_are_found_by_name_and_number() -> None:
    made = MadeClips(3)
    assert find_clips(made, []) == [0]
    assert find_clips(made, ["clip2", "0", "2"]) == [2, 0]
    with pytest.raises(UserError, match="--scenes 3: made has 3 clips, the first is clip0"):
        find_clips(made, ["3"])


@pytest.mark.parametrize(
    ("wish", "sources", "message"),
    [
        (Wish(["orbit"]), [], "unknown path 'orbit' of a rig: choose from x_axis"),
        (Wish(["none.txt"]), [], "none.txt does not exist"),
        (Wish(["x_axis"], view="cam00"), [], "--view"),
        (Wish(["x_axis"]), [0, 3], "--source_views 3: clip0 has 3 cameras"),
    ],
)
def test_what_cannot_be_filmed_is_one_line(wish: Wish, sources: list[int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        _take(wish, sources=sources)


def test_a_rig_without_bounds_has_files_only(tmp_path: Path) -> None:
    scene = MadeClips(without=("bounds",)).scene(0)
    with pytest.raises(UserError, match="no near and far bounds"):
        clip_path("spiral", scene, _rig())
    write_rig_path(_rig(), tmp_path / "p.npy")
    assert len(clip_path(str(tmp_path / "p.npy"), scene, _rig())[0]) == 3
    with pytest.raises(UserError, match="--frames 9"):
        clip_path(str(tmp_path / "p.npy"), scene, _rig(), 9)
