"""What MegaScenes NVS computes, against its recorded outputs (specs/warp_diffusion)."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pytest
import torch
from PIL import Image
from torch import Tensor

from dataloader.images import image_grid, resize_with_padding
from dataloader.util_3dphoto import depth2pcd, render_multiviews, render_view, unproject_depth
from geometry.cameras import pinhole
from geometry.lifting import depth_scale, disparity_to_depth, normalise_depth, resize_disparity
from geometry.paths import lateral, orbit, spiral
from tests.parity import warp_diffusion_model
from tests.parity.cases import Case, case_name, collect, parity_folder
from tests.parity.warp_diffusion_data import check_paired_dataset, check_pose_encoding
from tests.parity.warp_diffusion_scores import check_best_frame, check_metrics


def options(text: str) -> dict[str, str]:
    """`key=value` pairs in a configuration text; values are numbers, words or (a,b) pairs."""
    return dict(re.findall(r"(\w+)\s*=\s*(\([^)]*\)|[\w.+-]+)", text))


def number(pattern: str, text: str, default: float) -> float:
    """The number that a pattern with one group finds in a text."""
    found = re.search(pattern, text)
    return default if found is None else float(found[1])


def pair(pattern: str, text: str, default: tuple[float, float]) -> tuple[float, float]:
    found = re.search(pattern + r"\s*=?\s*\(\s*([^,]+),([^)]+)\)", text)
    return default if found is None else (float(found[1]), float(found[2]))


def orbit_poses(text: str, frames: int) -> Tensor:
    """`get_orbit_poses`: two branches of equally many steps that meet at the reference."""
    clockwise, counter = (
        pair(r"\bcw(?:x| endpoint)", text, (0, 1)),
        pair(r"\bccw(?:x| endpoint)", text, (0, -1)),
    )
    assert clockwise[0] == counter[0] == 0, "branches that do not start at the reference"
    steps = number(r"(\d+) steps", text, number(r"num_steps\s*=\s*(\d+)", text, (frames + 1) / 2))
    assert 2 * steps - 1 == frames
    angle = number(r"([\d.]+) degrees", text, number(r"rotation_angle\s*=\s*([\d.]+)", text, 30))
    radius = number(r"radius\s*=?\s*([\d.]+)", text, 1) * number(r"zscale\s*=?\s*([\d.]+)", text, 1)
    ends = (clockwise[1] / radius, counter[1] / radius)
    return orbit(pinhole(80.0, 166, 256), n=frames, angle=angle, radius=radius, ends=ends).c2w


def spiral_poses(text: str, frames: int) -> Tensor:
    """`get_front_facing_trans`; without `c2w`, the same matrices before their inversion."""
    given = options(text)
    n, extent = int(given.get("num_frames", frames)), float(given.get("max_trans", 2))
    poses = spiral(pinhole(80.0, 166, 256), n=n, max_trans=extent, z_div=float(given.get("z_div", 2))).c2w
    return poses if given.get("c2w", "True") == "True" else torch.linalg.inv(poses)


def lateral_poses(text: str, frames: int) -> Tensor:
    """`get_x_poses`: from right to left, or the other way round when its matrices are inverted."""
    given = options(text)
    extent = float(given.get("endpoint", 2)) * (1 if given.get("w2c", "True") == "True" else -1)
    return lateral(pinhole(80.0, 166, 256), n=int(given.get("num_steps", frames)), extent=extent).c2w


def check_camera_paths(case: Case) -> None:
    kinds = {"orbit": orbit_poses, "spiral": spiral_poses, "x_poses": lateral_poses}
    for name, text in case.config.items():
        kind = next(kind for kind in kinds if name.startswith(kind))
        recorded = case.output(name)
        case.close(name, kinds[kind](text, len(recorded)), atol=1e-12)


def check_resize_with_padding(case: Case) -> None:
    levels = 0 if case.config.get("pillow") == PIL.__version__ else 1  # another Pillow may round differently
    for i, item in enumerate(case.config["items"]):
        image = Image.fromarray(case.input(str(i)).numpy())
        assert image.size == (item["width"], item["height"])
        padded, unpadded, _ = resize_with_padding(image, item["target"], item["black"])
        case.close(f"{i}.padded", np.array(padded), atol=levels)
        case.close(f"{i}.unpadded", np.array(unpadded), atol=levels)
    if "grid" in case.outputs():
        text = case.meta["description"]
        names = sorted((n for n in case.inputs() if n.startswith("grid.")), key=lambda n: int(n[5:]))
        grid = image_grid(
            [Image.fromarray(case.input(name).numpy()) for name in names],
            fixed_height=int(number(r"fixed_height\s*=?\s*(\d+)", text, 256)),
            spacing=int(number(r"spacing\s*=?\s*(\d+)", text, 5)),
            columns=int(number(r"(\d+) per row", text, number(r"max_per_row\s*=\s*(\d+)", text, 5))),
        )
        case.close("grid", np.array(grid), atol=levels)


def check_depth_normalisation(case: Case) -> None:
    disparity = case.input("disparity")
    depth = disparity_to_depth(disparity)
    case.close("depth", depth, rtol=1e-5)
    case.close("scale_q20", [depth_scale(depth)], rtol=1e-5)
    case.close("depth_normalised", normalise_depth(depth), rtol=1e-5)
    size = tuple(case.output("resized_disparity").shape)
    assert sorted(size) == sorted(case.config["resize_to"])
    largest = disparity.abs().max().item()  # bicubic weights cancel: relative to what went in
    case.close("resized_disparity", resize_disparity(disparity, *size), rtol=1e-5, atol=1e-6 * largest)


def unproject_arguments(case: Case, text: str) -> dict[str, Any]:
    """Arguments of `unproject_depth` from a variant's text."""
    given = options(text)
    arguments: dict[str, Any] = {"C2W": np.eye(4)}
    if given.get("C2W", "identity") != "identity":
        arguments["C2W"] = case.input(given["C2W"].removeprefix("input.")).numpy()
    for name, convert in (("prune_angle", float), ("scale_factor", float)):
        if name in given:
            arguments[name] = convert(given[name])
    for name in ("prune_edge_faces", "add_faces"):
        if name in given:
            arguments[name] = given[name] == "True"
    return arguments


def check_unproject_depth(case: Case) -> None:
    colors = case.input("rgb_u8").numpy() / 255.0
    depth, K = case.input("depth").numpy(), case.input("K").numpy()
    world = case.input("C2W").numpy()
    for name, text in case.config["variants"].items():
        arguments = {"add_faces": True, **unproject_arguments(case, text)}
        mesh = unproject_depth(None, colors, depth, K, **arguments)
        assert mesh.colors is not None
        close_vertices(case, f"{name}.vertices", mesh.vertices)
        if f"{name}.faces" in case.outputs():
            case.close(f"{name}.faces", mesh.faces)
        case.close(f"{name}.colors", 255 * mesh.colors, atol=1.001 if "scale_factor" in arguments else 1e-3)
    for name in case.outputs():
        pose = world if "world" in name else np.eye(4)
        if name.startswith("pointcloud"):
            close_vertices(case, name, unproject_depth(None, colors, depth, K, pose).vertices)
        elif name.startswith("depth2pcd"):
            close_vertices(case, name, torch.from_numpy(depth2pcd(depth, K, pose)))


def close_vertices(case: Case, name: str, vertices: Tensor) -> None:
    """Coordinates within 1e-5 relative; those that nearly vanish within a float32 rounding of the vector."""
    recorded = case.output(name).double()
    assert vertices.shape == recorded.shape, name
    error = (vertices.double() - recorded).abs()
    allowed = 1e-5 * recorded.abs() + 2e-7 * recorded.norm(dim=-1, keepdim=True)
    assert (error <= allowed).all(), f"{name}: off by {error.max()}"


def close_rendering(case: Case, name: str, color: Any, depth: Any, index: int | None = None) -> None:
    """Colour PSNR >= 44 dB, mask IoU >= 0.998; depth median relative error <= 5e-4, coverage >= 0.999."""
    if f"{name}.color_u8" in case.outputs():
        recorded = pick(case.output(f"{name}.color_u8"), index)
        levels = np.rint(color * 255)
        error = np.square(levels - recorded).mean()
        assert error == 0 or 10 * np.log10(255**2 / error) >= 44, f"{name}: colour"
        shown, expected = levels.any(-1), recorded.any(-1)
        assert (shown & expected).sum() / (shown | expected).sum() >= 0.998, f"{name}: mask"
    z = pick(case.output(f"{name}.depth"), index)
    assert depth.shape == z.shape, name
    both = (depth != 0) & (z != 0)
    assert both.any(), f"{name}: nothing in view"
    assert np.median(np.abs(depth - z)[both] / np.abs(z)[both]) <= 5e-4, f"{name}: depth"
    assert ((depth != 0) == (z != 0)).mean() >= 0.999, f"{name}: coverage"


def pick(recorded: Tensor, index: int | None) -> np.ndarray:
    return (recorded if index is None else recorded[index]).double().numpy()


def check_render_warp(case: Case) -> None:
    colors, depth = case.input("rgb_u8").numpy() / 255.0, case.input("depth").numpy()
    K, K2, poses = (case.input(name).numpy() for name in ("K", "K2", "poses_c2w"))
    mesh = unproject_depth(None, colors, depth, K, np.eye(4), add_faces=True)
    for name in sorted({output.split(".")[0] for output in case.outputs()}):
        height, width = case.output(f"{name}.depth").shape[-2:]
        intrinsics = K if (height, width) == depth.shape else K2
        if name == "multiviews":
            for i, maps in enumerate(
                zip(*render_multiviews(height, width, intrinsics, poses, mesh), strict=True)
            ):
                close_rendering(case, name, *maps, index=i)
            continue
        parsed = re.fullmatch(r"view(\d+)(_ref)?", name)
        assert parsed, f"unknown output {name}"
        reference = np.eye(4) if parsed[2] else None
        close_rendering(
            case,
            name,
            *render_view(height, width, intrinsics, poses[int(parsed[1])], mesh, ref_C2W=reference),
        )


CHECKS: dict[str, Callable[[Case], None]] = {
    "camera_paths": check_camera_paths,
    "resize_with_padding": check_resize_with_padding,
    "depth_normalisation": check_depth_normalisation,
    "unproject_depth": check_unproject_depth,
    "render_warp": check_render_warp,
    **warp_diffusion_model.CHECKS,
    "pose_encoding": check_pose_encoding,
    "paired_dataset": check_paired_dataset,
    "metrics": check_metrics,
    "best_frame": check_best_frame,
}
# kinds whose cases are too large to ship with the tests
LARGE = {"paired_dataset", "metrics", "unet", "vae", "clip_image_embedder", "full_model"}
CASES = collect("warp_diffusion", {})


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_agrees_with_the_original(case: Case) -> None:
    assert case.kind in CHECKS, f"no check understands the kind {case.kind!r}"
    CHECKS[case.kind](case)
    case.finish()


def test_every_check_has_a_case() -> None:
    shipped = parity_folder() == Path(__file__).resolve().parent / "fixtures"
    assert {case.kind for case in CASES} == set(CHECKS) - (LARGE if shipped else set())
