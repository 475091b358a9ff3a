"""Checks of the colours of rays against recorded outputs."""

from __future__ import annotations

from collections.abc import Callable

from geometry.ray_colors import ray_colors
from tests.parity.cases import Case


def check_color_map(case: Case) -> None:
    """Directions and moments [B, V, 3, H, W] of one batch, each with its own longest vector."""
    assert case.config["min_brightness"] == 0.1
    rays = case.input("plucker")  # [B, V, 6, H, W]: direction, moment
    case.close("direction_rgb", ray_colors(rays[:, :, :3]), atol=1e-5)
    case.close("moment_rgb", ray_colors(rays[:, :, 3:]), atol=1e-5)


CHECKS: dict[str, Callable[[Case], None]] = {"kh_plucker_colormap": check_color_map}
