"""Clips as sets of scenes, and the tasks on them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.errors import UserError
from dataloader.formats import write_scene
from dataloader.rig.config import RigConfig
from dataloader.rig.sets import ClipScenes, clips_of, is_rig, open_rig_sets
from dataloader.room_scenes import RoomScenes
from dataloader.scene import Scene
from dataloader.scene_sets import FilmedScenes, SceneSet, ViewTask
from engine.config import DataConfig
from tests.dataloader.rig.makers import make_clip, write_camera_folders, write_frame_folders


def test_scenes_are_moments() -> None:
    scenes = ClipScenes([make_clip(2, 3), make_clip(3, 2)], "clips")
    assert isinstance(scenes, SceneSet)
    assert isinstance(scenes, FilmedScenes)
    assert len(scenes) == 5
    assert [scenes.moment(i) for i in range(5)] == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]
    assert [scenes.key(i) for i in (0, 4)] == ["small_00000", "small_00001"]
    assert len(scenes.scene(3)) == 3
    assert ClipScenes([make_clip(2, 3)], "clip").key(1) == "00001"
    with pytest.raises(IndexError):
        scenes.moment(5)
    assert clips_of(scenes)[1] is scenes.clips[1]
    with pytest.raises(UserError, match="builtin:rooms holds no clips"):
        clips_of(RoomScenes([1]))


def test_a_clip_is_both_splits(tmp_path: Path) -> None:
    root = write_camera_folders(make_clip(5, 4), tmp_path / "clip")
    sets = open_rig_sets(DataConfig(root=str(root)))
    assert sorted(sets.splits) == ["test", "train"]
    assert sets.tasks["test"] == [ViewTask(i, (1, 2), (0, 3, 4)) for i in range(4)]
    config = RigConfig(sources=(3, 0), targets=(4,), start=1, every=2)
    sets = open_rig_sets(DataConfig(root=str(root), rig=config))
    assert [sets.split("test").key(i) for i in range(2)] == ["00001", "00003"]
    assert sets.tasks["test"] == [ViewTask(i, (3, 0), (4,)) for i in range(2)]
    assert is_rig(str(root))


def test_two_cameras_leave_none_to_score(tmp_path: Path) -> None:
    root = write_camera_folders(make_clip(2, 2), tmp_path / "clip")
    assert open_rig_sets(DataConfig(root=str(root))).tasks["test"] == []


def test_as_many_middle_cameras_are_given_as_a_model_takes(tmp_path: Path) -> None:
    root = str(write_camera_folders(make_clip(6, 1), tmp_path / "clip"))
    for given, expected in ((2, (2, 3)), (3, (1, 2, 3)), (4, (1, 2, 3, 4))):
        assert open_rig_sets(DataConfig(root=root), given).tasks["test"][0].source == expected
    named = DataConfig(root=root, rig=RigConfig(sources=(5, 0)))
    assert open_rig_sets(named, 3).tasks["test"][0].source == (5, 0)
    with pytest.raises(UserError, match="clip has 6 cameras, and 7 are to be given"):
        open_rig_sets(DataConfig(root=root), 7)


def test_frame_folders_and_their_plates(tmp_path: Path) -> None:
    root = write_frame_folders(make_clip(), tmp_path / "frames")
    (tmp_path / "background").rename(tmp_path / "plates")
    data = DataConfig(root=str(root), rig=RigConfig(background=str(tmp_path / "plates")))
    clips_of(open_rig_sets(data).split("train"))[0].need_plates()


def test_folders_of_clips(tmp_path: Path) -> None:
    write_camera_folders(make_clip(2, 2), tmp_path / "train" / "a")
    write_camera_folders(make_clip(3, 3, seed=1), tmp_path / "train" / "more" / "b")
    write_frame_folders(make_clip(4, 1), tmp_path / "test" / "c")
    sets = open_rig_sets(DataConfig(root=str(tmp_path)))
    assert [clip.name for clip in clips_of(sets.split("train"))] == ["a", "b"]
    assert [clip.name for clip in clips_of(sets.split("test"))] == ["c"]
    assert sets.tasks["test"] == [ViewTask(0, (1, 2), (0, 3))]
    both = open_rig_sets(DataConfig(root=str(tmp_path / "train")))
    assert len(clips_of(both.split("test"))) == 2
    assert is_rig(str(tmp_path / "train"))
    assert not is_rig(str(tmp_path / "train" / "a" / "cam00"))
    assert not is_rig("builtin:rooms")


def test_what_looks_like_a_clip(tmp_path: Path, posed_scene: Callable[..., Scene]) -> None:
    """Incomplete clips still are clips, so that messages say what they lack; other data are not."""
    root = write_camera_folders(make_clip(2, 2), tmp_path / "clip")
    (root / "poses_bounds.npy").unlink()
    frames = write_frame_folders(make_clip(2, 2), tmp_path / "frames")
    (frames / "00000" / "poses_bounds.npy").unlink()
    for folder in (root, frames):
        assert is_rig(str(folder))
        with pytest.raises(UserError, match=r"poses_bounds\.npy does not exist"):
            open_rig_sets(DataConfig(root=str(folder)))
    (frames / "00001" / "poses_bounds.npy").unlink()
    assert is_rig(str(frames))
    assert is_rig(str(tmp_path / "absent.h5"))
    with pytest.raises(UserError, match=r"absent\.h5 does not exist"):
        open_rig_sets(DataConfig(root=str(tmp_path / "absent.h5")))
    (tmp_path / "64x36.h5").write_bytes(b"")  # clips of RealEstate10K
    assert not is_rig(str(tmp_path / "64x36.h5"))
    for kind, name in (("mvsnet", "one"), ("colmap", "set/000c3ab189999a83"), ("nerfstudio", "set/001b")):
        write_scene(posed_scene(n=3), tmp_path / name, kind)
    assert not is_rig(str(tmp_path / "one"))  # though it has a folder 'cams'
    assert not is_rig(str(tmp_path / "set"))


def test_the_shared_archives(parity_data: Path) -> None:
    sets = open_rig_sets(DataConfig(root=str(parity_data / "mvcam_mini" / "h5" / "train")))
    assert [clip.name for clip in clips_of(sets.split("train"))] == ["scene000"]
    assert len(sets.split("test")) == 6


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"sources": (0, 3)}, "data.rig.sources names camera 3: clip has 3, numbered from 0"),
        ({"targets": (0, -1)}, "data.rig.targets names camera -1"),
        ({"sources": (0, 1), "targets": (1,)}, "name a camera twice"),
        ({"sources": (1, 1)}, "name a camera twice"),
        ({"start": 4}, "clip has 4 moments"),
        ({"background": "/nowhere/plates"}, "/nowhere/plates does not exist"),
    ],
)
def test_bad_choices(config: dict[str, Any], message: str, tmp_path: Path) -> None:
    root = write_camera_folders(make_clip(), tmp_path / "clip")
    with pytest.raises(UserError, match=message):
        open_rig_sets(DataConfig(root=str(root), rig=RigConfig(**config)))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"start": -1}, "start and end must be at least 0"),
        ({"every": 0}, "every and frames at least 1"),
        ({"seeds": "3"}, "data.rig: seeds are '3'"),
        ({"seeds": "0:20", "test_seeds": "19:30"}, "overlap"),
        ({"size": (8, 64)}, "data.rig.size"),
    ],
)
def test_bad_settings(config: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        RigConfig(**config)


def test_roots_without_clips(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.root is empty"):
        open_rig_sets(DataConfig())
    with pytest.raises(UserError, match=r"holds no clips: data\.root takes"):
        open_rig_sets(DataConfig(root=str(tmp_path)))
    with pytest.raises(UserError, match="absent is no folder"):
        open_rig_sets(DataConfig(root=str(tmp_path / "absent")))
    write_camera_folders(make_clip(2, 2), tmp_path / "a")
    with pytest.raises(UserError, match=r"data\.rig\.background is for a single clip"):
        open_rig_sets(DataConfig(root=str(tmp_path), rig=RigConfig(background="x")))
