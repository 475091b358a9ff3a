"""Poses, paths, plates, archives and training samples of mask_volume, against the original's (specs 3, 4).

The original's world-to-camera matrices belong to a world mirrored along z: `mirrored` makes them of ours.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dataloader.formats.colmap_model import read_model
from dataloader.formats.llff import row_bounds, row_camera
from dataloader.h5_images import H5Image, close_all
from dataloader.images import write_image
from dataloader.re10k.camera_files import read_clip, read_rows
from dataloader.re10k.examples import example_cameras
from dataloader.re10k.stacked import StackedScenes
from dataloader.rig.archives import open_archive, poses_path
from dataloader.rig.clip import Clip
from dataloader.rig.folders import open_frames
from dataloader.rig.prepare.plates import PlateOptions, median
from dataloader.rig.prepare.poses import colmap_to_rows
from geometry.cameras import Cameras, stack_cameras
from geometry.poses import (
    llff_from_pose,
    matrix_from_quaternion,
    pose_from_llff,
    quaternion_from_matrix,
    rig_frame,
)
from geometry.rig_path_files import read_rig_path, write_rig_path
from geometry.rig_paths import RIG_PATHS, rig_path
from geometry.views import Views
from methods.mask_volume.config import MaskVolumeConfig, ViewsConfig
from methods.mask_volume.data import (
    change_colour,
    crop_views,
    least_frames,
    plane_range,
    scene_bounds,
    stretch,
)
from tests.parity.cases import Case

_MIRROR = torch.diag(torch.tensor([1.0, 1.0, -1.0, 1.0], dtype=torch.float64))
_TINY = 1e-12  # of float64 numbers of size 1: what should be 0 may be that


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for the block; archives in it are closed after it."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)
        close_all()


def mirrored(cameras: Cameras) -> Tensor:
    """World-to-camera matrices as the original has them."""
    return cameras.w2c @ _MIRROR


def row_cameras(rows: Tensor) -> list[Cameras]:
    return [row_camera(row, f"row {i}") for i, row in enumerate(rows.numpy())]


def by_width(K: Tensor, width: int) -> Tensor:
    """Intrinsics [N, 3, 3] scaled as the original does, in x and y by the ratio of the widths."""
    scale = width / (2 * K[:, :1, 2:])
    return torch.cat([K[:, :2] * scale, K[:, 2:]], 1)


def rows_clip(rows: Tensor) -> Clip:
    """A clip of cameras alone."""
    cameras = row_cameras(rows)
    bounds = [row_bounds(row, "row") for row in rows.numpy()]
    photo = np.zeros((1, 1, 3), np.uint8)
    return Clip("rig", [str(i) for i in range(len(rows))], cameras, bounds, [[photo]] * len(rows))


def check_poses(case: Case) -> None:
    rows = case.input("poses_bounds")
    cameras = stack_cameras(row_cameras(rows))
    case.close("w2c", mirrored(cameras), rtol=1e-6, atol=_TINY)
    case.close("w2c_proper", cameras.w2c, rtol=1e-6, atol=_TINY)
    case.close("K_native", cameras.K, rtol=1e-6)
    case.close("rel", cameras.w2c @ cameras.c2w[0], rtol=1e-6, atol=_TINY)
    for name in case.outputs():
        if name.startswith("K_") and name[2:3].isdecimal():
            width, height = map(int, name.removeprefix("K_").split("x"))
            case.close(name, by_width(cameras.K, width), rtol=1e-6)
            ours = cameras.resize(height, width).K  # x as the original has it, y by the heights
            torch.testing.assert_close(ours[:, 0], case.output(name)[:, 0], rtol=1e-6, atol=0)
    case.close("bd", torch.tensor(rows_clip(rows).plane_bounds()), rtol=1e-6)
    # its training data set computes in float32
    case.close("w2c_torch", mirrored(cameras), rtol=1e-5, atol=1e-6)
    case.close("K_torch", cameras.K, rtol=1e-5)


def check_folder(case: Case) -> None:
    width, height = case.config["img_wh"]
    photos = case.input("images_uint8").numpy()
    with scratch() as root:
        folder = root / "00000"
        for place, listed in ((folder / "images", photos), (root / "plates", photos[::-1])):
            place.mkdir(parents=True)
            for i, photo in enumerate(listed):
                write_image(photo, place / f"{i:03d}.png")
        np.save(folder / "poses_bounds.npy", case.input("poses_bounds").numpy())
        clip = open_frames(root, root / "plates")
        scene = clip.scene(0)
        views = scene.views(size=(height, width))
    case.close("src_imgs", views.images)  # to the bit: the same filter, rounding and order
    assert views.background is not None
    case.close("src_bg", views.background)
    case.close("src_w2c", mirrored(views.cameras), rtol=1e-5, atol=1e-6)
    native = stack_cameras(row_cameras(case.input("poses_bounds"))).K
    case.close("src_K", by_width(native, width), rtol=1e-5)
    torch.testing.assert_close(views.cameras.K[:, 0].float(), case.output("src_K")[:, 0], rtol=1e-5, atol=0)
    case.close("bd", torch.tensor(clip.plane_bounds()), rtol=1e-5)


def poses(cameras: Cameras) -> Tensor:
    """Cameras [n] as LLFF's [n, 3, 5]."""
    size = torch.tensor([cameras.height, cameras.width], dtype=torch.float64).expand(len(cameras), 2)
    hwf = torch.cat([size, cameras.K[:, :1, 0]], 1)
    return torch.cat([llff_from_pose(cameras.c2w), hwf[..., None]], -1)


def check_path(case: Case) -> None:
    given = case.input("poses").permute(2, 0, 1)  # [N, 3, 5]
    height, width = int(given[0, 0, 4]), int(given[0, 1, 4])
    K = torch.zeros(len(given), 3, 3, dtype=torch.float64)
    K[:, 0, 0] = K[:, 1, 1] = given[:, 2, 4]
    K[:, 0, 2], K[:, 1, 2], K[:, 2, 2] = width / 2, height / 2, 1
    cameras = Cameras(K, pose_from_llff(given[..., :4]), height, width)
    near_far = case.input("bounds")
    bounds = (float(near_far.min()), float(near_far.max()))
    frame = rig_frame(cameras.c2w, bounds)
    close = {"rtol": 1e-9, "atol": _TINY}
    torch.testing.assert_close(llff_from_pose(frame.mean), case.tensors["mid.poses_avg"][:, :4], **close)
    order = torch.tensor([1, 0, 2])  # right, down, forward -> down, right, backwards
    signs = torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64)
    offsets = (frame.offsets[:, order] * signs).T
    torch.testing.assert_close(offsets, case.tensors["mid.centres_in_avg"], **close)
    torch.testing.assert_close(frame.reach[order], case.tensors["mid.rads"], **close)
    n = case.config["N"]
    for name in case.outputs():
        kind, _, count = name.removeprefix("path_").partition("_N")
        case.close(name, poses(RIG_PATHS[kind](cameras, bounds, int(count or n))), **close)


def numbers_of(text: str) -> Tensor:
    """The 15 numbers of every pose [n, 15] of a path file."""
    lines = text.splitlines()
    assert int(lines[0]) == len(lines) - 1
    return torch.tensor([[float(word) for word in line.split()] for line in lines[1:]], dtype=torch.float64)


def check_path_file(case: Case) -> None:
    height, width = case.config["image_hw"]
    rows = case.input("poses_bounds").clone()
    bounds = rows[:, 15:]
    rows[:, 4], rows[:, 9] = height, width  # the photos' size, with the focal length of the poses
    cameras = stack_cameras(row_cameras(rows))
    path = rig_path(cameras, (float(bounds.min()), float(bounds.max())), case.config["components"])
    recorded = bytes(case.output("file_bytes").numpy()).decode()
    with scratch() as folder:
        for suffix in (".txt", ".npy"):
            write_rig_path(path, folder / f"path{suffix}")
        written = (folder / "path.txt").read_text()
        torch.testing.assert_close(numbers_of(written), numbers_of(recorded), rtol=1e-6, atol=_TINY)
        case.close("npy_poses", torch.from_numpy(np.load(folder / "path.npy")), rtol=1e-6, atol=_TINY)
        (folder / "qual_path.txt").write_text(recorded)
        for file in ("qual_path.txt", "path.npy"):
            found = read_rig_path(folder / file)
            case.close("llff_poses", poses(found), rtol=1e-6, atol=_TINY)
        case.close("w2c", mirrored(found), rtol=1e-6, atol=1e-7)  # recorded in float32
        for size in ((360, 640), (54, 96)):
            sized = read_rig_path(folder / "qual_path.txt", size)
            assert (sized.height, sized.width) == size
            case.close(f"K_{size[1]}x{size[0]}", by_width(found.K, size[1]), rtol=1e-6)
            torch.testing.assert_close(sized.K[:, 0], by_width(found.K, size[1])[:, 0], rtol=1e-9, atol=0)


def check_colmap(case: Case) -> None:
    with scratch() as folder:
        for name in ("cameras", "images", "points3D"):
            (folder / f"{name}.bin").write_bytes(bytes(case.input(f"{name}_bin").numpy()))
        model = read_model(folder)
    rows = torch.from_numpy(colmap_to_rows(model, llff_intrinsics=True))
    case.close("poses_bounds", rows, rtol=1e-8)
    names = [image.name for image in model.images.values()]
    assert names == case.config["image_names_in_id_order"]
    order = sorted(range(len(names)), key=names.__getitem__)
    case.close("perm", torch.tensor(order))
    unsorted = torch.empty(len(names), 3, 5, dtype=torch.float64)
    unsorted[torch.tensor(order)] = rows[:, :15].reshape(-1, 3, 5)
    case.close("poses", unsorted.permute(1, 2, 0), rtol=1e-8)
    rotations = matrix_from_quaternion(case.input("qvec"))
    case.close("rotmat", rotations, rtol=1e-8)
    case.close("qvec_from_rotmat", quaternion_from_matrix(rotations), rtol=1e-8)


def check_plates(case: Case) -> None:
    frames = case.input("frames").numpy()
    options = PlateOptions(every=case.config["bg_skip"], statistic="median")
    chosen = list(options.chosen(frames.shape[1]))
    assert chosen == case.config["used_frames"]
    made = np.stack([median(camera[chosen].copy()) for camera in frames])
    case.close("background", torch.from_numpy(made).int(), atol=0)


def write_archive(path: Path, case: Case) -> int:
    """The archive that a case is a sample of, 0 where it records nothing. Returns the number of cameras."""
    cameras, moment, moments = case.config["cam_indices"], case.config["frame"], case.config["frames"]
    rows = case.input("poses_bounds").numpy()
    rgb, plates, cutout = (case.input(name).numpy() for name in ("rgb", "bg_rgb", "fg_rgb"))
    count, size = len(rows), rgb.shape[1:3]
    with h5py.File(path, "w") as file:
        videos = file.create_dataset("rgb", (count, moments, *size, 3), np.uint8)
        cutouts = file.create_dataset("fg_rgb", (count, moments, *size, 4), np.uint8)
        background = file.create_dataset("bg_rgb", (count, *size, 3), np.uint8)
        for i, camera in enumerate(cameras):
            videos[camera, moment], background[camera] = rgb[i], plates[i]
        cutouts[cameras[0], moment] = cutout
    np.save(poses_path(path), rows)
    return count


def check_mvcam(case: Case) -> None:
    target, *sources = case.config["cam_indices"]
    with scratch() as folder:
        path = folder / "scene000.h5"
        assert write_archive(path, case) == len(case.input("poses_bounds"))
        clip = open_archive(path)
        scene = clip.scene(case.config["frame"])
        given, made = scene.views(sources), scene.views([target])
        cutout = H5Image(path, "fg_rgb", (target, case.config["frame"])).read()
    assert given.background is not None
    assert made.background is not None
    assert made.foreground is not None
    case.close("tgt_rgb", made.images, rtol=1e-5)
    case.close("src_rgb", given.images[:, None], rtol=1e-5)
    case.close("src_bg", given.background, rtol=1e-5)
    case.close("tgt_bg", made.background[0], rtol=1e-5)
    case.close("tgt_mask", made.foreground[:, 0], rtol=1e-5)
    case.close("tgt_fg", torch.from_numpy(cutout).permute(2, 0, 1)[None] / 255, rtol=1e-5)
    case.close("src_w2c", mirrored(given.cameras), rtol=1e-5, atol=1e-6)
    case.close("tgt_w2c", mirrored(made.cameras)[0], rtol=1e-5, atol=1e-6)
    width = case.config["img_hw"][1]
    native = stack_cameras(row_cameras(case.input("poses_bounds"))).K
    case.close("src_K", by_width(native[sources], width), rtol=1e-5)
    case.close("tgt_K", by_width(native[[target]], width)[0], rtol=1e-5)
    torch.testing.assert_close(given.cameras.K[:, 0].float(), case.output("src_K")[:, 0], rtol=1e-5, atol=0)
    case.close("bd", plane_range(scene_bounds(scene), MaskVolumeConfig()), rtol=1e-5)


def check_camera_file(case: Case) -> None:
    content = bytes(case.output("file_bytes").numpy()) if "file_bytes" in case.outputs() else b""
    content = content or bytes(case.input("file_bytes").numpy())
    with scratch() as folder:
        for name, text in (("a.txt", content), ("b.txt", content.rstrip(b"\n"))):
            (folder / name).write_bytes(text)
        found, cut = read_rows(folder / "a.txt"), read_rows(folder / "b.txt")
        assert read_clip(folder / "a.txt").video == case.config["url_id"]
    assert found.url == case.config["url"]
    stamps = torch.tensor(found.timestamps, dtype=torch.float64)[:, None]
    case.close("params", torch.cat([stamps, found.rows], 1))
    assert torch.equal(cut.rows, found.rows)
    case.close("params_count_without_newline", torch.tensor(len(cut.rows) - 1))  # the original loses the last
    height, width = case.config["image_hw"]
    example = {"cameras": found.rows, "timestamps": torch.tensor(found.timestamps)}
    case.close("K_pixels", example_cameras(example, (height, width)).K)
    case.close("K_normalised", example_cameras(example, (1, 1)).K)
    ext = torch.eye(4, dtype=torch.float64).repeat(len(found.rows), 1, 1)
    ext[:, :3] = found.rows[:, 6:].reshape(-1, 3, 4)
    case.close("ext", ext)
    torch.testing.assert_close(example_cameras(example, (height, width)).w2c, ext, rtol=1e-12, atol=1e-12)


def check_crop(case: Case) -> None:
    images, K = case.input("images"), case.input("K").double()
    height, width = images.shape[-2:]
    poses = torch.eye(4, dtype=torch.float64).expand(len(K), 4, 4)
    views = Views(images, Cameras(K, poses, height, width))
    settings = case.config
    side = settings["crop_h"], settings["crop_w"]
    for prefix, scale, top, left in (
        ("", settings["scale"], settings["offset_y"], settings["offset_x"]),
        ("identity_", 1.0, 3, 5),
        ("seeded_", *settings["seeded_draw"]),
    ):
        cropped = crop_views(views, scale, top, left, *side)
        case.close(f"{prefix}images", cropped.images, atol=1e-5)
        case.close(f"{prefix}K", cropped.cameras.K, rtol=1e-6, atol=1e-5)
    # the original draws from numpy's old generator, ours from keyed ones: the frames of a draw are the same
    drawn = []
    sampler = ViewsConfig()
    for seed in range(1000, 1006):
        random = np.random.RandomState(seed)
        stride = random.randint(sampler.min_stride, sampler.max_stride + 1)
        start = random.randint(130 - (sampler.frames - 1) * stride)
        drawn.append(stretch(start, stride, sampler.frames))
    case.close("subsequences", torch.tensor(drawn))


def check_colours(case: Case) -> None:
    modes = ("brightness", "saturation", "hue", "contrast", "none")
    for i, mode in enumerate(modes):
        factor = case.config["factors"][f"mode{i}"]
        made = change_colour(case.input("images"), mode, 1.0 if factor is None else factor)
        case.close(f"mode{i}", made, atol=2e-3 if mode == "hue" else 1e-5)


def synthetic(frames: int, height: int, width: int, scene: int) -> NDArray[np.uint8]:
    """The frames [T, H, W, 3] of a scene by the case's formula."""
    t, y, x, c = np.ogrid[:frames, :height, :width, :3]
    return ((2 * t % 251 + 3 * y + x + 40 * c + 7 * scene) % 256).astype(np.uint8)


def check_re10k_sample(case: Case) -> None:
    """A scene of the original's archive, cameras in its object arrays."""
    width, height, lengths = case.config["w"], case.config["h"], case.config["frames"]
    indices = case.config["indices"]
    assert min(lengths) > least_frames(ViewsConfig()) == 91
    strides = np.gcd.reduce(np.diff(sorted(indices)))
    assert strides >= 3
    with scratch() as folder:
        lists = {"int": np.empty(2, dtype=object), "ext": np.empty(2, dtype=object)}
        with h5py.File(folder / f"{width}x{height}.h5", "w") as file:
            for scene, length in enumerate(lengths):
                file[str(scene)] = synthetic(length, height, width, scene)
                for name, given in (("int", "K_normalised"), ("ext", "ext")):
                    size = 3 if name == "int" else 4
                    values = np.eye(size)[None].repeat(length, 0)
                    values[indices] = case.input(given).numpy()
                    lists[name][scene] = list(values)
        for name, values in lists.items():
            np.save(folder / f"{name}.npy", values)
        views = StackedScenes(folder / f"{width}x{height}.h5").scene(1).views(indices)
    source, target = views[:2], views[2:]
    case.close("src_imgs", source.images)
    case.close("tgt_rgb", target.images[0])
    case.close("src_exts", source.cameras.w2c, rtol=1e-6, atol=1e-7)  # recorded in float32
    case.close("tgt_ext", target.cameras.w2c[0], rtol=1e-6, atol=1e-7)
    case.close("src_ints", source.cameras.K, rtol=1e-6)
    case.close("tgt_int", target.cameras.K[0], rtol=1e-6)


CHECKS: dict[str, Callable[[Case], None]] = {
    "llff_poses": check_poses,
    "llff_folder": check_folder,
    "render_path": check_path,
    "path_file": check_path_file,
    "colmap_to_poses_bounds": check_colmap,
    "background_median": check_plates,
    "mvcam_sample": check_mvcam,
    "re10k_camera_txt": check_camera_file,
    "re10k_crop": check_crop,
    "re10k_colour_aug": check_colours,
    "re10k_sample": check_re10k_sample,
}
