"""Clips stacked in an HDF5 file: ours, the original's, broken and hostile ones."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from common.errors import UserError
from dataloader.h5_images import close_all
from dataloader.re10k.examples import scene_of
from dataloader.re10k.stack_h5 import stack_h5
from dataloader.re10k.stacked import StackedScenes
from dataloader.scene_sets import SceneSet
from dataloader.scene_sets_open import open_scene_sets
from engine.config import DataConfig
from tests.dataloader.re10k.makers import make_example

SIZE = (12, 16)


def _poses(frames: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Normalised K [frames, 3, 3] and w2c [frames, 4, 4]."""
    rng = np.random.default_rng(seed)
    K = np.tile(np.array([[0.8, 0, 0.5], [0, 1.1, 0.5], [0, 0, 1]]), (frames, 1, 1))
    w2c = np.tile(np.eye(4), (frames, 1, 1))
    w2c[:, :3, :3] = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    w2c[:, :3, 3] = rng.normal(size=(frames, 3))
    return K, w2c


def _object_list(entries: list[Any]) -> np.ndarray:
    column = np.empty(len(entries), dtype=object)
    for i, entry in enumerate(entries):
        column[i] = entry
    return column


def _original(root: Path, lengths: list[int], as_lists: bool = True) -> tuple[Path, list, list]:
    """A stack as the original writes it, cameras in object arrays of lists of matrices."""
    root.mkdir(parents=True, exist_ok=True)
    path = root / f"{SIZE[1]}x{SIZE[0]}.h5"
    poses = [_poses(n, i) for i, n in enumerate(lengths)]
    photos = [
        np.random.default_rng(i).integers(0, 256, (n, *SIZE, 3), np.uint8) for i, n in enumerate(lengths)
    ]
    with h5py.File(path, "w") as file:
        for i, stack in enumerate(photos):
            file.create_dataset(str(i), data=stack, chunks=(1, *SIZE, 3), compression="lzf", shuffle=True)
    for name, position in (("int", 0), ("ext", 1)):
        entries = [list(pose[position]) if as_lists else pose[position] for pose in poses]
        np.save(root / f"{name}.npy", _object_list(entries), allow_pickle=True)
    np.save(root / "scenes.npy", np.array([f"clip{i}" for i in range(len(lengths))]))
    return path, poses, photos


def _check(scenes: StackedScenes, poses: list, photos: list) -> None:
    for i, (K, w2c) in enumerate(poses):
        scene = scenes.scene(i)
        cameras = scene.cameras()
        np.testing.assert_allclose(cameras.K, K * [[16], [12], [1]], rtol=1e-12)
        np.testing.assert_allclose(cameras.w2c, w2c, rtol=1e-9, atol=1e-12)
        assert (cameras.height, cameras.width) == SIZE
        for frame in (0, len(scene) - 1):
            assert np.array_equal(scene.records[frame].load(), photos[i][frame])


@pytest.mark.parametrize("as_lists", [True, False])
def test_the_originals_files(as_lists: bool, tmp_path: Path) -> None:
    path, poses, photos = _original(tmp_path, [3, 11, 2], as_lists)
    scenes = StackedScenes(path)
    assert isinstance(scenes, SceneSet)
    assert [scenes.key(i) for i in range(len(scenes))] == ["clip0", "clip1", "clip2"]
    _check(scenes, poses, photos)
    (tmp_path / "scenes.npy").unlink()
    assert StackedScenes(path).key(2) == "2"


@pytest.mark.parametrize("kind", [object, np.float64, np.float32])
def test_lists_that_collapsed_to_one_array(kind: type, tmp_path: Path) -> None:
    path, poses, photos = _original(tmp_path, [4, 4])
    for name, position in (("int", 0), ("ext", 1)):
        array = np.array([pose[position] for pose in poses]).astype(kind)
        np.save(tmp_path / f"{name}.npy", array, allow_pickle=True)
    if kind is np.float32:
        poses = [(K.astype(kind), w2c.astype(kind)) for K, w2c in poses]
        assert StackedScenes(path).scene(0).cameras().c2w.dtype == torch.float64
    _check(StackedScenes(path), poses if kind is not np.float32 else [], photos)


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_versions_of_array_files(version: tuple[int, int], tmp_path: Path) -> None:
    path, poses, photos = _original(tmp_path, [2, 3])
    with (tmp_path / "int.npy").open("wb") as file:
        np.lib.format.write_array(file, _object_list([list(K) for K, _ in poses]), version)
    _check(StackedScenes(path), poses, photos)


def test_ours(tmp_path: Path) -> None:
    examples = [make_example(seed, size=SIZE) for seed in range(2)]
    named = [(str(example["key"]), lambda example=example: example) for example in examples]
    stack_h5(named, tmp_path, SIZE, min_frames=2)
    own = StackedScenes(tmp_path / "16x12.h5")
    assert [own.key(i) for i in range(2)] == [str(example["key"]) for example in examples]
    cameras = own.scene(1).cameras()
    torch.testing.assert_close(cameras.K, scene_of(examples[1], "").cameras().K)
    assert own.scene(1).names[:2] == ["000000", "000001"]
    close_all()
    with h5py.File(tmp_path / "16x12.h5", "a") as file:
        del file["K"], file["w2c"], file["1"].attrs["key"]
    lists = StackedScenes(tmp_path / "16x12.h5")  # from int.npy, ext.npy and scenes.npy
    assert [lists.key(i) for i in range(2)] == [own.key(i) for i in range(2)]
    torch.testing.assert_close(lists.scene(1).cameras().K, cameras.K)
    torch.testing.assert_close(lists.scene(1).cameras().c2w, cameras.c2w)


def test_recorded_sample(parity_dir: Path, tmp_path: Path) -> None:
    case = load_file(parity_dir / "mask_volume" / "re10k_sample.safetensors")
    frame, row, column, channel = np.ogrid[:120, :18, :32, :3]
    photos = ((2 * frame % 251) + 3 * row + column + 40 * channel + 7) % 256  # of scene 1
    indices = [57, 53, 61]
    K, w2c = (np.tile(np.eye(side), (120, 1, 1)) for side in (3, 4))
    K[indices], w2c[indices] = case["input.K_normalised"], case["input.ext"]
    with h5py.File(tmp_path / "32x18.h5", "w") as file:
        file["0"], file["1"] = np.zeros((1, 18, 32, 3), np.uint8), photos.astype(np.uint8)
    np.save(tmp_path / "int.npy", _object_list([[np.eye(3)], list(K)]), allow_pickle=True)
    np.save(tmp_path / "ext.npy", _object_list([[np.eye(4)], list(w2c)]), allow_pickle=True)
    views = StackedScenes(tmp_path / "32x18.h5").scene(1).views(indices)
    assert torch.equal(views.images[:2], case["output.src_imgs"])
    assert torch.equal(views.images[2], case["output.tgt_rgb"])
    expected = {
        "K": torch.cat([case["output.src_ints"], case["output.tgt_int"][None]]),
        "w2c": torch.cat([case["output.src_exts"], case["output.tgt_ext"][None]]),
    }
    torch.testing.assert_close(views.cameras.K.float(), expected["K"], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(views.cameras.w2c.float(), expected["w2c"], rtol=1e-5, atol=1e-6)


def _sum(scenes: StackedScenes, index: int) -> int:
    return sum(int(record.load().sum()) for record in scenes.scene(index).records)


def test_pickled_and_forked(tmp_path: Path) -> None:
    path, _, photos = _original(tmp_path, [3, 4, 5])
    scenes = StackedScenes(path)
    expected = [int(stack.sum()) for stack in photos]
    assert [_sum(pickle.loads(pickle.dumps(scenes)), i) for i in range(3)] == expected
    with get_context("fork").Pool(2, torch.set_num_threads, (1,)) as pool:  # as loaders do
        assert pool.starmap_async(_sum, [(scenes, i) for i in range(3)] * 4).get(60) == expected * 4


def test_opened_by_root(tmp_path: Path) -> None:
    _original(tmp_path / "one", [2])
    for root in (tmp_path / "one", tmp_path / "one" / "16x12.h5"):
        sets = open_scene_sets(DataConfig(root=str(root)))
        assert sets.split("train") is sets.split("test")
        assert isinstance(sets.split("train"), StackedScenes)
    _original(tmp_path / "two" / "train", [2, 3])
    _original(tmp_path / "two" / "val", [2])
    sets = open_scene_sets(DataConfig(root=str(tmp_path / "two")))
    assert [len(sets.split(name)) for name in ("train", "test")] == [2, 1]
    (tmp_path / "one" / "32x24.h5").write_bytes(b"")
    with pytest.raises(UserError, match="holds 2 stacks"):
        open_scene_sets(DataConfig(root=str(tmp_path / "one")))


class _Runs:
    def __init__(self, function: Callable, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def test_a_list_that_runs_something_is_refused(tmp_path: Path) -> None:
    path, _, _ = _original(tmp_path, [2, 3])
    mark = tmp_path / "mark"
    np.save(tmp_path / "ext.npy", _object_list([_Runs(os.system, f"touch {mark}"), 1]), allow_pickle=True)
    with pytest.raises(UserError, match=r"ext\.npy asks for .*system, which no list of cameras"):
        StackedScenes(path)
    assert not mark.exists()


def test_lists_that_are_cut_off(tmp_path: Path) -> None:
    path, _, _ = _original(tmp_path, [2, 3])
    data = (tmp_path / "int.npy").read_bytes()
    for length in range(0, len(data) - 1, 31):
        (tmp_path / "int.npy").write_bytes(data[:length])
        with pytest.raises(UserError, match=r"int\.npy is cut off or no list") as caught:
            StackedScenes(path)
        assert "\n" not in str(caught.value)


def _save(name: str, entries: list[Any]) -> Callable[[Path], None]:
    return lambda root: np.save(root / name, _object_list(entries), allow_pickle=True)


def _in_file(change: Callable[[Any], object]) -> Callable[[Path], None]:
    def spoil(root: Path) -> None:
        with h5py.File(root / "16x12.h5", "a") as file:
            change(file)

    return spoil


def _delete_all(file: Any) -> None:
    for name in list(file):
        del file[name]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: (root / "int.npy").unlink(), r"holds no cameras \(groups K, w2c\), nor does int\.npy"),
        (lambda root: (root / "ext.npy").unlink(), r"ext\.npy cannot be read"),
        (lambda root: (root / "16x12.h5").unlink(), r"16x12\.h5 does not exist"),
        (lambda root: (root / "16x12.h5").write_bytes(b"no file"), r"16x12\.h5 cannot be read"),
        (_save("int.npy", [[np.eye(3)] * 2]), r"int\.npy is of 1 scenes, 16x12\.h5 holds 2"),
        (_save("int.npy", [[np.eye(4)] * 2, 1]), r"scene 0 is \[2, 4, 4\], it must be \[frames, 3, 3\]"),
        (_save("int.npy", [[np.eye(3), np.eye(4)], 1]), "matrices of scene 0 differ in shape"),
        (_save("ext.npy", ["text", "more"]), "matrices of scene 0 differ in shape"),
        (_save("scenes.npy", [["a"], ["b"]]), "something else than the names"),
        (_save("scenes.npy", ["a"]), "names 1 scenes"),
        (_in_file(_delete_all), "holds no scene"),
        (_in_file(lambda file: file.create_dataset("2", data=np.zeros((2, 3)))), "scene 2 is float64"),
    ],
)
def test_bad_files(spoil: Callable[[Path], object], message: str, tmp_path: Path) -> None:
    path, _, _ = _original(tmp_path, [2, 3])
    spoil(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        StackedScenes(path)
    assert "\n" not in str(caught.value)


def test_bad_scenes(tmp_path: Path) -> None:
    path, poses, _ = _original(tmp_path, [2, 3])
    w2c = np.array(poses[1][1])
    bad = w2c.copy()
    bad[1] = 0
    for entry, message in (
        (w2c[:2], "has 3 frames"),
        (bad, "frame 1: the pose cannot be inverted"),
        (w2c * np.nan, "NaN"),
    ):
        np.save(tmp_path / "ext.npy", _object_list([poses[0][1], entry]), allow_pickle=True)
        with pytest.raises(UserError, match=message):
            StackedScenes(path).scene(1)
        StackedScenes(path).scene(0)


def test_cameras_must_fit_the_frames_of_our_files_too(tmp_path: Path) -> None:
    example = make_example(0, size=SIZE)
    stack_h5([("room", lambda: example)], tmp_path, SIZE, min_frames=2)
    with h5py.File(tmp_path / "16x12.h5", "a") as file:
        del file["K/0"]
        file["K/0"] = np.eye(3)[None].repeat(3, 0)
    with pytest.raises(UserError, match=r"has 5 frames, its K are \(3, 3, 3\)"):
        StackedScenes(tmp_path / "16x12.h5").scene(0)
