"""Points, their rendering and the edges of depth maps, against recorded ones (specs/scene_lifting 3).

The recorded cameras have axes x left, y up, z forward and transform row vectors; their world has y up. Ours
are OpenCV, so cameras and worlds are turned by half a revolution about z and x.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from geometry.cameras import Cameras
from geometry.depth_edges import depth_steps, dilate_isotropic, erode, fill_from_known, snap_edges
from geometry.points import ndc_radius, splat
from geometry.views import Rendering
from tests.parity.cases import Case

WORLD = torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64)  # of a recorded point -> of ours, and back


def orbit_camera(orbit: list, height: int, width: int) -> Cameras:
    """Our camera for the recorded (azimuth, elevation, distance, target), degrees."""
    azimuth, elevation, distance, target = orbit
    a, e = math.radians(azimuth), math.radians(elevation)
    at = torch.tensor(target, dtype=torch.float64)
    offset = [math.sin(a) * math.cos(e), math.sin(e), math.cos(a) * math.cos(e)]
    center = at + distance * torch.tensor(offset, dtype=torch.float64)
    forward = torch.nn.functional.normalize(at - center, dim=0)
    up = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)
    right = torch.nn.functional.normalize(torch.linalg.cross(forward, up), dim=0)
    c2w = torch.eye(4, dtype=torch.float64)
    c2w[:3, :3] = torch.stack([right, torch.linalg.cross(forward, right), forward], dim=1)
    c2w[:3, 3] = center
    c2w[:3] *= WORLD[:, None]
    return legacy_camera(c2w, height, width)


def legacy_camera(c2w: Tensor, height: int, width: int) -> Cameras:
    """A camera at one of our poses with the recorded intrinsics."""
    K = torch.tensor([[width, 0, (width - 1) / 2], [0, width, (height - 1) / 2], [0, 0, 1]], dtype=c2w.dtype)
    return Cameras(K, c2w, height, width)


def _ndc(world: Tensor, camera: Cameras) -> Tensor:
    """The recorded rasteriser's coordinates of our points."""
    (x, y), z = (part.unbind(-1) if part.ndim > 1 else part for part in camera.project(world))
    half = min(camera.height, camera.width) / 2
    return torch.stack([(camera.width / 2 - x) / half, (camera.height / 2 - y) / half, z], dim=-1)


def check_project_points(case: Case) -> None:
    depth = case.input("depth").double()
    height, width = depth.shape
    for name, orbit in case.config["cameras"].items():
        camera = orbit_camera(orbit, height, width)
        world = camera.unproject(depth).reshape(-1, 3)
        case.close(f"{name}.world", world * WORLD, **case.meta["tolerance"])
        case.close(f"{name}.ndc", _ndc(world, camera), **case.meta["tolerance"])
    centred = orbit_camera(case.config["cameras"]["front"], height, width)
    centred.K[0, 2], centred.K[1, 2] = width / 2, height / 2
    world = centred.unproject(depth).reshape(-1, 3) * WORLD
    case.close("front_nocenter.world", world, **case.meta["tolerance"])


def _agree(case: Case, name: str, rendered: Rendering) -> None:
    """Compare a rendering with {name}_image, _depth and _mask where the masks agree."""
    mask = case.output(f"{name}_mask").bool()
    ours = rendered.opacity[0] > 0
    assert (ours != mask).float().mean() <= 0.003
    both = ours & mask
    for map_name, ours_map in (("image", rendered.image.permute(1, 2, 0)), ("depth", rendered.depth[0])):
        torch.testing.assert_close(
            ours_map[both], case.output(f"{name}_{map_name}")[both], **case.meta["tolerance"]["values"]
        )


def check_render_points(case: Case) -> None:
    del case.meta["tolerance"]["values"]["where"]
    height, width = case.config["height"], case.config["width"]
    source, camera = (orbit_camera(case.config[name], height, width) for name in ("source_camera", "camera"))
    points, rgb = case.input("points").double() * WORLD, case.input("rgb")
    radius = ndc_radius(2 / max(height, width), camera)
    for backend in ("torch", "numba"):
        _agree(case, "hard", splat(points, rgb, camera, radius, backend=backend))
        _agree(case, "soft", splat(points, rgb, camera, radius, "legacy", 16, backend))
        _agree(case, "self", splat(points, rgb, source, radius, backend=backend))
        covered = splat(points, None, camera, ndc_radius(0.01, camera), "legacy", 10, backend).opacity
        assert (covered[0] == case.output("places_hole_mask")).float().mean() <= 0.003


def check_edges(case: Case) -> None:
    depth, image, mask = case.input("depth"), case.input("image"), case.input("mask").bool()
    morph = case.input("morph_mask").bool()
    assert torch.equal(depth_steps(depth), case.tensors["mid.gradient_u8"])
    for name, value in {
        "erosion_cross": erode(morph, "cross"),
        "erosion_disk2": erode(morph, 2),
        "erosion_disk3": erode(morph, 3),
        "iso_dilation_2": dilate_isotropic(~morph, 2),
        "fill_erosion0_depth": fill_from_known(depth, mask),
        "fill_erosion0_image": fill_from_known(image, mask),
        "fill_erosion3_depth": fill_from_known(depth, mask, erosion=1),  # that many, by the case's notes
        "snap_12": snap_edges(depth),
        "snap_20": snap_edges(depth, threshold=20),
    }.items():
        case.close(name, value, **case.meta["tolerance"])


CHECKS: dict[str, Callable[[Case], None]] = {
    "project_points": check_project_points,
    "render_points": check_render_points,
    "edge_snap_and_fill": check_edges,
}
