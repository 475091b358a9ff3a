"""What videos and evaluations start from: flags that change the experiment, and every kind of data."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from common.errors import UserError
from dataloader.rig.archives import write_archive
from dataloader.rig.config import RigConfig
from dataloader.rig.sets import ClipScenes
from dataloader.scene import Scene
from dataloader.scene_sets import SceneSets
from engine.config import DataConfig, Experiment
from engine.method import Script
from geometry.cameras import pinhole
from geometry.plane_files import write_mpi
from geometry.planes import PlaneImage, plane_depths
from geometry.views import Views
from methods.mask_volume.data import scene_bounds
from methods.mask_volume.inputs import middle_sources
from methods.mask_volume.method import MaskVolume
from tests.dataloader.re10k.makers import make_example, make_root
from tests.dataloader.rig.makers import make_clip, pose_rows, write_camera_folders, write_frame_folders
from tests.methods.mask_volume.tiny import tiny_config


def parsed(words: list[str], script: Script = "video", **data: Any) -> tuple[argparse.Namespace, Experiment]:
    """The method's own flags, and an experiment that they have changed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("-i", "--inputimg", type=Path)
    MaskVolume.add_arguments(parser, script)
    made, args = Experiment("mask_volume", tiny_config(), DataConfig(**data)), parser.parse_args(words)
    MaskVolume.apply_arguments(args, made)
    return args, made


def experiment(words: list[str], script: Script = "video", **data: Any) -> Experiment:
    return parsed(words, script, **data)[1]


def opened(words: list[str], **data: Any) -> Scene | SceneSets:
    return MaskVolume.open(*parsed(words, **data))


def test_flags_of_videos_change_the_experiment() -> None:
    words = ["--data", "frames", "--background", "plates", "--indices", "4", "5"]
    words += ["--start", "2", "--end", "9", "--mpi", "llff"]
    made = experiment(words, root="other")
    rig = made.data.rig
    assert made.data.root == "frames"
    assert (rig.background, rig.sources, rig.start, rig.end) == ("plates", (4, 5), 2, 9)
    assert made.model.page == ("llff",)
    assert made.model.stored == ""


def test_without_flags_the_experiment_stays_as_it_is() -> None:
    made = experiment([], root="other")
    assert made == Experiment("mask_volume", tiny_config(), DataConfig(root="other"))
    assert experiment([], "test") == experiment([], "train")
    assert experiment(["--mpi"]).model.page == ()


def test_other_scripts_have_no_such_flags() -> None:
    for script in ("train", "test"):
        parser = argparse.ArgumentParser()
        MaskVolume.add_arguments(parser, script)  # type: ignore[arg-type]
        assert {action.dest for action in parser._actions} == {"help"}


def test_moments_before_the_first_are_refused() -> None:
    with pytest.raises(UserError, match=r"--start -1: moments count from 0"):
        experiment(["--start", "-1"])


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    """Four cameras, five moments, a folder per frame, with the plates beside them."""
    return write_frame_folders(make_clip(4, 5), tmp_path / "clip" / "frames")


def test_clips_open_with_the_cameras_and_moments_asked_for(frames: Path) -> None:
    words = ["--data", str(frames), "--indices", "2", "0", "--start", "1", "--end", "4"]
    sets = opened(words)
    assert isinstance(sets, SceneSets)
    scenes = sets.split("test")
    assert isinstance(scenes, ClipScenes)
    assert [scenes.key(i) for i in range(len(scenes))] == ["00001", "00002", "00003"]
    assert [(task.source, task.target) for task in sets.tasks["test"]] == [((2, 0), (1, 3))] * 3
    assert scenes.scene(0).views().background is not None


def test_plates_from_elsewhere(frames: Path, tmp_path: Path) -> None:
    (frames.parent / "background").rename(tmp_path / "plates")
    assert first_views(opened(["--data", str(frames)])).background is None
    sets = opened(["--data", str(frames), "--background", str(tmp_path / "plates")])
    assert first_views(sets).background is not None
    with pytest.raises(UserError, match=r"none does not exist: give the folder of the background plates"):
        opened(["--data", str(frames), "--background", str(tmp_path / "none")])


def first_views(sets: Any) -> Views:
    return sets.split("test").scene(0).views()


@pytest.mark.parametrize("indices", [["1"], ["0", "1", "2"]])
def test_another_number_of_cameras_than_the_models_is_one_line(frames: Path, indices: list[str]) -> None:
    with pytest.raises(UserError, match=rf"--indices\) names {len(indices)} cameras, the model takes 2"):
        opened(["--data", str(frames), "--indices", *indices])


def test_cameras_that_are_not_there_are_named(frames: Path) -> None:
    with pytest.raises(UserError, match=r"names camera 5: frames has 4, numbered from 0"):
        opened(["--data", str(frames), "--indices", "3", "5"])


def test_every_kind_of_clip_opens(tmp_path: Path) -> None:
    clip = make_clip(3, 2)
    write_camera_folders(clip, tmp_path / "cameras")
    write_archive(clip, tmp_path / "sets" / "train" / "scene000.h5")
    write_archive(clip, tmp_path / "sets" / "test" / "scene001.h5")
    seeds: dict[str, Any] = {"seeds": "0:1", "test_seeds": "5:6", "size": (16, 16), "frames": 2}
    for root in ("cameras", "sets", "sets/train/scene000.h5", "builtin:rigs"):
        place = root if root.startswith("builtin") else str(tmp_path / root)
        sets = opened([], root=place, rig=RigConfig(**seeds))
        assert isinstance(sets, SceneSets)
        assert len(sets.split("train")) == len(sets.split("test")) == 2
        assert sets.tasks["test"]


@pytest.mark.parametrize("flag", ["background", "indices", "start", "end"])
def test_flags_of_clips_are_for_clips(tmp_path: Path, flag: str) -> None:
    with pytest.raises(UserError, match=rf"--{flag} goes with clips of a rig, and builtin:rooms is none"):
        opened([f"--{flag}", "1"], root="builtin:rooms")
    with pytest.raises(UserError, match=rf"--{flag} goes with clips, not with stored planes"):
        opened(["-i", str(tmp_path), f"--{flag}", "1"])


def test_sets_of_static_scenes_open(tmp_path: Path) -> None:
    make_root(tmp_path, [[make_example(0)]])
    (tmp_path / "index.json").write_text(json.dumps({"room0000": {"context": [0, 3], "target": [1]}}))
    sets = opened([], root=str(tmp_path), index=str(tmp_path / "index.json"))
    assert isinstance(sets, SceneSets)
    assert sets.tasks["test"][0].source == (0, 3)
    assert isinstance(opened([], root="builtin:rooms"), SceneSets)


def test_of_one_scene_the_middle_photos_are_given(tmp_path: Path) -> None:
    """A folder of photos with LLFF's poses: the planes stand within the bounds of all photos."""
    clip = make_clip(9, 1)
    folder = write_frame_folders(clip, tmp_path / "scene") / "00000"
    np.save(folder / "poses_bounds.npy", pose_rows(clip))
    scene = opened([], root=str(folder), hold_out_every=3)
    assert isinstance(scene, Scene)
    assert scene.split("test") == [0, 3, 6]
    assert scene.split("train") == [4, 5]  # of 1 2 4 5 7 8
    bounds = scene_bounds(scene)
    assert bounds is not None
    assert bounds.tolist() == [1.0, 18.0]
    views = scene.views(scene.split("train"))
    assert views.bounds is not None
    assert views.bounds.tolist() == [[1.0, 18.0]] * 2


def test_a_scene_with_too_few_photos_is_one_line() -> None:
    scene = make_clip(3, 1).scene(0)
    scene.splits = {"train": [1]}
    with pytest.raises(UserError, match=r"scene 00000 has 1 photos in its split 'train', 2 needed"):
        middle_sources(scene, "train", 2)


def test_nothing_to_open_is_one_line(tmp_path: Path) -> None:
    for root, message in (("", "data.root is empty"), (str(tmp_path / "no"), "no")):
        with pytest.raises(UserError, match=message):
            opened([], root=root)


def test_stored_planes_are_a_scene_of_one_photo(tmp_path: Path) -> None:
    layers = torch.rand(4, 20, 30, 4, generator=torch.Generator().manual_seed(0))
    layers[0, ..., 3] = 1
    planes = PlaneImage(layers, plane_depths(2.0, 8.0, 4).double(), pinhole(25.0, 20, 30))
    write_mpi(planes, tmp_path)
    made = experiment(["-i", str(tmp_path)])
    assert made.model.stored == str(tmp_path)
    scene = MaskVolume.open(argparse.Namespace(), made)
    assert isinstance(scene, Scene)
    views = scene.views(scene.split("train"))
    assert views.images.shape == (1, 3, 20, 30)
    assert views.depth is not None
    assert 2 <= views.depth.min() < views.depth.max() <= 8
    method = MaskVolume.create(made.model)
    made_again = method.render(method.encode(views), views.cameras)
    torch.testing.assert_close(made_again.image, views.images, rtol=0, atol=1 / 255)
    assert made_again.depth is not None
    torch.testing.assert_close(made_again.depth, views.depth)
    with pytest.raises(UserError, match=r"metadata\.txt"):
        opened(["-i", str(tmp_path / "none")])
