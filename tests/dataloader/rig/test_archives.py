"""Archives of clips: written and read, by several processes, and what is refused."""

from __future__ import annotations

import multiprocessing
import pickle
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from common.errors import UserError
from dataloader import h5_images
from dataloader.rig.archives import open_archive, write_archive
from dataloader.rig.clip import Clip
from dataloader.rig.folders import open_frames
from tests.dataloader.rig.makers import make_clip, pose_rows, write_camera_folders


def test_round_trip(tmp_path: Path) -> None:
    clip = make_clip().cut(1)
    write_archive(clip, tmp_path / "scene007.h5")
    read = open_archive(tmp_path / "scene007.h5")
    assert (read.name, read.names, list(read.frames)) == ("scene007", clip.names, [1, 2, 3])
    assert read.bounds == clip.bounds
    assert np.array_equal(np.load(tmp_path / "scene007_pb.npy"), pose_rows(clip))
    for c in range(3):
        assert torch.allclose(read.cameras[c].K, clip.cameras[c].K, rtol=0, atol=1e-12)
        assert torch.equal(read.cameras[c].c2w, clip.cameras[c].c2w)
        for t in range(3):
            record = read.record(c, t)
            assert np.array_equal(record.load(), clip.photos[c][t])
            assert np.array_equal(record.load_foreground(), clip.mattes[c][t])
            assert np.array_equal(record.load_background(), clip.plates[c])
    assert read.record(2, 1).source == f"{tmp_path / 'scene007.h5'} rgb[2, 1]"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scene007.h5", "scene007_pb.npy"]
    assert len(open_frames(tmp_path / "scene007.h5", start=1, end=2)) == 1


def test_layout_on_disk(tmp_path: Path) -> None:
    clip = make_clip(2, 3)
    write_archive(clip, tmp_path / "scene000.h5", (6, 10))
    with h5py.File(tmp_path / "scene000.h5") as file:
        assert file["rgb"].shape == (2, 3, 6, 10, 3)
        assert file["fg_rgb"].shape == (2, 3, 6, 10, 4)
        assert file["bg_rgb"].shape == (2, 6, 10, 3)
        for name, chunk in (
            ("rgb", (1, 1, 6, 10, 3)),
            ("fg_rgb", (1, 1, 6, 10, 4)),
            ("bg_rgb", (1, 6, 10, 3)),
        ):
            assert (file[name].chunks, file[name].compression, file[name].shuffle) == (chunk, "lzf", True)
    with h5py.File(tmp_path / "scene000.h5") as file:
        cutouts = file["fg_rgb"][()]
    assert (cutouts[cutouts[..., 3] == 0] == 0).all()


def test_other_sizes_are_lanczos_and_scale_x_and_y_apart(tmp_path: Path) -> None:
    from PIL import Image

    clip = make_clip(2, 1, height=24, width=32)
    write_archive(clip, tmp_path / "a.h5", (12, 24))
    read = open_archive(tmp_path / "a.h5")
    expected = Image.fromarray(clip.photos[1][0]).resize((24, 12), Image.Resampling.LANCZOS)
    assert np.array_equal(read.record(1, 0).load(), np.asarray(expected))
    assert torch.allclose(read.cameras[1].K[0], clip.cameras[1].K[0] * 24 / 32)
    assert torch.allclose(read.cameras[1].K[1], clip.cameras[1].K[1] * 12 / 24)
    with pytest.raises(UserError, match="cam00 has fx 24 and fy 16, LLFF stores one focal length"):
        write_archive(read, tmp_path / "b.h5")


def test_soft_mattes_keep_their_alpha(tmp_path: Path) -> None:
    clip = open_frames(write_camera_folders(make_clip(), tmp_path / "clip"))
    write_archive(clip, tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5") as file:
        assert set(np.unique(file["fg_rgb"][..., 3])) == {60, 200}
        assert np.array_equal(file["fg_rgb"][1, 2, ..., :3], clip.record(1, 2).load())


def test_plates_and_mattes_may_be_missing(tmp_path: Path) -> None:
    write_archive(replace(make_clip(), plates=None, mattes=None), tmp_path / "a.h5")
    read = open_archive(tmp_path / "a.h5")
    assert (read.plates, read.mattes) == (None, None)


def test_the_shared_archive_and_folders_are_one_clip(parity_data: Path) -> None:
    root = parity_data / "mvcam_mini"
    packed, loose = open_archive(root / "h5" / "train" / "scene000.h5"), open_frames(root)
    assert packed.names == loose.names
    for moment in range(6):
        one, other = packed.scene(moment).views(), loose.scene(moment).views()
        assert torch.equal(one.background, other.background)
        assert torch.equal(one.foreground, other.foreground)
        assert torch.allclose(one.cameras.K, other.cameras.K)
        assert (one.images - other.images).abs().mean() < 0.02  # frames went through JPEG


def test_recorded_sample(parity_dir: Path, tmp_path: Path) -> None:
    case = load_file(parity_dir / "mask_volume" / "mvcam_sample.safetensors")
    used, moment, (height, width) = [3, 7, 1], 1, (18, 32)
    with h5py.File(tmp_path / "scene000.h5", "w") as file:
        rgb, cutouts = (
            np.zeros((10, 5, height, width, 3), np.uint8),
            np.zeros((10, 5, height, width, 4), np.uint8),
        )
        plates = np.zeros((10, height, width, 3), np.uint8)
        rgb[used, moment], plates[used] = case["input.rgb"].numpy(), case["input.bg_rgb"].numpy()
        cutouts[used[0], moment] = case["input.fg_rgb"].numpy()
        file["rgb"], file["fg_rgb"], file["bg_rgb"] = rgb, cutouts, plates
    np.save(tmp_path / "scene000_pb.npy", case["input.poses_bounds"].numpy())
    clip = open_archive(tmp_path / "scene000.h5")
    views = clip.scene(moment).views(used)
    assert torch.equal(views.images[:1], case["output.tgt_rgb"])
    assert torch.equal(views.images[1:], case["output.src_rgb"][:, 0])
    assert torch.equal(views.background[0], case["output.tgt_bg"])
    assert torch.equal(views.background[1:], case["output.src_bg"])
    assert torch.equal(views.foreground[0], case["output.tgt_mask"])
    assert torch.allclose(torch.tensor(clip.plane_bounds()), case["output.bd"].float(), rtol=1e-5)
    mirror = torch.diag(torch.tensor([1.0, 1, -1, 1]))  # the original's world is mirrored
    w2c = views.cameras.w2c.float() @ mirror
    assert torch.allclose(w2c, torch.cat([case["output.tgt_w2c"][None], case["output.src_w2c"]]), atol=1e-5)
    K = torch.cat([case["output.tgt_K"][None], case["output.src_K"]])
    assert torch.allclose(views.cameras.K[:, 0].float(), K[:, 0], rtol=1e-5)


def _sums(clip: Clip, moments: list[int]) -> list[int]:
    return [int(clip.record(c, t).load().sum()) for t in moments for c in range(len(clip.cameras))]


def test_pickled_and_forked(tmp_path: Path) -> None:
    clip = make_clip(4, 6)
    write_archive(clip, tmp_path / "a.h5")
    read = open_archive(tmp_path / "a.h5")
    expected = _sums(clip, list(range(6)))
    assert _sums(read, list(range(6))) == expected  # the file is open here
    assert _sums(pickle.loads(pickle.dumps(read)), list(range(6))) == expected
    with multiprocessing.get_context("fork").Pool(3) as pool:
        runs = [pool.apply_async(_sums, (read, list(range(6)))) for _ in range(6)]
        assert _sums(read, list(range(6))) == expected  # while the workers read
        assert all(run.get(60) == expected for run in runs)


def test_few_files_stay_open(tmp_path: Path) -> None:
    for i in range(12):
        write_archive(make_clip(2, 1, seed=i), tmp_path / f"{i}.h5")
    for i in range(12):
        assert _sums(open_archive(tmp_path / f"{i}.h5"), [0]) == _sums(make_clip(2, 1, seed=i), [0])
    assert len(h5_images._files) <= 8
    write_archive(make_clip(2, 1, seed=99), tmp_path / "11.h5")  # replaced while open
    assert _sums(open_archive(tmp_path / "11.h5"), [0]) == _sums(make_clip(2, 1, seed=99), [0])


def test_memory_is_that_of_an_image(tmp_path: Path) -> None:
    class Noise:
        def __init__(self, seed: int) -> None:
            self.seed = seed

        def read(self) -> np.ndarray:
            return np.random.default_rng(self.seed).integers(0, 256, (128, 160, 3), np.uint8)

    photos = [[Noise(40 * c + t) for t in range(40)] for c in range(2)]
    clip = replace(make_clip(2, 1, 128, 160), mattes=None, plates=None, frames=(), photos=photos)
    tracemalloc.start()
    write_archive(clip, tmp_path / "a.h5")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 128 * 160 * 3  # all photos are 80 of them


def test_nothing_is_left_of_a_failure(tmp_path: Path) -> None:
    clip = open_frames(write_camera_folders(make_clip(), tmp_path / "clip"))
    (tmp_path / "clip" / "cam01" / "00002.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"00002\.png is not a readable image"):
        write_archive(clip, tmp_path / "out" / "a.h5")
    assert list((tmp_path / "out").iterdir()) == []
    with pytest.raises(UserError, match="cannot write"):
        write_archive(make_clip(), tmp_path / "clip" / "cam01" / "00000.png" / "a.h5")


def _drop(name: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        with h5py.File(path, "a") as file:
            del file[name]

    return change


def _swap(name: str, value: Any) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        _drop(name)(path)
        with h5py.File(path, "a") as file:
            file[name] = value

    return change


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (Path.unlink, r"a\.h5 does not exist"),
        (lambda path: path.write_bytes(path.read_bytes()[:300]), r"a\.h5 cannot be read"),
        (lambda path: path.with_name("a_pb.npy").unlink(), r"a_pb\.npy does not exist"),
        (
            lambda path: np.save(path.with_name("a_pb.npy"), np.ones((2, 17))),
            "2 rows for the 3 cameras of a.h5",
        ),
        (lambda path: np.save(path.with_name("a_pb.npy"), np.ones((3, 15))), r"has shape \(3, 15\)"),
        (_drop("rgb"), "has no data set 'rgb'"),
        (_swap("rgb", np.zeros((3, 4, 12, 16), np.uint8)), "rgb is uint8"),
        (_swap("rgb", np.zeros((3, 4, 12, 16, 3), np.float32)), "rgb is float32"),
        (
            _swap("fg_rgb", np.zeros((3, 5, 12, 16, 4), np.uint8)),
            r"fg_rgb is uint8 \[3, 5, 12, 16, 4\], it must",
        ),
        (_swap("bg_rgb", np.zeros((2, 12, 16, 3), np.uint8)), r"must be uint8 \[3 x 12 x 16 x 3\]"),
    ],
)
def test_bad_archives(spoil: Callable[[Path], object], message: str, tmp_path: Path) -> None:
    write_archive(make_clip(), tmp_path / "a.h5")
    spoil(tmp_path / "a.h5")
    with pytest.raises(UserError, match=message) as caught:
        open_archive(tmp_path / "a.h5")
    assert "\n" not in str(caught.value)


def test_an_image_gone_later(tmp_path: Path) -> None:
    write_archive(make_clip(), tmp_path / "a.h5")
    clip = open_archive(tmp_path / "a.h5")
    (tmp_path / "a.h5").unlink()
    with pytest.raises(UserError, match=r"a\.h5 does not exist"):
        clip.record(0, 0).load()
