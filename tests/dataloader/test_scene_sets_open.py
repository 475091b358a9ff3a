"""What `data.root` means for methods that learn from many scenes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from common.errors import UserError
from dataloader.formats import write_scene
from dataloader.images import write_image
from dataloader.re10k.examples import camera_rows
from dataloader.room_scenes import RoomScenes, RoomsConfig
from dataloader.scene import Scene
from dataloader.scene_sets import SceneSet, ViewTask
from dataloader.scene_sets_open import open_scene_sets
from dataloader.toy import make_boxes, render
from engine.config import DataConfig
from tests.dataloader.re10k.makers import make_example, make_root


def test_rooms() -> None:
    config = RoomsConfig(seeds="0:3", test_seeds="10:12", views=7, size=16)
    sets = open_scene_sets(DataConfig(root="builtin:rooms", rooms=config))
    assert [len(sets.split(name)) for name in ("train", "test")] == [3, 2]
    assert sets.split("test").key(1) == "room11"
    scene = sets.split("train").scene(0)
    assert (len(scene), scene.records[0].camera.width) == (7, 16)
    assert sets.tasks["test"][0] == ViewTask(0, (2, 4), (3,))
    assert isinstance(sets.split("train"), SceneSet)
    with pytest.raises(UserError, match="has no split 'val'"):
        sets.split("val")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": "3"}, "write FIRST:LAST"),
        ({"seeds": "5:5"}, "write FIRST:LAST"),
        ({"seeds": "0:20", "test_seeds": "19:30"}, "overlap"),
        ({"views": 2}, "at least 5 views"),
    ],
)
def test_bad_rooms(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        RoomsConfig(**changes)


def test_a_room(tmp_path: Path) -> None:
    rooms = RoomScenes([4, 5, 6], n_views=3, size=(8, 12), kept=2)
    scene = rooms.scene(1)
    views = scene.views()
    assert (scene.name, views.images.shape) == ("room5", (3, 3, 8, 12))
    boxes = make_boxes(5)
    exact = render(boxes, views.cameras)
    assert (views.images - exact.images).abs().max() <= 0.5 / 255 + 1e-6
    torch.testing.assert_close(views.depth, exact.depth)
    assert rooms.scene(1) is scene  # made once
    rooms.scene(0), rooms.scene(2)
    assert rooms.scene(1) is not scene  # two are kept


def test_chunks_with_an_index(tmp_path: Path) -> None:
    one = make_root(tmp_path / "one", [[make_example(0)]], "train")
    make_root(tmp_path / "one", [[make_example(1)]], "test")
    two = make_root(tmp_path / "two", [[make_example(2)]], "test")
    index = tmp_path / "index.json"
    index.write_text(json.dumps({"room0002": {"context": [0, 4], "target": [2]}, "gone": None}))
    sets = open_scene_sets(DataConfig(root=f"{one},{two}", index=str(index)))
    assert {name: len(scenes) for name, scenes in sets.splits.items()} == {"train": 1, "test": 2}
    assert sets.split("test").key(sets.tasks["test"][0].scene) == "room0002"
    index.write_text(json.dumps({"room0009": {"context": [0, 4], "target": [2]}}))
    with pytest.raises(UserError, match=r"names room0009, which .* lacks"):
        open_scene_sets(DataConfig(root=str(one), index=str(index)))


def test_folders_of_scenes(tmp_path: Path, posed_scene: Callable[..., Scene]) -> None:
    for i, form in enumerate(("colmap", "nerfstudio")):
        write_scene(posed_scene(n=4, seed=i), tmp_path / "all" / f"scene{i}", form)
    sets = open_scene_sets(DataConfig(root=str(tmp_path / "all")))
    assert [sets.split("train").key(i) for i in range(2)] == ["scene0", "scene1"]
    assert len(sets.split("test").scene(1)) == 4
    alone = open_scene_sets(DataConfig(root=str(tmp_path / "all" / "scene1"))).split("test")
    assert (len(alone), alone.key(0), len(alone.scene(0))) == (1, "scene1", 4)
    write_scene(posed_scene(n=3), tmp_path / "split" / "train" / "a", "colmap")
    assert list(open_scene_sets(DataConfig(root=str(tmp_path / "split"))).splits) == ["train"]


def _convert(scene: Scene, folder: Path, told: Path) -> None:
    """Write a scene as the official code does. told: where the files say that they are."""
    frames = []
    for i, record in enumerate(scene.records):
        K = record.camera.K
        write_image(record.load(), folder / "images" / scene.name / f"{i:05d}.png")
        frames.append(
            {
                "image_path": str(told / "images" / scene.name / f"{i:05d}.png"),
                "fxfycxcy": [K[0, 0].item(), K[1, 1].item(), K[0, 2].item(), K[1, 2].item()],
                "w2c": record.camera.w2c.tolist(),
            }
        )
    (folder / "metadata").mkdir()
    meta = {"scene_name": scene.name, "frames": frames}
    (folder / "metadata" / f"{scene.name}.json").write_text(json.dumps(meta))
    (folder / "full_list.txt").write_text(str(told / "metadata" / f"{scene.name}.json") + "\n")


def test_the_official_layout(tmp_path: Path, posed_scene: Callable[..., Scene]) -> None:
    scene = posed_scene(n=3, off_center=2.5)
    folder = tmp_path / "moved" / "test"
    _convert(scene, folder, tmp_path / "elsewhere" / "test")
    sets = open_scene_sets(DataConfig(root=str(tmp_path / "moved")))
    read = sets.split("test").scene(0)
    assert sets.split("test").key(0) == read.name == "small"
    torch.testing.assert_close(camera_rows(read.cameras()), camera_rows(scene.cameras()))
    assert np.array_equal(read.records[2].load(), scene.records[2].load())
    same = open_scene_sets(DataConfig(root=str(folder)))
    assert (len(same.split("train")), len(same.split("test"))) == (1, 1)
    (folder / "metadata" / "small.json").write_text('{"frames": [{"image_path": "x"}]}')
    with pytest.raises(UserError, match=r"small.json, frame 0 is malformed"):
        sets.split("test").scene(0)


@pytest.mark.parametrize(
    ("root", "message"),
    [
        ("", "data.root is empty"),
        ("builtin:rooms:0", "the built-in set of scenes is builtin:rooms"),
        ("builtin:motorcycle", "the built-in set of scenes is builtin:rooms"),
        ("{}/nowhere", "nowhere is no folder"),
        ("{}", "holds no scenes"),
        ("{},{}/nowhere", "no RealEstate10K chunks"),
    ],
)
def test_bad_roots(tmp_path: Path, root: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        open_scene_sets(DataConfig(root=root.replace("{}", str(tmp_path))))
