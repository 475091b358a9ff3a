"""Clips in folders, per camera and per frame."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from common.errors import UserError
from dataloader.images import write_image
from dataloader.rig.clip import Clip
from dataloader.rig.folders import is_clip, open_frames
from tests.dataloader.rig.makers import make_clip, write_camera_folders, write_frame_folders


def _assert_same(read: Clip, clip: Clip, mattes: bool = True) -> None:
    assert list(read.frames) == list(clip.frames)
    assert read.bounds == clip.bounds
    for c, camera in enumerate(clip.cameras):
        assert torch.allclose(read.cameras[c].K, camera.K, rtol=0, atol=1e-12)
        assert torch.allclose(read.cameras[c].c2w, camera.c2w, rtol=0, atol=1e-12)
        for t in range(len(clip)):
            record = read.record(c, t)
            assert np.array_equal(record.load(), clip.photos[c][t])
            assert np.array_equal(record.load_background(), clip.plates[c])
            if mattes:
                assert np.array_equal(record.load_foreground(), clip.mattes[c][t])


def test_camera_folders(tmp_path: Path) -> None:
    clip = make_clip()
    read = open_frames(write_camera_folders(clip, tmp_path / "clip"))
    assert (read.name, read.names) == ("clip", clip.names)
    _assert_same(read, clip)


def test_frame_folders(tmp_path: Path) -> None:
    clip = make_clip()
    read = open_frames(write_frame_folders(clip, tmp_path / "frames"))
    assert (read.name, read.names, read.mattes) == ("frames", ["000", "001", "002"], None)
    _assert_same(read, clip, mattes=False)


def test_start_end_and_plates_elsewhere(tmp_path: Path) -> None:
    clip = make_clip()
    root = write_frame_folders(clip, tmp_path / "frames")
    (tmp_path / "background").rename(tmp_path / "plates")
    assert open_frames(root).plates is None
    read = open_frames(root, tmp_path / "plates", start=1, end=3)
    assert list(read.frames) == [1, 2]
    assert np.array_equal(read.record(2, 0).load_background(), clip.plates[2])
    assert np.array_equal(read.record(2, 0).load(), clip.photos[2][1])


def test_the_shared_clip_in_both_layouts(parity_data: Path) -> None:
    root = parity_data / "mvcam_mini"
    filmed, rendered = open_frames(root), open_frames(root / "frames")
    assert (len(filmed), len(filmed.cameras), filmed.size) == (6, 4, (72, 128))
    for moment in range(6):
        one, other = filmed.scene(moment).views(), rendered.scene(moment).views()
        for name in ("images", "foreground", "background"):
            assert torch.equal(getattr(one, name), getattr(other, name))
        assert torch.equal(one.cameras.c2w, other.cameras.c2w)


def test_photos_of_another_size_scale_x_and_y_apart(tmp_path: Path) -> None:
    root = write_camera_folders(make_clip(height=12, width=16), tmp_path)
    rows = np.load(root / "poses_bounds.npy")
    rows[:, 4], rows[:, 9] = 36, 32  # the poses were made for photos of 32 x 36
    np.save(root / "poses_bounds.npy", rows)
    K = open_frames(root).cameras[0].K
    assert K.tolist() == [[8, 0, 8], [0, pytest.approx(16 / 3), 6], [0, 0, 1]]


def test_png_comes_before_jpeg(tmp_path: Path) -> None:
    root = write_frame_folders(make_clip(3, 1), tmp_path / "frames")
    images = root / "00000" / "images"
    shutil.move(images / "002.png", images / "900.png")
    write_image(np.zeros((12, 16, 3), np.uint8), images / "000.jpg")
    (images / "000.png").unlink()
    assert open_frames(root).names == ["001", "900", "000"]


def test_recorded_folder(parity_dir: Path, tmp_path: Path) -> None:
    case = load_file(parity_dir / "mask_volume" / "llff_folder.safetensors")
    photos = case["input.images_uint8"].numpy()
    for i, photo in enumerate(photos):
        write_image(photo, tmp_path / "frames" / "00000" / "images" / f"{i:03d}.png")
        write_image(photo, tmp_path / "plates" / f"{len(photos) - 1 - i:03d}.png")
    np.save(tmp_path / "frames" / "00000" / "poses_bounds.npy", case["input.poses_bounds"].numpy())
    clip = open_frames(tmp_path / "frames", tmp_path / "plates")
    views = clip.scene(0).views(size=(24, 40))
    assert torch.equal(views.images, case["output.src_imgs"])
    assert torch.equal(views.background, case["output.src_bg"])
    # the original scales y by the widths too; ours follows the image
    x, y = views.cameras.K[:, 0].float(), views.cameras.K[:, 1].float()
    assert torch.allclose(x, case["output.src_K"][:, 0])
    assert torch.allclose(y, case["output.src_K"][:, 1] * (24 / 36) / (40 / 64))
    mirror = torch.diag(torch.tensor([1.0, 1, -1, 1]))  # the original's world is mirrored
    assert torch.allclose(views.cameras.w2c.float() @ mirror, case["output.src_w2c"], atol=1e-5)
    assert torch.allclose(torch.tensor(clip.plane_bounds()), case["output.bd"].float())


def test_frame_numbers(tmp_path: Path) -> None:
    root = write_camera_folders(make_clip(2, 3), tmp_path)
    shutil.rmtree(root / "foreground")
    for name in ("cam00", "cam01"):
        for i, file in enumerate(sorted((root / name).iterdir())):
            file.rename(root / name / f"{10 * i + 7:06d}.png")
    assert list(open_frames(root).frames) == [7, 17, 27]
    for name in ("cam00", "cam01"):
        (root / name / "000007.png").rename(root / name / "00000a.png")
    assert list(open_frames(root).frames) == [0, 1, 2]


def _spoil_rows(root: Path) -> None:
    np.save(root / "poses_bounds.npy", np.load(root / "poses_bounds.npy")[:2])


def _spoil_columns(root: Path) -> None:
    np.save(root / "poses_bounds.npy", np.load(root / "poses_bounds.npy")[:, :15])


def _spoil_size(root: Path) -> None:
    write_image(np.zeros((6, 8, 3), np.uint8), root / "cam02" / "00000.png")


def _one_camera(root: Path) -> None:
    for folder in (root, root / "foreground"):
        shutil.rmtree(folder / "cam01")
        shutil.rmtree(folder / "cam02")
    for name in ("cam01", "cam02"):
        (root / "background" / f"{name}.png").unlink()
    np.save(root / "poses_bounds.npy", np.load(root / "poses_bounds.npy")[:1])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_spoil_rows, r"has 2 rows for 3 cameras"),
        (_spoil_columns, r"has shape \(3, 15\), poses and bounds are \[photos, 17\]"),
        (_spoil_size, "cam02 films in 8x6, cam00 in 16x12"),
        (_one_camera, "has 1 camera: a rig needs at least 2"),
        (lambda root: (root / "poses_bounds.npy").unlink(), "poses_bounds.npy does not exist"),
        (lambda root: (root / "cam01" / "00003.png").unlink(), "cam01 holds 3 frames, .*cam00 4"),
        (
            lambda root: (root / "cam01" / "00003.png").rename(root / "cam01" / "9.png"),
            "9.png has no partner",
        ),
        (lambda root: (root / "background" / "cam00.png").unlink(), "holds 2 images for 3 cameras"),
        (
            lambda root: (root / "background" / "cam01.png").rename(root / "background" / "x.png"),
            "has cam00 but no cam01",
        ),
        (lambda root: shutil.rmtree(root / "foreground" / "cam01"), "holds 2 folders for 3 cameras"),
        (lambda root: (root / "foreground" / "cam01" / "00002.png").unlink(), "no matte of frame 00002"),
        (lambda root: [shutil.rmtree(root / f"cam0{i}") for i in range(3)], "holds neither camera folders"),
    ],
)
def test_bad_camera_folders(spoil, message: str, tmp_path: Path) -> None:
    root = write_camera_folders(make_clip(), tmp_path / "clip")
    spoil(root)
    with pytest.raises(UserError, match=message) as caught:
        open_frames(root)
    assert "\n" not in str(caught.value)


def test_bad_frame_folders(tmp_path: Path) -> None:
    root = write_frame_folders(make_clip(), tmp_path / "frames")
    with pytest.raises(UserError, match="nowhere does not exist: give the folder of the background plates"):
        open_frames(root, tmp_path / "nowhere")
    with pytest.raises(UserError, match="pictures does not exist: a frame folder holds its photos there"):
        open_frames(root, images="pictures")
    rows = np.load(root / "00002" / "poses_bounds.npy")
    np.save(root / "00002" / "poses_bounds.npy", rows + 1e-3)
    with pytest.raises(UserError, match="the cameras of a rig must not move"):
        open_frames(root)
    np.save(root / "00002" / "poses_bounds.npy", rows)
    (root / "00003" / "images" / "001.png").unlink()
    with pytest.raises(UserError, match=r"holds 2 images \(000 ... 002\), .* 3 \(000 ... 002\)"):
        open_frames(root)
    with pytest.raises(UserError, match="absent is no folder"):
        open_frames(tmp_path / "absent")


def test_a_scene_with_mvsnet_cameras_is_no_clip(tmp_path: Path) -> None:
    for name in ("cams", "cams_2", "images"):
        (tmp_path / name).mkdir()
    np.save(tmp_path / "poses_bounds.npy", np.zeros((2, 17)))
    assert not is_clip(tmp_path)
