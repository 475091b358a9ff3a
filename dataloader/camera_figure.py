"""Cameras in space as one HTML page: frusta, rays, photos and the colours of rays on image planes.

The page holds the drawing library itself, so it opens without a network; legend entries hide and show parts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.files import replacing
from geometry.cameras import Cameras
from geometry.ray_colors import ray_colors

_RAYS = 16  # per side of an image
_RAY_LENGTH = math.sqrt(2)  # in units of the image planes' distance
_PLANE_SIDE = 48  # cells along the longer side of a drawn photo
_TINTS = ("#2b6cb0", "#dd6b20", "#2f855a", "#b83280")  # of the groups of views
_ORIGIN_RADIUS = 0.05  # of the sphere at the origin, and the margin, in units of the image planes' distance
_MARGIN = 1.0


@dataclass
class ViewGroup:
    """Views drawn in one colour.

    label: in the legend. cameras: [N]. images: [N, 3, H, W] in [0, 1], if they are to be shown.
    """

    label: str
    cameras: Cameras
    images: Tensor | None = None


def draw_views(groups: list[ViewGroup], path: Path, distance: float | None = None, rays: bool = True) -> None:
    """Write a self-contained HTML page of the groups' views.

    distance: of the image planes from their cameras, world units; by default `plane_distance`. rays: draw
    16 x 16 rays per view and, hidden at first, planes in the colours of the rays' directions and moments.
    Raises UserError when the file cannot be written.
    """
    html = figure(groups, distance, rays).to_html(include_plotlyjs=True, include_mathjax=False)
    with replacing(path) as partial:
        partial.write_text(html, encoding="utf-8")


def figure(groups: list[ViewGroup], distance: float | None = None, rays: bool = True) -> Any:
    """The plotly figure of `draw_views`."""
    import plotly.graph_objects as go

    size = distance or plane_distance(groups)
    tints = [_TINTS[i % len(_TINTS)] for i in range(len(groups))]
    traces = [_origin(size)]
    for group, tint in zip(groups, tints, strict=True):
        traces.append(_lines(f"{group.label}: cameras", _frusta(group.cameras, size), tint, width=3))
        if group.images is not None:
            traces.append(_planes(f"{group.label}: photos", group.cameras, group.images, size))
        if rays:
            traces.append(_lines(f"{group.label}: rays", _rays(group.cameras, size), tint, width=1))
    if rays:
        traces += _colored_planes(groups, size)
    made = go.Figure(traces)
    made.update_layout(scene=_layout(groups, size), margin={"l": 0, "r": 0, "t": 0, "b": 0})
    return made


def plane_distance(groups: list[ViewGroup]) -> float:
    """Half the median distance of the cameras from their centre; 1 where they all stand in one place."""
    centers = torch.cat([group.cameras.center.double() for group in groups])
    spread = float((centers - centers.mean(0)).norm(dim=-1).median()) / 2
    return spread if spread > 1e-9 else 1.0


def _layout(groups: list[ViewGroup], size: float) -> dict[str, Any]:
    """Equal axes around everything drawn, and a look from behind with y down."""
    reached = [_frusta(group.cameras, size).reshape(-1, 3) for group in groups]
    reached += [_rays(group.cameras, size).reshape(-1, 3) for group in groups]
    points = np.concatenate([*reached, np.zeros((1, 3))])
    low, high = points.min(0) - _MARGIN * size, points.max(0) + _MARGIN * size
    axes = {f"{axis}axis": {"range": [low[i], high[i]]} for i, axis in enumerate("xyz")}
    camera = {"up": {"x": 0, "y": -1, "z": 0}, "eye": {"x": 0.6, "y": -0.8, "z": -1.6}}
    return {**axes, "aspectmode": "data", "camera": camera}


def _origin(size: float) -> Any:
    """A small sphere at the world's origin."""
    import plotly.graph_objects as go

    turn, rise = np.meshgrid(np.linspace(0, 2 * np.pi, 17), np.linspace(0, np.pi, 9))
    x, y, z = np.cos(turn) * np.sin(rise), np.sin(turn) * np.sin(rise), np.cos(rise)
    radius, grey = _ORIGIN_RADIUS * size, [[0, "#4a5568"], [1, "#4a5568"]]
    return go.Surface(
        x=radius * x, y=radius * y, z=radius * z, colorscale=grey, showscale=False, name="origin",
        showlegend=True, hoverinfo="name",
    )  # fmt: skip


def _lines(name: str, segments: NDArray[np.float32], tint: str, width: int) -> Any:
    """Line segments [N, 2, 3] as one trace, with gaps between."""
    import plotly.graph_objects as go

    gaps = np.full((len(segments), 1, 3), np.nan, np.float32)
    x, y, z = np.concatenate([segments, gaps], axis=1).reshape(-1, 3).T
    line = {"color": tint, "width": width}
    return go.Scatter3d(x=x, y=y, z=z, mode="lines", line=line, name=name, hoverinfo="name")


def _on_plane(cameras: Cameras, pixels: Tensor, size: float) -> Tensor:
    """World points [N, P, 3] at depth `size` behind pixels [P, 2] of every camera."""
    cameras = cameras.to(torch.float64)
    origins, directions = cameras.rays(pixels.double().expand(len(cameras), -1, 2), unit=False)
    return origins + size * directions


def _frusta(cameras: Cameras, size: float) -> NDArray[np.float32]:
    """The edges of the viewing pyramids up to the image planes: segments [N * 8, 2, 3]."""
    w, h = cameras.width, cameras.height
    corners = _on_plane(cameras, torch.tensor([[0, 0], [w, 0], [w, h], [0, h]]), size)  # [N, 4, 3]
    apex = cameras.center.double()[:, None].expand_as(corners)
    edges = torch.stack([torch.cat([apex, corners], 1), torch.cat([corners, corners.roll(-1, 1)], 1)], 2)
    return edges.reshape(-1, 2, 3).float().numpy()


def _rays(cameras: Cameras, size: float) -> NDArray[np.float32]:
    """Rays through a 16 x 16 grid of every image: segments [N * 256, 2, 3]."""
    steps = (torch.arange(_RAYS, dtype=torch.float64) + 0.5) / _RAYS
    y, x = torch.meshgrid(steps * cameras.height, steps * cameras.width, indexing="ij")
    pixels = torch.stack([x, y], -1).reshape(-1, 2)
    cameras = cameras.to(torch.float64)
    origins, directions = cameras.rays(pixels.expand(len(cameras), -1, 2))
    ends = origins + _RAY_LENGTH * size * directions
    return torch.stack([origins, ends], -2).reshape(-1, 2, 3).float().numpy()


def _planes(name: str, cameras: Cameras, images: Tensor, size: float, hidden: bool = False) -> Any:
    """Images [N, 3, H, W] in [0, 1] on the image planes of their cameras, as one coloured mesh."""
    import plotly.graph_objects as go

    scale = _PLANE_SIDE / max(images.shape[-2:])
    rows, columns = (max(1, round(scale * side)) for side in images.shape[-2:])
    cells = torch.nn.functional.interpolate(images.float(), (rows, columns), mode="area")
    y, x = torch.meshgrid(
        torch.linspace(0, cameras.height, rows + 1),
        torch.linspace(0, cameras.width, columns + 1),
        indexing="ij",
    )
    points = _on_plane(cameras, torch.stack([x, y], -1).reshape(-1, 2), size).float()  # [N, P, 3]
    corner = (torch.arange(rows)[:, None] * (columns + 1) + torch.arange(columns)).reshape(-1)
    a, b, c, d = corner, corner + 1, corner + columns + 1, corner + columns + 2
    faces = torch.stack([torch.stack([a, b, d], -1), torch.stack([a, d, c], -1)], 1).reshape(-1, 3)
    faces = (faces[None] + torch.arange(len(points))[:, None, None] * points.shape[1]).reshape(-1, 3)
    colors = (cells.clamp(0, 1) * 255).round().permute(0, 2, 3, 1).reshape(-1, 3).repeat_interleave(2, 0)
    px, py, pz = points.reshape(-1, 3).T.numpy()
    i, j, k = faces.T.to(torch.int32).numpy()
    return go.Mesh3d(
        x=px, y=py, z=pz, i=i, j=j, k=k, facecolor=[f"rgb({r:.0f},{g:.0f},{b:.0f})" for r, g, b in colors],
        name=name, showlegend=True, hoverinfo="name", lighting={"ambient": 1, "diffuse": 0, "specular": 0},
        visible="legendonly" if hidden else True,
    )  # fmt: skip


def _colored_planes(groups: list[ViewGroup], size: float) -> list[Any]:
    """Image planes coloured by their rays' directions and moments about the origin, hidden at first."""
    maps = [_ray_maps(group.cameras) for group in groups]  # [N, 6, h, w] each
    traces = []
    for what, part in (("directions", slice(0, 3)), ("moments", slice(3, 6))):
        flat = torch.cat([m[:, part].flatten(2).transpose(1, 2).reshape(-1, 3) for m in maps])  # [M, 3]
        colors = ray_colors(flat.T[:, None])[:, 0].T  # one scale of brightness for all views
        start = 0
        for group, rays in zip(groups, maps, strict=True):
            n, _, h, w = rays.shape
            image = colors[start : start + n * h * w].reshape(n, h, w, 3).permute(0, 3, 1, 2)
            start += n * h * w
            traces.append(_planes(f"{group.label}: {what}", group.cameras, image, size, hidden=True))
    return traces


def _ray_maps(cameras: Cameras) -> Tensor:
    """Directions and moments [N, 6, h, w] of the rays of cameras, at the resolution that is drawn."""
    scale = _PLANE_SIDE / max(cameras.height, cameras.width)
    small = cameras.to(torch.float64).resize(
        max(1, round(scale * cameras.height)), max(1, round(scale * cameras.width))
    )
    origins, directions = small.rays()
    return torch.cat([directions, torch.linalg.cross(origins, directions)], -1).permute(0, 3, 1, 2)
