"""What XScale-NVS computes, against its recorded outputs (specs/hash_manifold)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dataloader.formats.mvsnet import parse_camera
from geometry.cameras import Cameras, stack_cameras
from geometry.mesh_files import read_mesh
from geometry.rasterize import Rasterizer, interpolate
from geometry.raycast import clip_matrix
from methods.hash_manifold.originals import original_cameras
from tests.parity import hash_manifold_model
from tests.parity.cases import Case, case_name, collect, parity_folder
from tests.parity.hash_manifold_data import check_colmap_to_mvsnet, check_metashape_xml, check_ray_cache
from tests.parity.hash_manifold_grid import check_addresses, check_grid, check_initial


def read_cameras(case: Case) -> Cameras:
    """The case's camera texts [N] at its image size."""
    cameras = []
    for i in range(case.config["n_views"]):
        K, w2c, _ = parse_camera(case.text(f"text_{i}"), f"text_{i}")
        pose = torch.from_numpy(np.linalg.inv(w2c))
        cameras.append(Cameras(torch.from_numpy(K.copy()), pose, case.config["height"], case.config["width"]))
    return stack_cameras(cameras)


def check_camera_mvsnet(case: Case) -> None:
    tolerance: dict[str, Any] = case.meta["tolerance"]
    cameras = read_cameras(case)
    w2c = cameras.w2c
    case.close("K", cameras.K, **tolerance["K"])
    case.close("R", w2c[:, :3, :3], rtol=1e-6, atol=1e-6)
    case.close("t", w2c[:, :3, 3], rtol=1e-6, atol=1e-6)
    size = float(case.output("P").abs().max())  # float32 products: their rounding goes with the largest entry
    case.close("P", cameras.K @ w2c[:, :3], rtol=1e-6, atol=max(1e-4, 4e-7 * size))
    case.close("camera_center", cameras.center, **tolerance["camera_center"])
    ratio = case.config["ss_ratio"]
    large = cameras.resize(ratio * cameras.height, ratio * cameras.width)
    original = original_cameras(large)
    case.close("mvp", clip_matrix(original, case.config["z_near"], case.config["z_far"]), **tolerance["mvp"])
    for name, seen in (("rays_original", original), ("rays_full_intrinsics", large)):
        case.close(name, seen.rays()[1][:, ::3, ::3], **tolerance["rays"])


def check_mesh_raycast(case: Case, folder: Path) -> None:
    """Visibility exactly, attributes within their tolerances, where the case does not exclude the pixel."""
    (folder / "mesh.obj").write_bytes(bytes(case.input("obj").numpy()))
    mesh = read_mesh(folder / "mesh.obj")
    assert torch.equal(mesh.faces, case.input("faces"))
    torch.testing.assert_close(mesh.vertices.float(), case.input("vertices"), rtol=1e-6, atol=1e-6)
    cameras = read_cameras(case)
    if "original" in case.meta["name"]:
        cameras = original_cameras(cameras)
    fragments = Rasterizer(mesh).rasterize(cameras)
    kept = ~case.output("exclude")
    hit = fragments.face[:, 0] >= 0
    assert kept.any()
    assert torch.equal(hit[kept], case.output("hit")[kept].bool())
    recorded_face = case.output("primitive").long()
    kept &= case.output("hit").bool()
    assert torch.equal(fragments.face[:, 0][kept], recorded_face[kept])
    a, b, c = (mesh.vertices[mesh.faces[:, corner]] for corner in range(3))
    flat = torch.nn.functional.normalize(torch.linalg.cross(b - a, c - a), dim=-1)
    smooth = interpolate(fragments, mesh.faces, case.input("vertex_normals")).movedim(1, -1)
    maps = {
        "bary": fragments.barycentric[:, 0, ..., :2],
        "position": interpolate(fragments, mesh.faces, mesh.vertices).movedim(1, -1),
        "normal": flat[fragments.face[:, 0].clamp(min=0)],
        "normal_smooth": torch.nn.functional.normalize(smooth, dim=-1),
    }
    for name, values in maps.items():
        close_where(case, name, values, kept)


def close_where(case: Case, name: str, values: Tensor, kept: Tensor) -> None:
    error = (values.double() - case.output(name).double())[kept].abs().max()
    assert error <= case.meta["tolerance"][name]["atol"], f"{name}: off by {error}"


CHECKS: dict[str, Callable[..., None]] = {
    "camera_mvsnet": check_camera_mvsnet,
    "mesh_raycast": check_mesh_raycast,
    "grid": check_grid,
    "grid_default_config_addresses": check_addresses,
    "grid_init": check_initial,
    "ray_cache": check_ray_cache,
    "metashape_xml": check_metashape_xml,
    "colmap_to_mvsnet": check_colmap_to_mvsnet,
    **hash_manifold_model.CHECKS,
}
WITH_FOLDER = {  # checks that write files
    "mesh_raycast",
    "ray_cache",
    "metashape_xml",
    "colmap_to_mvsnet",
    *hash_manifold_model.WITH_FOLDER,
}
LARGE = {"mesh_raycast"}  # kinds whose cases are too large to ship with the tests
CASES = collect("hash_manifold", {})


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_agrees_with_the_original(case: Case, tmp_path: Path) -> None:
    assert case.kind in CHECKS, f"no check understands the kind {case.kind!r}"
    check = CHECKS[case.kind]
    check(case, tmp_path) if case.kind in WITH_FOLDER else check(case)
    case.finish()


def test_every_check_has_a_case() -> None:
    shipped = parity_folder() == Path(__file__).resolve().parent / "fixtures"
    assert {case.kind for case in CASES} == set(CHECKS) - (LARGE if shipped else set())
