"""Holes that appear in a depth map when the camera moves: what depth completion is trained to fill.

The scene of a photo is lifted by its relative depth, whose far end lies at 1, and seen by a camera that has
moved a little around a point at that distance (specs/scene_lifting 4.3).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geometry.cameras import Cameras
from geometry.depth_edges import snap_edges
from geometry.points import ndc_radius, splat
from geometry.poses import look_at

_TURN = 15.0  # degrees: azimuth and elevation are drawn from -15 to 15
_REACH = 0.1  # the distance from 0.9 to 1.1


def draw_move(generator: torch.Generator) -> tuple[float, float, float]:
    """Draw (azimuth, elevation, distance) of a moved camera: degrees, degrees, and units of depth."""
    azimuth, elevation, distance = (2 * torch.rand(3, generator=generator, dtype=torch.float64) - 1).tolist()
    return _TURN * azimuth, _TURN * elevation, 1 + _REACH * distance


def hole_mask(
    depth: Tensor | NDArray[np.floating],
    azimuth: float,
    elevation: float,
    distance: float,
    radius: float = 0.01,
    threshold: int = 15,
    erosion: int = 3,
) -> NDArray[np.uint8]:
    """The mask [H, W] uint8 of pixels that a moved camera sees nothing in: 1 there, 0 elsewhere.

    depth: [H, W] relative z-depth in [0, 1], every pixel of which becomes a point. azimuth, elevation:
    degrees by which the camera turns around the point on the axis at depth 1, to the right and upwards.
    distance: of the camera from that point. radius: of the points, in units of half the image's short side.
    threshold, erosion: of the edges that are made sharp before (`geometry.depth_edges.snap_edges`).
    Source: specs/scene_lifting 4.3.
    """
    values = torch.as_tensor(depth, dtype=torch.float32)
    if values.dim() != 2:
        raise ValueError(f"a depth map is [H, W], not {tuple(values.shape)}")
    source = _camera(0.0, 0.0, 1.0, *values.shape)
    target = _camera(azimuth, elevation, distance, *values.shape)
    snapped = snap_edges(values, threshold, erosion).to(source.c2w.dtype)
    points = source.unproject(snapped).reshape(-1, 3)
    opacity = splat(points, None, target, ndc_radius(radius, target)).opacity
    assert opacity is not None
    return (opacity[0] == 0).to(torch.uint8).numpy()


def _camera(azimuth: float, elevation: float, distance: float, height: int, width: int) -> Cameras:
    """A camera that looks at the origin, from (0, 0, -distance) for angles of 0 (degrees).

    Its focal length is the width of the image; its principal point is that of the original, half a pixel off
    the middle, which shifts holes by nothing since both cameras share it.
    """
    turn, lift = math.radians(azimuth), math.radians(elevation)
    place = [math.cos(lift) * math.sin(turn), -math.sin(lift), -math.cos(lift) * math.cos(turn)]
    center = distance * torch.tensor(place, dtype=torch.float64)
    down = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)
    K = torch.tensor(
        [[width, 0, (width - 1) / 2], [0, width, (height - 1) / 2], [0, 0, 1]], dtype=torch.float64
    )
    return Cameras(K, look_at(center, torch.zeros_like(center), down), height, width)
