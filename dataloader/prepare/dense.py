"""A surface for a posed scene with sparse points: plane-sweep depth of every view, fused into one mesh."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from common.cli import progress
from common.errors import UserError
from common.files import replacing
from dataloader.images import fit_size, resize_image, to_tensor
from dataloader.scene import Scene
from geometry.cameras import Cameras
from geometry.meshes import Mesh
from geometry.rasterize import Rasterizer
from geometry.stereo.fusion import close_gaps, count_agreeing, drop_small_pieces, fit_voxel, fuse_depths
from geometry.stereo.pairs import best_sources, pair_scores
from geometry.stereo.plane_sweep import SweepOptions, sweep
from geometry.views import Views

SOURCES = 6  # views a depth is searched with
CHECKS = 10  # views a depth is checked against
AGREEING = 2  # of them, at least so many must agree (where there are 4 or more)
_RANGE_QUANTILES = (0.005, 0.995)  # of the depths of the points in a view
_RANGE_MARGINS = (0.7, 1.3)  # surfaces without points reach nearer and farther
_VOXEL = 1.5  # in pixels at the median depth
_TRUNCATION = 4.0  # in voxels
_REACH = 8.0  # in voxels: gaps up to about twice as wide are closed
_SMALL = 0.001  # pieces with less of the triangles are dropped
_MAX_BLOCKS = 60_000  # of the fused volume, 6 kB each, several around every surface block


def small_views(scene: Scene, long_side: int, device: torch.device) -> list[Views]:
    """Every photo as a single view with its long side at most `long_side` pixels."""
    views = []
    for record in progress(scene.records, "photos", unit="photo", leave=False):
        size = fit_size(record.camera.height, record.camera.width, long_side)
        image = to_tensor(resize_image(record.load(), size))
        views.append(Views(image, record.camera.resize(*size), names=[record.name]).to(device))
    return views


def source_scores(scene: Scene) -> Tensor:
    """`pair_scores` [N, N] of a scene's photos, from its sparse points' tracks."""
    assert scene.points is not None
    visible = torch.zeros(len(scene), len(scene.points.xyz), dtype=torch.bool)
    for i, record in enumerate(scene.records):
        visible[i, torch.from_numpy(scene.points.tracks[record.name][0])] = True
    centers = torch.stack([record.camera.center for record in scene.records])
    return pair_scores(centers, torch.from_numpy(scene.points.xyz), visible)


def depth_range(camera: Cameras, points: Tensor) -> tuple[float, float] | None:
    """Near and far depth to search in a view, from all points [P, 3] in its frame; None without any.

    Hidden points count too: they are seen by other views, and widen the range only towards the far end.
    """
    pixels, depth = camera.project(points)
    size = pixels.new_tensor([camera.width, camera.height])
    depth = depth[(depth > 0) & (pixels >= 0).all(-1) & (pixels < size).all(-1)]
    if not len(depth):
        return None
    near, far = np.quantile(depth.numpy(), _RANGE_QUANTILES) * _RANGE_MARGINS
    return float(near), float(far)


def write_depths(scene: Scene, views: list[Views], folder: Path) -> None:
    """Search the depth of every view; write `NAME.npy` [H, W] float32 (0: unknown) unless it is there."""
    assert scene.points is not None
    scores, points = source_scores(scene), torch.from_numpy(scene.points.xyz)
    device = views[0].images.device
    options = SweepOptions(chunk=4 if device.type == "cpu" else 32)
    for i, view in enumerate(progress(views, "depth", unit="view", leave=False)):
        path = folder / f"{scene.names[i]}.npy"
        if path.exists():
            continue
        sources = [views[j] for j in best_sources(scores, i, SOURCES)]
        bounds = depth_range(scene.records[i].camera, points)
        depth = torch.zeros(view.cameras.height, view.cameras.width)
        if sources and bounds:
            depth = sweep(view, sources, *bounds, options).cpu()
        with replacing(path) as partial, partial.open("wb") as file:
            np.save(file, depth.numpy())


def checked_depths(scene: Scene, views: list[Views], folder: Path) -> list[Views]:
    """The views (on the CPU) with the depths of `write_depths` that enough other views agree with."""
    scores = source_scores(scene)
    depths = [torch.from_numpy(np.load(folder / f"{name}.npy")) for name in scene.names]
    cameras = [view.cameras.to("cpu") for view in views]
    checked = []
    for i, view in enumerate(progress(views, "checking", unit="view", leave=False)):
        others = [(cameras[j], depths[j]) for j in best_sources(scores, i, CHECKS)]
        needed = AGREEING if len(others) >= 2 * AGREEING else 1
        trusted = count_agreeing(cameras[i], depths[i], others) >= needed
        checked.append(replace(view.to("cpu"), depth=torch.where(trusted, depths[i], 0.0)[None]))
    return checked


def fuse(views: list[Views]) -> Mesh:
    """One surface from single views with depth: fused, gaps closed, small pieces removed.

    Raises UserError when no depth is known.
    """
    known = [view.depth > 0 for view in views if view.depth is not None]
    if not any(mask.any() for mask in known):
        raise UserError("no surface was found on which the photos agree: take more photos that overlap")
    voxel = fit_voxel(_surface_points(views), _VOXEL * _footprint(views), _MAX_BLOCKS)
    fused = drop_small_pieces(fuse_depths(views, voxel, _TRUNCATION * voxel), _SMALL)
    return drop_small_pieces(close_gaps(fused, voxel, _REACH * voxel), _SMALL)


def _footprint(views: list[Views]) -> float:
    """The median width of a pixel on the surface, world units."""
    widths = [view.depth[view.depth > 0] / view.cameras.focal[0] for view in views if view.depth is not None]
    return float(torch.cat([width[::16] for width in widths]).median())


def _surface_points(views: list[Views]) -> Tensor:
    """World points [P, 3] of every fourth row and column with a known depth."""
    points = []
    for view in views:
        assert view.depth is not None
        depth = view.depth[0, ::4, ::4]
        points.append(view.cameras.unproject(view.depth[0].double())[::4, ::4][depth > 0])
    return torch.cat(points)


def coverage(mesh: Mesh, cameras: list[Cameras]) -> Tensor:
    """[N] fraction of the pixels of each single camera that see the mesh."""
    rasterizer = Rasterizer(mesh)
    return torch.stack([(rasterizer.depth(camera) > 0).double().mean() for camera in cameras])
