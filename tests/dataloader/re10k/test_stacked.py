"""Scenes of one HDF5 file: what `stack_h5` writes, what the original wrote, and what is refused."""

from __future__ import annotations

import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from common.errors import UserError
from dataloader.h5_images import close_all
from dataloader.re10k.examples import example_cameras
from dataloader.re10k.stack_h5 import stack_h5
from dataloader.re10k.stacked import StackedScenes, stacked_file
from dataloader.scene_sets import SceneSet
from dataloader.scene_sets_open import open_scene_sets
from engine.config import DataConfig
from tests.dataloader.re10k.makers import make_example

SIZE = (24, 40)


def make_file(folder: Path, lengths: tuple[int, ...] = (5, 7)) -> Path:
    """A file of scenes of these lengths, with the original's lists beside it."""
    examples = [make_example(seed, n, SIZE, "PNG") for seed, n in enumerate(lengths)]
    stack_h5([(str(e["key"]), lambda e=e: e) for e in examples], folder, SIZE, 3)
    return folder / "40x24.h5"


def without_cameras(path: Path) -> None:
    """The file as the original has it: cameras in the lists alone."""
    close_all()
    with h5py.File(path, "a") as file:
        del file["K"], file["w2c"]


def test_scenes_come_back(tmp_path: Path) -> None:
    scenes = StackedScenes(make_file(tmp_path))
    assert isinstance(scenes, SceneSet)
    assert (len(scenes), scenes.key(1)) == (2, "room0001")
    scene = scenes.scene(1)
    assert (scene.name, len(scene), scene.records[2].name) == ("room0001", 7, "000002")
    expected = example_cameras(make_example(1, 7, SIZE), SIZE)
    views = scene.views([6, 2])
    torch.testing.assert_close(views.cameras.K, expected.K[[6, 2]])
    torch.testing.assert_close(views.cameras.c2w, expected.c2w[[6, 2]], rtol=1e-9, atol=1e-9)
    with h5py.File(tmp_path / "40x24.h5") as file:
        pixels = torch.from_numpy(file["1"][6]).permute(2, 0, 1) / 255
    assert torch.equal(views.images[0], pixels)


@pytest.mark.parametrize("lengths", [(5, 7), (5, 5), (5,)], ids=["lists", "one length", "one scene"])
def test_the_originals_lists_are_read_without_running_them(tmp_path: Path, lengths: tuple[int, ...]) -> None:
    path = make_file(tmp_path, lengths)
    expected = StackedScenes(path).scene(0).cameras()
    without_cameras(path)
    if len(set(lengths)) < 2:  # numpy makes one array of scenes of one length
        for name in ("int.npy", "ext.npy"):
            np.save(tmp_path / name, np.array(list(np.load(tmp_path / name, allow_pickle=True))))
    cameras = StackedScenes(path).scene(0).cameras()
    assert torch.equal(cameras.K, expected.K)
    assert torch.equal(cameras.c2w, expected.c2w)


class Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path("evil"),))


def test_a_pickle_that_is_no_array_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = make_file(tmp_path)
    without_cameras(path)
    column = np.empty(2, dtype=object)
    column[:] = [Evil(), Evil()]
    np.save(tmp_path / "int.npy", column)
    assert b"evil" in pickle.dumps(Evil())
    with pytest.raises(UserError, match=r"int\.npy is not a readable list of cameras .*is no array"):
        StackedScenes(path)
    assert not (tmp_path / "evil").exists()


def test_a_folder_and_folders_of_splits(tmp_path: Path) -> None:
    make_file(tmp_path / "a" / "train")
    make_file(tmp_path / "a" / "test", (5,))
    sets = open_scene_sets(DataConfig(root=str(tmp_path / "a")))
    assert [len(sets.split(name)) for name in ("train", "test")] == [2, 1]
    one = open_scene_sets(DataConfig(root=str(tmp_path / "a" / "train")))
    assert one.split("train") is one.split("test")
    assert stacked_file(tmp_path) is None


def test_bad_files_are_named(tmp_path: Path) -> None:
    path = make_file(tmp_path)
    without_cameras(path)
    np.save(tmp_path / "int.npy", np.load(tmp_path / "int.npy", allow_pickle=True)[:1])
    with pytest.raises(UserError, match="another number of scenes"):
        StackedScenes(path)
    (tmp_path / "ext.npy").unlink()
    with pytest.raises(UserError, match=r"ext\.npy does not exist"):
        StackedScenes(path)
    with h5py.File(tmp_path / "80x48.h5", "w"):
        pass
    with pytest.raises(UserError, match="holds no scenes"):
        StackedScenes(tmp_path / "80x48.h5")
    with pytest.raises(UserError, match=r"40x24\.h5 and 80x48\.h5: keep the size"):
        stacked_file(tmp_path)


def test_cameras_must_fit_the_frames(tmp_path: Path) -> None:
    path = make_file(tmp_path)
    with h5py.File(path, "a") as file:
        del file["K/1"]
        file["K/1"] = np.eye(3)[None].repeat(3, 0)
    with pytest.raises(UserError, match=r"scene 1 has 7 frames and cameras of the shape \(3, 3, 3\)"):
        StackedScenes(path).scene(1)
