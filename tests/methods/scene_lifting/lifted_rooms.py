"""Lifted scenes to write and to show, without any network: procedural rooms with their exact depth."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

from dataloader.toy import Boxes, make_boxes, render
from geometry.cameras import Cameras, pinhole
from geometry.poses import pose, rotation_y
from methods.scene_lifting.state import LiftedScene, LiftedView

_PLACE = torch.tensor([0.0, 0.3, -2.5], dtype=torch.float64)  # of the photo's camera in the room


def lifted_room(
    height: int = 48,
    width: int = 64,
    yaws: Sequence[float] = (0.0, 25.0, -25.0),
    seed: int = 0,
    on_view: Callable[[int, int, LiftedView], None] | None = None,
) -> LiftedScene:
    """A room seen by a camera that turns on the spot by `yaws` degrees; the photo's camera is the world."""
    boxes, photo = make_boxes(seed), pinhole(width, height, width)
    scene = LiftedScene(torch.zeros(0, 3), torch.zeros(0, 3))
    for i, yaw in enumerate(yaws):
        camera = photo.with_poses(pose(rotation_y(torch.tensor(math.radians(yaw)).double()), torch.zeros(3)))
        view = _view(boxes, camera, scene.views, f"view_{i:03d}")
        new = ~view.known
        scene.points = torch.cat([scene.points, camera.unproject(view.depth.double())[new].float()])
        scene.colors = torch.cat([scene.colors, view.image.permute(1, 2, 0)[new]])
        scene.views.append(view)
        if on_view is not None:
            on_view(i, len(yaws), view)
    return scene


def _view(boxes: Boxes, camera: Cameras, before: list[LiftedView], name: str) -> LiftedView:
    c2w = camera.c2w.clone()
    c2w[:3, 3] += _PLACE
    seen = render(boxes, camera.with_poses(c2w).reshape(1))
    assert seen.depth is not None
    depth = seen.depth[0, 0]
    known = torch.zeros_like(depth, dtype=torch.bool)
    points = camera.unproject(depth.double()).reshape(-1, 3)
    size = points.new_tensor([camera.width, camera.height])
    for view in before:
        pixels, z = view.camera.project(points)
        known |= ((z > 0) & (pixels > 0).all(-1) & (pixels < size).all(-1)).reshape(known.shape)
    return LiftedView(seen.images[0], camera, depth, known, name, "a room")
