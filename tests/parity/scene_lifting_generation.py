"""Cameras of the modes and the loop that grows a scene, against the original's (specs/scene_lifting 3)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geometry.cameras import Cameras, pinhole
from geometry.scene_paths import MODES, mode_cameras, supporting_cameras, supporting_directions
from methods.scene_lifting.config import GenerationConfig
from methods.scene_lifting.generation import generate, lift_photo
from methods.scene_lifting.inputs import photo_camera
from methods.scene_lifting.plan import later_cameras
from methods.scene_lifting.seeing import look
from methods.scene_lifting.splatting import exp_so3_r3
from methods.scene_lifting.state import LiftedScene, LiftedView
from tests.parity.cases import Case

_TURN = torch.diag(torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64))  # y up, z back <-> y down, z ahead
_DISTANCE = 0.01  # of the cameras from the original's origin
ORIGINAL = GenerationConfig(
    half_pixel=True, seams="network", rendering="relative", max_size=0, prompt="prompt"
)


def _photo(case: Case) -> Cameras:
    """The first camera of the modes, in the original's world."""
    c2w = torch.eye(4, dtype=torch.float64)
    c2w[:3, :3] = _TURN
    c2w[2, 3] = _DISTANCE
    return pinhole(case.config["focal_px"], case.config["height"], case.config["width"], c2w)


def _row_matrix(w2c: Tensor) -> Tensor:
    """[N, 4, 4] for row vectors, axes x left, y up."""
    flip = torch.diag(torch.tensor([-1.0, -1.0, 1.0, 1.0], dtype=torch.float64))
    return (flip @ w2c).transpose(-1, -2)


def _transposed(w2c: Tensor) -> Tensor:
    """What the original's splatting was given: the rotation the wrong way round."""
    wrong = w2c.clone()
    wrong[:, :3, :3] = w2c[:, :3, :3].transpose(-1, -2)
    return wrong


def _check_poses(case: Case, name: str, cameras: Cameras) -> None:
    tolerance = case.meta["tolerance"]
    case.close(f"{name}.w2c_opencv", cameras.w2c, **tolerance)
    case.close(f"{name}.p3d_row_matrix", _row_matrix(cameras.w2c), **tolerance)
    case.close(f"{name}.gs_viewmat_as_used", _transposed(cameras.w2c), **tolerance)


def check_camera_paths(case: Case) -> None:
    tolerance = case.meta["tolerance"]
    photo = _photo(case)
    for mode in MODES:
        cameras = mode_cameras(photo, mode, case.config["dist"])
        _check_poses(case, mode, cameras)
        case.close(f"{mode}.azim_deg", MODES[mode], **tolerance)
        case.close(f"{mode}.camera_center", cameras.center, **tolerance)
        size = torch.tensor([cameras.width, cameras.height])
        case.close(f"{mode}.fovx_fovy", 2 * torch.atan(size / (2 * photo.focal)), **tolerance)
        spread = (cameras.center - cameras.center.mean(0)).norm(dim=-1).max()
        case.close(f"{mode}.gs_scene_extent", 1.1 * spread, **tolerance)
    azimuth, elevation = case.input("supporting_base").tolist()
    middle, depth = case.input("supporting_center"), float(case.input("supporting_mean_depth"))
    _check_poses(case, "supporting", supporting_cameras(photo, azimuth, elevation, middle, depth))
    case.close("supporting.azim_elev_deg", supporting_directions(azimuth, elevation), **tolerance)
    case.close("exp_map_so3xr3", row_transforms(case.input("tangent")), **tolerance)


def row_transforms(tangents: Tensor) -> Tensor:
    """The exponentials [N, 4, 3] of (translation, rotation) [N, 6], as [R; t] for row vectors."""
    poses = exp_so3_r3(tangents)
    return torch.cat([poses[:, :3, :3], poses[:, :3, 3:].transpose(-1, -2)], dim=1)


def paint(
    image: NDArray[np.uint8], hole: NDArray[np.uint8], prompt: str, negative_prompt: str, seed: int
) -> NDArray[np.uint8]:
    """The recorded inpainter: a ramp of colours in the hole."""
    height, width = hole.shape
    y, x = np.mgrid[:height, :width]
    ramp = np.stack([100 + 60 * x // width, 80 + 100 * y // height, 140 - 40 * x // width], axis=-1)
    return np.where(hole[..., None] > 127, ramp, image).astype(np.uint8)


def complete(image: Tensor, sparse: Tensor, scale: float) -> Tensor:
    """The recorded depth network: what is given where it is, else a function of the brightness."""
    known = (sparse > 0).to(sparse)
    return scale * (known * sparse / scale + (1 - known) * (0.2 + 0.8 * image.mean(0)))


def _original_world(points: Tensor) -> Tensor:
    """Points of a world whose origin is the photo's camera, in the original's."""
    return (points.double() - points.new_tensor([0, 0, _DISTANCE]).double()) @ _TURN


def check_stitch_stage(case: Case) -> None:
    height, width = case.config["height"], case.config["width"]
    image = case.input("image").permute(2, 0, 1).float() / 255
    camera = photo_camera(height, width, float(width), half_pixel=True)
    assert ORIGINAL.first_scale == case.config["depth_scaling_first"]
    assert ORIGINAL.next_scale == case.config["depth_scaling_next"]
    cameras = later_cameras(camera, ORIGINAL)
    before = [lift_photo(image, camera, None, complete, ORIGINAL)]
    for i in range(len(cameras)):
        _check_step(case, f"mid.step{i + 1}", before[i], cameras[i])
        before.append(generate(before[i], cameras[i : i + 1], complete, paint, ORIGINAL))
    scene = generate(before[0], cameras, complete, paint, ORIGINAL)
    torch.testing.assert_close(scene.points, before[-1].points)
    for i, view in enumerate(scene.views):
        _check_frame(case, f"frame{i}", view)
    _check_points(case, scene)


def _check_step(case: Case, name: str, scene: LiftedScene, camera: Cameras) -> None:
    """What is handed to the two networks before a view joins."""
    recorded = {key.removeprefix(f"{name}."): value for key, value in case.tensors.items() if name in key}
    seen = look(scene, camera, ORIGINAL)
    expected = int(recorded["points_before"])
    assert abs(len(scene.points) - expected) <= 0.01 * expected
    for mask, ours in (("render_mask", seen.known), ("sd_mask", seen.hole)):
        differs = (recorded[mask] > 0) != ours
        assert differs.float().mean() <= 0.005, f"{name}.{mask}: {differs.float().mean():.3%} differ"
    if "sparse_depth" in recorded:
        same = (recorded["sparse_depth"] > 0) == (seen.sparse > 0)
        assert same.float().mean() >= 0.995
        _mostly_close(seen.sparse[same], recorded["sparse_depth"][same], 0.001)
    if "sd_input_image" in recorded:
        known = seen.known & (recorded["render_mask"] > 0)
        shown = (seen.image * 255).round().permute(1, 2, 0)
        _mostly_close(shown[known], recorded["sd_input_image"].float()[known], 1.0)


def _mostly_close(ours: Tensor, recorded: Tensor, atol: float) -> None:
    share = ((ours - recorded).abs() <= atol).float().mean()
    assert share >= 0.99, f"only {share:.2%} lie within {atol}"


def _check_frame(case: Case, name: str, view: LiftedView) -> None:
    atol = case.meta["tolerance"]["depth"]["atol"]
    _mostly_close(view.depth, case.output(f"{name}.depth"), atol)
    case.close(f"{name}.mean_depth", view.depth.double().mean(), atol=atol)
    points = view.camera.unproject(view.depth.double()).reshape(-1, 3)
    case.close(f"{name}.center_point", _original_world(points).mean(0), atol=atol)


def _check_points(case: Case, scene: LiftedScene) -> None:
    points, atol = _original_world(scene.points), case.meta["tolerance"]["points_mean"]
    number = int(case.output("num_points"))
    assert abs(len(points) - number) <= 0.01 * number
    case.close("points_mean", points.mean(0), atol=atol)
    case.close("points_std", points.std(0), atol=atol)
    sample, colors = case.output("points_sample"), case.output("colors_sample")
    if len(points) == number:  # the same pixels joined, so that the samples are the same points
        index = torch.linspace(0, number - 1, len(sample)).long()
        _mostly_close(points[index], sample, 0.001)
        _mostly_close(scene.colors[index], colors, 1 / 255 + 1e-5)


CHECKS: dict[str, Callable[[Case], None]] = {
    "camera_paths": check_camera_paths,
    "stitch_stage": check_stitch_stage,
}
