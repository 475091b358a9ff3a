"""Exact pictures of procedural rigs, compiled for the CPU: a few rays per pixel.

A frame and its plate come from the same rays, so they are equal, bit for bit, wherever no ray of a pixel
meets something that moves. A ray starts at the camera's centre and goes on by one unit of z-depth per unit
of its parameter, which therefore is the depth.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from dataloader.rig.toy_paint import painted
from dataloader.rig.toy_stage import ELLIPSOID, ROOM, Floats, Stage
from geometry.cameras import Cameras
from geometry.jit import kernel

_CORNERS = np.stack(np.meshgrid([-1.0, 1.0], [-1.0, 1.0], [-1.0, 1.0], indexing="ij"), -1).reshape(8, 3)
_EVERYWHERE = (-np.inf, np.inf, -np.inf, np.inf)
_TINY = 1e-12


# A solid as one camera sees it at one moment, in a frame of its own where it is a unit cube or ball.
_SEEN = np.dtype(
    [
        ("kind", "i8"),
        ("start", "f8", 3),  # the camera's centre
        ("ray", "f8", (3, 3)),  # maps (x, y, 1) in pixels to the direction of a ray
        ("window", "f8", 4),  # left, right, top, bottom of the pixels that may show it
        ("size", "f8", 3),  # half extents in metres
        ("light", "f8", 3),  # towards the light, along its axes
        ("paint", "i8", 6),  # of its sides
    ]
)


def picture(
    stage: Stage, camera: Cameras, moment: int, supersample: int, moving: bool = True
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What a camera sees at a moment, with or without what moves: a frame or its plate.

    supersample: rays per pixel and axis. Returns the image [H, W, 3] in [0, 1] and alpha [H, W] in [0, 1],
    the part of each pixel that shows something that moves. Raises ValueError outside the room.
    """
    still = stage.solids.still
    seen = _seen(stage, camera, moment)[: None if moving else still]
    return _picture(seen, still, stage.paints, stage.ambient, camera.height, camera.width, supersample)


def depth_map(stage: Stage, camera: Cameras, moment: int, moving: bool = True) -> NDArray[np.float32]:
    """[H, W] z-depth at the pixel centres of a camera at a moment, with or without what moves."""
    seen = _seen(stage, camera, moment)[: None if moving else stage.solids.still]
    return _depths(seen, camera.height, camera.width)


def depth_range(stage: Stage, camera: Cameras) -> tuple[float, float]:
    """Least and greatest z-depth that a camera sees at its pixel centres, of its plate and all moments."""
    still = depth_map(stage, camera, 0, moving=False)
    near, far = float(still.min()), float(still.max())
    for moment in range(len(stage)):
        seen = _seen(stage, camera, moment)[stage.solids.still :]
        moving = _depths(seen, camera.height, camera.width)
        near = min(near, float(np.minimum(moving, still).min()))
    return near, far


def _seen(stage: Stage, camera: Cameras, moment: int) -> NDArray[np.void]:
    """[P] of _SEEN: a stage at a moment as a camera sees it. Raises ValueError outside the room."""
    solids, rotation, center = stage.solids, stage.solids.rotation[moment], stage.solids.center[moment]
    K, c2w = camera.K.double().numpy(), camera.c2w.double().numpy()
    seen = np.zeros(len(solids.kind), _SEEN)
    to_solid = rotation.transpose(0, 2, 1) / solids.half[:, :, None]  # [P, 3, 3]
    seen["kind"], seen["paint"], seen["size"] = solids.kind, solids.paint, solids.half / stage.metre
    seen["start"] = (to_solid @ (c2w[:3, 3] - center)[:, :, None])[..., 0]
    seen["ray"] = to_solid @ (c2w[:3, :3] @ np.linalg.inv(K))
    seen["light"] = rotation.transpose(0, 2, 1) @ stage.light
    seen["window"] = _windows(center, rotation * solids.half[:, None], K, c2w)
    room = seen["kind"] == ROOM
    seen["window"][room] = _EVERYWHERE
    if np.abs(seen["start"][room]).max() >= 1:
        raise ValueError("a camera stands outside the room")
    return seen


def _windows(center: Floats, axes: Floats, K: Floats, c2w: Floats) -> Floats:
    """[P, 4] left, right, top, bottom of solids in pixels; everywhere for those that reach behind the camera.

    center: [P, 3]. axes: [P, 3, 3], half extents along the columns.
    """
    corners = center[:, None] + _CORNERS @ axes.transpose(0, 2, 1)  # [P, 8, 3]
    image = (corners - c2w[:3, 3]) @ c2w[:3, :3] @ K.T
    behind = image[..., 2].min(1) <= 0
    x, y = (image[..., :2] / np.where(image[..., 2:] > 0, image[..., 2:], 1)).transpose(2, 0, 1)
    window = np.stack([x.min(1), x.max(1), y.min(1), y.max(1)], -1)
    window[behind] = _EVERYWHERE
    return window


@kernel
def _slabs(sx, sy, sz, dx, dy, dz):
    """Where a ray enters and leaves the cube [-1, 1]^3, as parameters; it misses if it leaves first."""
    dx = dx if abs(dx) > _TINY else _TINY
    dy = dy if abs(dy) > _TINY else _TINY
    dz = dz if abs(dz) > _TINY else _TINY
    ix, iy, iz = 1 / dx, 1 / dy, 1 / dz
    enter = max(-sx * ix - abs(ix), -sy * iy - abs(iy), -sz * iz - abs(iz))
    leave = min(-sx * ix + abs(ix), -sy * iy + abs(iy), -sz * iz + abs(iz))
    return enter, leave


@kernel
def _ball(sx, sy, sz, dx, dy, dz):
    """Where a ray enters the unit ball, as a parameter; -1 where it misses."""
    a = dx * dx + dy * dy + dz * dz
    b = sx * dx + sy * dy + sz * dz
    c = sx * sx + sy * sy + sz * sz - 1
    under = b * b - a * c
    return -(b + math.sqrt(under)) / a if under > 0 else -1.0


@kernel
def _direction(solid, x, y):
    """The direction of the ray through pixel (x, y), in the frame of a solid."""
    ray = solid.ray
    return (
        ray[0, 0] * x + ray[0, 1] * y + ray[0, 2],
        ray[1, 0] * x + ray[1, 1] * y + ray[1, 2],
        ray[2, 0] * x + ray[2, 1] * y + ray[2, 2],
    )


@kernel
def _first(seen, x, y):
    """Depth and number of the nearest solid at pixel (x, y); (inf, -1) for none."""
    depth, found = np.inf, -1
    for p in range(len(seen)):
        solid = seen[p]
        window, start = solid.window, solid.start
        if x < window[0] or x > window[1] or y < window[2] or y > window[3]:
            continue
        dx, dy, dz = _direction(solid, x, y)
        if solid.kind == ELLIPSOID:
            at = _ball(start[0], start[1], start[2], dx, dy, dz)
        else:
            enter, leave = _slabs(start[0], start[1], start[2], dx, dy, dz)
            at = leave if solid.kind == ROOM else (enter if enter < leave else -1.0)
        if 0 < at < depth:
            depth, found = at, p
    return depth, found


@kernel
def _surface(solid, x, y, depth):
    """Side, position (u, v) in metres and cosine towards the light where a solid is seen at a depth."""
    start, size, light = solid.start, solid.size, solid.light
    dx, dy, dz = _direction(solid, x, y)
    qx, qy, qz = start[0] + depth * dx, start[1] + depth * dy, start[2] + depth * dz
    if solid.kind == ELLIPSOID:
        nx, ny, nz = qx / size[0], qy / size[1], qz / size[2]
        towards = nx * light[0] + ny * light[1] + nz * light[2]
        lit = towards / math.sqrt(nx * nx + ny * ny + nz * nz)
        return 0, math.atan2(qx, -qz) * 0.5 * (size[0] + size[2]), qy * size[1], lit
    out = -1.0 if solid.kind == ROOM else 1.0
    ax, ay, az = abs(qx), abs(qy), abs(qz)
    if ax >= ay and ax >= az:
        return 0 + (qx > 0), qz * size[2], qy * size[1], out * math.copysign(light[0], light[0] * qx)
    if ay >= az:
        return 2 + (qy > 0), qx * size[0], qz * size[2], out * math.copysign(light[1], light[1] * qy)
    return 4 + (qz > 0), qx * size[0], qy * size[1], out * math.copysign(light[2], light[2] * qz)


@kernel
def _picture(seen, still, paints, ambient, height, width, supersample):
    """Image [H, W, 3] and alpha [H, W] of solids, of which those from `still` on move."""
    image, alpha = np.empty((height, width, 3), np.float32), np.empty((height, width), np.float32)
    share = 1.0 / supersample**2
    for row in range(height):
        for column in range(width):
            red, green, blue, moving = 0.0, 0.0, 0.0, 0
            for sample in range(supersample**2):
                x = column + (sample % supersample + 0.5) / supersample
                y = row + (sample // supersample + 0.5) / supersample
                depth, p = _first(seen, x, y)
                side, u, v, lit = _surface(seen[p], x, y, depth)
                r, g, b = painted(paints[seen[p].paint[side]], u, v)
                light = share * (ambient + (1 - ambient) * max(lit, 0.0))
                red, green, blue = red + light * r, green + light * g, blue + light * b
                moving += p >= still
            image[row, column, 0], image[row, column, 1], image[row, column, 2] = red, green, blue
            alpha[row, column] = moving * share
    return image, alpha


@kernel
def _depths(seen, height, width):
    """[H, W] float32 depth of the nearest solid at pixel centres, infinite where there is none."""
    depths = np.empty((height, width), np.float32)
    for row in range(height):
        for column in range(width):
            depths[row, column] = _first(seen, column + 0.5, row + 0.5)[0]
    return depths
