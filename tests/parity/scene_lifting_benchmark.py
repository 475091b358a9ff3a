"""The geometry benchmark against the original's recorded numbers (specs/scene_lifting 5 and 6)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from dataloader.depth.hypersim import LEGACY_FOCAL, CameraParameters, camera_to_world, planar_depth
from dataloader.depth.hypersim_pairs import FramePair, compare_frames
from dataloader.depth.pairs import legacy_protocol, make_task
from dataloader.depth.scannet import scannet_task, scannet_view
from dataloader.depth.tasks import DepthTask
from engine.depth_benchmark import DepthResults, Scoring, run_benchmark
from engine.depth_metrics import Crop, validation_scores
from engine.depth_predictors import Alignment, Predictors
from engine.depth_reports import concat_results, write_scene_results
from engine.method import Method
from geometry.cameras import Cameras, pinhole
from geometry.depth_alignment import fit_descent
from geometry.views import Rendering, Views
from tests.parity.cases import Case


class StandIn(Method):
    """The closed form that the recorded benchmarks ran in place of the network."""

    def render(self, state: Any, cameras: Cameras) -> Rendering:
        raise NotImplementedError

    def predict_depth(self, task: DepthTask) -> Tensor:
        known = (task.sparse > 0).float()
        guess = photo_depth(task)
        if known.any():
            guess = 0.5 * guess + 0.5 * (task.sparse * known).sum() / known.sum()
        return known * task.sparse + (1 - known) * guess


def photo_depth(task: DepthTask) -> Tensor:
    return 1 + 2.5 * task.target.images.mean(1, keepdim=True)


def predictors(case: Case) -> Predictors:
    alignment = Alignment("descent", case.config["initial_offset"])
    return Predictors(StandIn(), lambda task: 0.9 * photo_depth(task), alignment)


def compare_errors(case: Case, results: DepthResults, names: dict[str, str]) -> None:
    """Compare the errors of our models with the outputs of other names."""
    for ours, recorded in names.items():
        rtol = case.meta["tolerance"]["aligned_rtol" if "aligned" in ours else "rtol"]
        case.close(recorded, torch.tensor(results.errors(ours), dtype=torch.float64), rtol=rtol)


def camera_of(case: Case, pose: str) -> Cameras:
    """The camera of a recorded ScanNet frame."""
    depth = next(case.input(name) for name in case.inputs() if "depth" in name)
    return Cameras(case.input("intrinsic")[:3, :3], case.input(pose), *depth.shape)


def check_alignment(case: Case) -> None:
    new, previous = case.input("new_depth"), case.input("previous_depth")
    fit = fit_descent(new, previous, previous > 0, camera_of(case, "pose_c2w"), case.config["initial_offset"])
    atol = case.meta["tolerance"]["atol"]
    case.close("scale_offset", torch.tensor([fit.scale, fit.offset]), atol=atol)
    case.close("aligned", fit(new)[::4, ::4], atol=atol)


def check_metrics(case: Case) -> None:
    def enlarged(name: str) -> Tensor:
        return torch.nn.functional.interpolate(case.input(name), (480, 640), mode="nearest")

    depths = {"eigen_resized": case.input("pred_resized")}
    config = case.config
    for name in ("eigen", "garg", "eigen_kitti", "eigen_resized"):
        scores = validation_scores(
            depths.get(name, enlarged("pred_small")),
            enlarged("gt_small"),
            cast("Crop", name.removesuffix("_resized")),
            config["min_depth_eval"],
            config["max_depth_eval"],
        )
        for score, value in scores.items():
            case.close(f"{name}.{score}", value, **case.meta["tolerance"])


def check_scannet(case: Case) -> None:
    config, predict = case.config, predictors(case)
    protocol = legacy_protocol(config["radius"])

    def frame(number: int) -> Views:
        depth = case.input(f"depth_mm_{number}").numpy().astype(np.float32) / np.float32(1000)
        pose = case.input(f"pose_c2w_{number}").numpy()
        photo = case.input(f"color_{number}").numpy()
        return scannet_view(photo, depth, case.input("intrinsic").numpy(), pose, str(number))

    def task(start: int, estimate: Callable[[Views], Tensor] | None) -> DepthTask:
        pair = frame(start), frame(start + config["frame_gap"])
        return scannet_task(*pair, protocol, "scene0000_00", str(start), estimate)

    scoring = Scoring("no_error")
    tasks = [task(start, None) for start in config["starts"]]
    hit = case.tensors["mid.mask_10"].float()
    assert torch.equal(tasks[0].hidden[0, 0] * hit, torch.zeros_like(hit))
    results = run_benchmark(tasks, predict, ("inpainted", "zero", "zero_aligned"), scoring)
    names = {"inpainted": "pcd", "zero": "zero", "zero_aligned": "zero_aligned"}
    compare_errors(case, results, names)
    estimated = [task(start, predict.estimate) for start in config["starts"]]
    results = run_benchmark(estimated, predict, ("inpainted",), scoring)
    compare_errors(case, results, {"inpainted": "pcd_from_estimate"})


def hypersim_parameters(case: Case) -> CameraParameters:
    config = case.config
    return CameraParameters("ai", config["width"], config["height"], config["settings_camera_fov"], False)


def hypersim_camera(case: Case, frame: int) -> Cameras:
    found = hypersim_parameters(case)
    pose = camera_to_world(
        case.input("camera_positions")[frame],
        case.input("camera_orientations")[frame],
        case.config["meters_per_asset_unit"],
    )
    return pinhole(found.focal, found.height, found.width, pose)


def check_conversions(case: Case) -> None:
    """Ours are camera-to-world in OpenCV axes and metres; PyTorch3D's go to the view, x left and y up."""
    tolerance, config, parameters = case.meta["tolerance"], case.config, hypersim_parameters(case)
    case.close("focal_px", parameters.focal, **tolerance)
    case.close("fov_y", parameters.fov_y, **tolerance)
    assert config["focal_constant"] == LEGACY_FOCAL
    case.close("depth_1", planar_depth(case.input("distance_1"), LEGACY_FOCAL), **tolerance)
    axes = torch.tensor([-1.0, -1.0, 1.0], dtype=torch.float64)
    for i in range(3):
        w2c = hypersim_camera(case, i).w2c
        case.close(f"p3d_R_{i}", (axes[:, None] * w2c[:3, :3]).T, **tolerance)
        case.close(f"p3d_T_{i}", axes * w2c[:3, 3] / config["meters_per_asset_unit"], **tolerance)


def check_pairs(case: Case) -> None:
    config, tolerance = case.config, case.meta["tolerance"]
    protocol = legacy_protocol(config["radius"], config["points_per_pixel"])
    found = []
    for i, j in ((0, 1), (0, 2), (1, 2)):
        points = case.input(f"position_{i}").reshape(-1, 3) * config["meters_per_asset_unit"]
        depth = planar_depth(case.input("distance")[j], LEGACY_FOCAL)
        found.append(
            FramePair("cam", i, j, *compare_frames(points, depth, hypersim_camera(case, j), protocol))
        )
    recorded = case.output("candidates")
    ours = torch.tensor([[p.first, p.second, p.overlap, p.error] for p in found], dtype=torch.float64)
    assert torch.equal(ours[:, :2], recorded[:, :2])
    for column, name in ((2, "overlap"), (3, "error")):
        torch.testing.assert_close(ours[:, column], recorded[:, column], rtol=0, atol=tolerance[name])
    accepted = [pair for pair in found if pair.accepted]
    case.close("accepted", torch.tensor([[p.first, p.second] for p in accepted]))
    case.close("accepted_overlap", [p.overlap for p in accepted], atol=tolerance["overlap"])


def check_hypersim(case: Case) -> None:
    config = case.config
    inputs = Case(case.path.with_name(f"{config['inputs_from']}.safetensors"))
    metres = inputs.config["meters_per_asset_unit"]

    def view(frame: int) -> Views:
        depth = planar_depth(inputs.input("distance")[frame], LEGACY_FOCAL)[None, None]
        image = torch.zeros(1, 3, *depth.shape[-2:])
        return Views(image, hypersim_camera(inputs, frame)[None], depth, names=[str(frame)])

    tasks: list[DepthTask] = []
    for i, j in case.input("accepted").tolist():
        photo = (inputs.input(f"color_u8_{j}").float() / 212.5).permute(2, 0, 1).clamp(0, 1)
        target = replace(view(j), images=photo[None])
        points = inputs.input(f"position_{i}").reshape(-1, 3) * metres
        tasks.append(make_task(view(i), target, legacy_protocol(config["radius"]), "ai", f"{i}-{j}", points))
    for task in tasks:
        mask = inputs.tensors.get(f"mid.mask_{task.name.replace('-', '_')}")
        assert mask is None or torch.equal(task.hidden[0, 0], 1 - mask.float())
    results = run_benchmark(tasks, predictors(case), config["models"], Scoring("zero_depth"))
    compare_errors(case, results, {name: name for name in config["models"]})
    check_tables(case, results)


def check_tables(case: Case, results: DepthResults) -> None:
    """The csv file's columns, and what the original prints of all of them together."""
    with TemporaryDirectory() as folder:
        path = write_scene_results(results, "ai", Path(folder))
        columns = path.read_text().splitlines()[0].split(",")
        printed = {name: values["mean"] for name, values in concat_results(Path(folder)).items()}
    assert ["Unnamed: 0", *columns[1:]] == case.config["csv_columns"] == list(printed)
    for line in case.config["concat_print"]:
        name, _, value = line.rpartition(": ")
        rtol = case.meta["tolerance"]["aligned_rtol" if "aligned" in name else "rtol"]
        assert math.isclose(printed[name], float(value), rel_tol=rtol), line


CHECKS: dict[str, Callable[[Case], None]] = {
    "depth_alignment": check_alignment,
    "depth_metrics": check_metrics,
    "scannet_eval": check_scannet,
    "hypersim_conversions": check_conversions,
    "hypersim_pairs": check_pairs,
    "hypersim_eval": check_hypersim,
}
