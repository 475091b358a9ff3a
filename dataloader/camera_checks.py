"""Numbers that tell whether a scene's cameras fit its photos and its points, and each other."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dataloader.formats import detect_formats, format_module
from dataloader.scene import Scene
from geometry.cameras import Cameras
from geometry.epipolar import epipolar_distances, fundamental_matrix

logger = logging.getLogger(__name__)

_GRID = 5  # probe pixels per side, where a scene has no points
_PARALLAX = (12.0, 30.0)  # degrees between the viewing directions of a telling pair
_ENOUGH_SHARED = 20  # points a telling pair has in common
_TRIED = 500  # pairs whose shared points are counted


@dataclass
class ViewPair:
    """Two records and the points both observe. rows: [P]; pixels of each: [P, 2] observed."""

    first: int
    second: int
    rows: NDArray[np.int64]
    pixels: tuple[NDArray[np.float64], NDArray[np.float64]]


def borrow_points(scene: Scene, root: Path, images: str) -> None:
    """Take the sparse points of a COLMAP model that lies in the same folder, if the scene brings none.

    World frames may differ between files; reprojection errors then say so.
    """
    if scene.points is None and "colmap" in detect_formats(root):
        scene.points = format_module("colmap").read(root, images).points


def reprojection_errors(scene: Scene) -> dict[str, NDArray[np.float64]]:
    """Per record with observed points: the distances [T] in pixels between observed and projected points."""
    if scene.points is None:
        return {}
    errors = {}
    for record in scene.records:
        rows, observed = scene.points.tracks.get(record.name, (np.empty(0, np.int64), np.empty((0, 2))))
        if len(rows):
            pixels, _ = record.camera.project(torch.from_numpy(scene.points.xyz[rows]))
            errors[record.name] = np.linalg.norm(pixels.numpy() - observed, axis=1)
    return errors


def agreement(scene: Scene, root: Path, images: str) -> dict[str, float]:
    """How far every camera format in a folder is from a scene read from it: the largest distance in pixels of
    the projected sparse points (or probe points in mid-depth), over all photos both have.
    """
    found = {}
    for name in detect_formats(root):
        other = format_module(name).read(root, images)
        cameras = {record.name: record.camera for record in other.records}
        distances = [
            _distance(record.camera, cameras[record.name], _probe_points(scene, i))
            for i, record in enumerate(scene.records)
            if record.name in cameras
        ]
        found[name] = max(distances, default=float("nan"))
    return found


def _distance(first: Cameras, second: Cameras, points: Tensor) -> float:
    if (first.height, first.width) != (second.height, second.width) or len(points) == 0:
        return float("nan")
    return (first.project(points)[0] - second.project(points)[0]).norm(dim=-1).max().item()


def _probe_points(scene: Scene, index: int) -> Tensor:
    """World points [P, 3] that a record sees: its sparse points, else a grid at a middling depth."""
    record = scene.records[index]
    if scene.points is not None and record.name in scene.points.tracks:
        return torch.from_numpy(scene.points.xyz[scene.points.tracks[record.name][0]])
    camera = record.camera
    x = torch.linspace(0, camera.width, _GRID, dtype=torch.float64)
    y = torch.linspace(0, camera.height, _GRID, dtype=torch.float64)
    pixels = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).reshape(-1, 2)
    near, far = record.bounds or (1.0, 1.0)
    origins, directions = camera.rays(pixels, unit=False)
    return origins + directions * (near + far) / 2


def baselines(scene: Scene) -> NDArray[np.float64]:
    """[N] distance of every camera centre to the nearest other one; empty for a single photo."""
    centers = torch.stack([record.camera.center for record in scene.records])
    if len(centers) < 2:
        return np.empty(0)
    distances = torch.cdist(centers, centers) + torch.diag(torch.full((len(centers),), torch.inf)).double()
    return distances.min(dim=1).values.numpy()


def telling_pair(scene: Scene) -> ViewPair | None:
    """Two photos whose epipolar lines say something: many shared points, viewed from well apart.

    Without points, the nearest two cameras whose directions are well apart. None for a single photo.
    """
    if len(scene) < 2:
        return None
    axes = torch.stack([record.camera.c2w[:3, 2] for record in scene.records])
    first, second = np.triu_indices(len(scene), 1)
    angles = torch.rad2deg(torch.acos((axes @ axes.T).clamp(-1, 1))).numpy()[first, second]
    order = np.argsort(np.abs(angles - sum(_PARALLAX) / 2), kind="stable")
    telling = order[(angles[order] >= _PARALLAX[0]) & (angles[order] <= _PARALLAX[1])]
    pairs = [(int(first[i]), int(second[i])) for i in (telling if len(telling) else order)[:_TRIED]]
    best = max((_shared(scene, *pair) for pair in pairs), key=lambda pair: len(pair.rows))
    if len(best.rows) >= _ENOUGH_SHARED:
        return best
    centers = [record.camera.center for record in scene.records]
    return _shared(scene, *min(pairs, key=lambda pair: (centers[pair[0]] - centers[pair[1]]).norm().item()))


def _shared(scene: Scene, first: int, second: int) -> ViewPair:
    """The points two records both observe."""
    names = scene.records[first].name, scene.records[second].name
    if scene.points is None or any(name not in scene.points.tracks for name in names):
        return ViewPair(first, second, np.empty(0, np.int64), (np.empty((0, 2)), np.empty((0, 2))))
    (rows_a, xy_a), (rows_b, xy_b) = (scene.points.tracks[name] for name in names)
    rows, at_a, at_b = np.intersect1d(rows_a, rows_b, return_indices=True)
    return ViewPair(first, second, rows, (xy_a[at_a], xy_b[at_b]))


def pair_distances(scene: Scene, pair: ViewPair) -> NDArray[np.float64]:
    """[P] distances in pixels between the second photo's observations and the first's epipolar lines."""
    cameras = (scene.records[i].camera for i in (pair.first, pair.second))
    first, second = (torch.from_numpy(pixels) for pixels in pair.pixels)
    return epipolar_distances(fundamental_matrix(*cameras), first, second).numpy()


def summary(scene: Scene) -> list[tuple[str, str]]:
    """Rows (what, value) of a short table about a scene's cameras."""
    records = scene.records
    sizes = sorted({f"{r.camera.width}x{r.camera.height}" for r in records})
    focal = torch.stack([record.camera.focal for record in records])
    rows = [
        (
            "photos",
            f"{len(scene)} ("
            + ", ".join(f"{k} {len(v)}" for k, v in sorted(scene.splits.items(), reverse=True))
            + ")",
        ),
        ("size", ", ".join(sizes[:4]) + (", ..." if len(sizes) > 4 else "")),
        ("focal length", f"x {_range(focal[:, 0].numpy())} px, y {_range(focal[:, 1].numpy())} px"),
        ("distortion", f"removed on loading from {n} photos" if (n := _distorted(scene)) else "none"),
        ("baseline to the nearest camera", f"{_range(baselines(scene))} world units"),
    ]
    bounds = np.array([record.bounds for record in records if record.bounds])
    rows.append(("near depth", f"{_range(bounds[:, 0])} world units" if len(bounds) else "unknown"))
    rows.append(("far depth", f"{_range(bounds[:, 1])} world units" if len(bounds) else "unknown"))
    rows.append(("mesh", scene.mesh_path.name if scene.mesh_path else "made" if scene.has_mesh else "none"))
    if scene.points is not None:
        errors = np.concatenate([np.empty(0), *reprojection_errors(scene).values()])
        rows.append(("sparse points", f"{len(scene.points.xyz)}, observed {len(errors)} times"))
        if len(errors):
            middle, high = np.percentile(errors, (50, 95))
            rows.append(
                ("reprojection error", f"mean {errors.mean():.3f}, median {middle:.3f}, 95 % {high:.3f} px")
            )
    return rows


def _distorted(scene: Scene) -> int:
    return sum(record.lens is not None for record in scene.records)


def _range(values: NDArray[np.float64]) -> str:
    """Smallest and largest value, or the one there is."""
    if len(values) == 0:
        return "-"
    low, high = f"{values.min():.4g}", f"{values.max():.4g}"
    return low if low == high else f"{low} to {high}"
