"""Checks of what the diffusion models are fed with: pose encodings and items of the paired data set."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dataloader.megascenes.entries import colmap_c2w, parse_entry
from dataloader.megascenes.pair_set import MegaScenesPairs
from dataloader.megascenes.pair_table import collect_pairs
from dataloader.megascenes.places import PhotoFolder, photo_id, warp_name
from geometry.cameras import Cameras, pinhole
from geometry.paths import orbit
from methods.warp_diffusion.pose_encoding import diagonal_fov, relative_pose, zero123_pose, zeronvs_pose
from tests.parity.cases import Case

_POSE = 1e-6  # relative
_FLOOR = 1e-7  # absolute: float32 entries of rotations are sums of terms of order 1 that may cancel
_STRIDE = 5


def check_pose_encoding(case: Case) -> None:
    items: list[dict[str, Any]] = case.config["items"]
    for i, item in enumerate(items):
        given, made = case.input(f"{i}.ext_ref").tolist(), case.input(f"{i}.ext_target").tolist()
        scale = case.input(f"{i}.scale").item()
        camera = _camera(item["target_intrinsics"])
        source, target = (camera.with_poses(colmap_c2w(pose)) for pose in (given, made))
        computed: dict[str, Tensor] = {
            "ref_c2w": source.c2w,
            "target_c2w": target.c2w,
            "K": target.K,
            "fov_rad": diagonal_fov(target),
            "rel_pose19": relative_pose(source, target, scale),
            "zero123_pose4": zero123_pose(source, target, scale),
            "zeronvs_T19": zeronvs_pose(source, target, scale),
        }
        for name, value in computed.items():
            if f"{i}.{name}" in case.outputs():
                case.close(f"{i}.{name}", value, rtol=_POSE, atol=_FLOOR)
    if any(name.startswith("video.") for name in case.outputs()):
        check_video_pose(case)


def check_video_pose(case: Case) -> None:
    """The encoding of the third pose of the default orbit, at the fixed focal length of the video script."""
    width, height = case.config["video_image_size_wh"]
    camera = pinhole(float(case.config["video_focal"]), height, width)
    third = orbit(camera, n=19)[2]
    case.close("video.fov_rad", diagonal_fov(camera), rtol=_POSE)
    case.close("video.rel_pose19_orbit2", relative_pose(camera, third, 1.0), rtol=_POSE, atol=_FLOOR)


def _camera(intrinsics: list[Any]) -> Cameras:
    """A camera of the split files with these intrinsics, at the origin."""
    camera = {"extrinsics": [1, 0, 0, 0, 0, 0, 0], "intrinsics": intrinsics}
    path = "main/images/A/commons/A/0/pictures/a.jpg"
    return parse_entry([path, path, camera, camera, 1.0], "item").target.camera()


def check_paired_dataset(case: Case) -> None:
    entry, paths = case.config["entry"], case.config["paths"]
    given, made = photo_id(entry[0]), photo_id(entry[1])
    assert warp_name(given, made) == paths["warped_file"]
    assert warp_name(made, given) == paths["warped_file_reverse"]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        _store(case, root)
        photos = PhotoFolder(root / "imgs", "original")
        for path in entry[:2]:
            assert photos.find(photo_id(path)) == root / paths[path]
        pair = MegaScenesPairs(collect_pairs([entry], "case"), photos, root / "warps").pair(0)
    assert pair.warp is not None
    assert pair.small_warp is not None
    for name, image in (("image_ref", pair.source), ("image_target", pair.target), ("highwarp", pair.warp)):
        case.close(f"{name}_stride5", _signed(image)[::_STRIDE, ::_STRIDE], atol=1e-6)
    case.close("warped_depth", _signed(pair.small_warp), atol=1e-6)
    cameras: tuple[Cameras, Cameras] = (pair.source_camera, pair.target_camera)
    case.close("rel_pose", relative_pose(*cameras, pair.scale), rtol=1e-6, atol=1e-6)
    case.close("zero123_rel_pose", zero123_pose(*cameras, pair.scale), rtol=1e-6, atol=1e-6)


def _store(case: Case, root: Path) -> None:
    """Write the photos and the warp where the original looks for them. The photos are PNG inside, whatever
    their suffix, so that nothing is lost.
    """
    files = {
        case.config["paths"][case.config["entry"][i]]: f"image_{name}_u8"
        for i, name in ((0, "ref"), (1, "target"))
    }
    files[f"warps/{case.config['paths']['warped_file']}"] = "warped_u8"
    for place, name in files.items():
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(case.input(name).numpy()).save(root / place, format="PNG")


def _signed(image: Tensor) -> Tensor:
    """[3, H, W] in [0, 1] -> [H, W, 3] in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray((2 * image.double() - 1).permute(1, 2, 0)))
