"""Procedural rooms with exact images, depth, poses, mesh and moving objects, deterministic by seed.

A room is a box seen from inside, with textured boxes standing and turning in it. Every surface is a plane
patch, so ray casting is exact, and its triangle mesh is exact too. Textures are functions of the position on
the surface (view-independent), made of a few sine gratings and a checker, band-limited enough to be sampled
at 64 pixels. Everything is a tensor operation on all rays at once: a 64x64 view takes about a millisecond.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dataloader.images import to_uint8
from dataloader.scene import Record, Scene
from geometry.cameras import Cameras, pinhole
from geometry.meshes import Mesh
from geometry.views import Views

_ROOM = (3.0, 2.0, 3.0)  # half extents of the room: x, y (down), z
_GRATINGS = 4  # sine gratings per texture


@dataclass
class Boxes:
    """Oriented boxes; the first is the room, seen from inside.

    center [B, 3], half [B, 3], rotation [B, 3, 3] (box to world), velocity [B, 3] world units per time unit,
    frequency [B, 6, G, 2] and phase [B, 6, G, 3] of the gratings on each side, base [B, 6, 3] colours.
    """

    center: Tensor
    half: Tensor
    rotation: Tensor
    velocity: Tensor
    frequency: Tensor
    phase: Tensor
    base: Tensor


def make_boxes(seed: int, n_boxes: int = 6, n_moving: int = 0) -> Boxes:
    """Draw a room with `n_boxes` boxes, the last `n_moving` of which move. Float64, deterministic by seed."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(*shape, generator=generator, dtype=torch.float64)

    count = n_boxes + 1
    room = torch.tensor(_ROOM, dtype=torch.float64)
    half = uniform(0.25, 0.6, count, 3)
    half[0] = room
    center = uniform(-0.75, 0.75, count, 3) * room
    center[:, 2] = uniform(-0.3, 0.8, count) * room[2]  # away from the cameras, which stand at negative z
    center[:, 1] = (
        room[1] - half[:, 1] - uniform(0.0, 1.2, count)
    )  # stand on, or hover above, the floor (y down)
    center[0] = 0
    angle = uniform(0, 2 * math.pi, count)
    angle[0] = 0
    rotation = torch.zeros(count, 3, 3, dtype=torch.float64)
    rotation[:, 0, 0] = rotation[:, 2, 2] = angle.cos()
    rotation[:, 0, 2], rotation[:, 2, 0] = angle.sin(), -angle.sin()
    rotation[:, 1, 1] = 1
    velocity = uniform(-0.35, 0.35, count, 3)
    velocity[: count - n_moving] = 0
    velocity[:, 1] *= 0.3
    return Boxes(
        center=center,
        half=half,
        rotation=rotation,
        velocity=velocity,
        frequency=uniform(-5.0, 5.0, count, 6, _GRATINGS, 2),
        # one phase for the three channels, a little apart: gratings that are mostly light and dark
        phase=uniform(0, 2 * math.pi, count, 6, _GRATINGS, 1) + uniform(-0.5, 0.5, count, 6, _GRATINGS, 3),
        base=uniform(0.3, 0.8, count, 1, 3) + uniform(-0.08, 0.08, count, 6, 3),
    )


def _texture(boxes: Boxes, box: Tensor, side: Tensor, uv: Tensor) -> Tensor:
    """Colours [N, 3] in [0, 1] at surface coordinates uv [N, 2] on side [N] of box [N]."""
    patch = box * 6 + side
    frequency = boxes.frequency.flatten(0, 1).to(uv.dtype)[patch]  # [N, G, 2]
    phase = boxes.phase.flatten(0, 1).to(uv.dtype)[patch]  # [N, G, 3]
    angle = (frequency * uv[:, None]).sum(-1, keepdim=True) + phase  # [N, G, 3]
    checker = torch.sign(torch.sin(6 * uv[:, 0]) * torch.sin(6 * uv[:, 1]))[:, None]
    base = boxes.base.flatten(0, 1).to(uv.dtype)[patch]
    return (base + 0.4 * angle.sin().mean(1) + 0.06 * checker).clamp(0, 1)


@dataclass
class _Hits:
    """First hits of N rays: distance along the ray [N], box [N], side [N], position in the box's frame [N,
    3].
    """

    distance: Tensor
    box: Tensor
    side: Tensor
    local: Tensor


def _cast(boxes: Boxes, origin: Tensor, directions: Tensor, time: float) -> _Hits:
    """First hits of rays from one origin [3] along directions [N, 3]: slab test against every box at once."""
    dtype = directions.dtype
    to_box = boxes.rotation.transpose(-1, -2).to(dtype)  # [B, 3, 3]
    start = (to_box @ (origin - boxes.center - boxes.velocity * time)[..., None].to(dtype)).squeeze(
        -1
    )  # [B, 3]
    local = (to_box.reshape(-1, 3) @ directions.T).reshape(len(to_box), 3, -1)  # [B, 3, N]
    inverse = 1 / torch.where(local.abs() < 1e-9, torch.full_like(local, 1e-9), local)
    half = boxes.half.to(dtype)
    one, two = (-half - start)[..., None] * inverse, (half - start)[..., None] * inverse
    entry, entry_axis = torch.minimum(one, two).max(1)  # [B, N]
    leave, leave_axis = torch.maximum(one, two).min(1)
    distance = torch.where((entry < leave) & (entry > 1e-6), entry, torch.inf)
    distance[0] = leave[0]  # the room is seen from inside
    entry_axis[0] = leave_axis[0]
    nearest, box = distance.min(0)
    rays = torch.arange(len(box))
    axis = entry_axis[box, rays]
    point = start[box] + local[box, :, rays] * nearest[:, None]
    return _Hits(nearest, box, 2 * axis + (point[rays, axis] > 0).long(), point)


# the two axes that run along the sides (-x, +x, -y, +y, -z, +z)
_SURFACE_AXES = torch.tensor([[1, 2], [1, 2], [0, 2], [0, 2], [0, 1], [0, 1]])


def render(boxes: Boxes, cameras: Cameras, supersample: int = 2) -> Views:
    """Exact views of a room.

    cameras: [N] inside the room; their `time` moves the moving boxes. supersample: rays per pixel and axis
    for the colours; depth and foreground are those of the pixel centre. Returns Views [N] with images float32
    [N, 3, H, W], depth float32 (z-depth), valid (all ones) and foreground ({0, 1}, moving boxes).
    """
    n, height, width = len(cameras), cameras.height, cameras.width
    times = [0.0] * n if cameras.time is None else cameras.time.tolist()
    moving = boxes.velocity.abs().sum(-1) > 0
    images, depths, foregrounds = [], [], []
    for i in range(n):
        colors = _colors(boxes, cameras[i].to(torch.float32), times[i], supersample)
        hits = _cast(boxes, *_camera_rays(cameras[i].to(torch.float64)), times[i])
        images.append(colors)
        depths.append(hits.distance.reshape(1, height, width).float())
        foregrounds.append(moving[hits.box].reshape(1, height, width).float())
    return Views(
        torch.stack(images),
        cameras,
        depth=torch.stack(depths),
        valid=torch.ones(n, 1, height, width),
        foreground=torch.stack(foregrounds),
        names=[f"{i:04d}" for i in range(n)],
    )


def render_depth(boxes: Boxes, camera: Cameras) -> Tensor:
    """The z-depth [H, W] float32 that one camera inside a static room sees, in the camera's precision."""
    hits = _cast(boxes, *_camera_rays(camera), 0.0)
    return hits.distance.reshape(camera.height, camera.width).float()


def _camera_rays(camera: Cameras) -> tuple[Tensor, Tensor]:
    """Centre [3] and directions [H * W, 3] of camera-space depth 1, so that ray distance is z-depth."""
    return camera.center, camera.rays(unit=False)[1].reshape(-1, 3)


def _colors(boxes: Boxes, camera: Cameras, time: float, supersample: int) -> Tensor:
    """The image [3, H, W] of one camera: the mean of supersample^2 rays per pixel."""
    fine = camera.resize(camera.height * supersample, camera.width * supersample)
    hits = _cast(boxes, *_camera_rays(fine), time)
    uv = hits.local.gather(1, _SURFACE_AXES[hits.side])
    colors = _texture(boxes, hits.box, hits.side, uv).T.reshape(3, fine.height, fine.width)
    return torch.nn.functional.avg_pool2d(colors, supersample)


def make_mesh(boxes: Boxes, cells: int = 24, time: float = 0.0) -> Mesh:
    """The room's exact surface as a triangle mesh with vertex colours, every side cut into cells x cells
    squares.

    Triangles are counter-clockwise as seen from where the camera can be: the room's sides face inwards.
    """
    ticks = torch.linspace(-1, 1, cells + 1, dtype=torch.float64)
    grid = torch.stack(torch.meshgrid(ticks, ticks, indexing="ij"), -1).reshape(-1, 2)  # [(cells+1)^2, 2]
    index = torch.arange((cells + 1) ** 2).reshape(cells + 1, cells + 1)
    a, b, c, d = index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]
    square = torch.stack([torch.stack([a, b, c], -1), torch.stack([a, c, d], -1)]).reshape(-1, 3)
    vertices: list[Tensor] = []
    faces: list[Tensor] = []
    colors: list[Tensor] = []
    for box in range(len(boxes.center)):
        for side in range(6):
            axis, sign = side // 2, 1.0 if side % 2 else -1.0
            others = [k for k in range(3) if k != axis]
            unit = torch.zeros(len(grid), 3, dtype=torch.float64)
            unit[:, others], unit[:, axis] = grid, sign
            local = unit * boxes.half[box]
            # u x v points along +axis for x and z, along -axis for y
            outward = (sign > 0) == (axis != 1)
            flip = outward == (box == 0)
            faces.append((square.flip(-1) if flip else square) + len(grid) * len(vertices))
            place = torch.full((len(grid),), box)
            uv = local[:, others]
            colors.append(_texture(boxes, place, torch.full_like(place, side), uv))
            world = local @ boxes.rotation[box].T + boxes.center[box] + boxes.velocity[box] * time
            vertices.append(world)
    return Mesh(torch.cat(vertices), torch.cat(faces), torch.cat(colors).float())


def make_cameras(seed: int, n: int, height: int, width: int, boxes: Boxes | None = None) -> Cameras:
    """`n` float64 cameras on an arc inside the room that look at its middle; they avoid the boxes given.

    The arc spans 70 degrees at half the room's depth, with small deterministic offsets in height and
    direction.
    """
    generator = torch.Generator().manual_seed(seed + 7919)
    jitter = torch.rand(n, 3, generator=generator, dtype=torch.float64) - 0.5
    angle = torch.linspace(-35, 35, n, dtype=torch.float64).deg2rad() if n > 1 else torch.zeros(1).double()
    radius = 2.4 + 0.3 * jitter[:, 0]
    centers = torch.stack([radius * angle.sin(), -0.5 + 0.8 * jitter[:, 1], -radius * angle.cos()], -1)
    if boxes is not None:
        centers = _move_out(centers, boxes)
    target = torch.tensor([0.0, 0.4, 0.3], dtype=torch.float64) + 0.3 * jitter
    forward = torch.nn.functional.normalize(target - centers, dim=-1)
    down = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64).expand_as(forward)
    right = torch.nn.functional.normalize(torch.linalg.cross(down, forward), dim=-1)
    c2w = torch.eye(4, dtype=torch.float64).repeat(n, 1, 1)
    c2w[:, :3, :3] = torch.stack([right, torch.linalg.cross(forward, right), forward], -1)
    c2w[:, :3, 3] = centers
    return pinhole(0.9 * max(height, width), height, width).with_poses(c2w)


def _move_out(centers: Tensor, boxes: Boxes, margin: float = 0.25) -> Tensor:
    """Raise camera centres (towards -y) that lie within a margin of a box until they are above it."""
    centers = centers.clone()
    for box in range(1, len(boxes.center)):
        local = (centers - boxes.center[box]) @ boxes.rotation[box]
        inside = ((local.abs() - boxes.half[box]) < margin).all(-1)
        top = boxes.center[box, 1] - boxes.half[box, 1] - margin
        centers[inside, 1] = torch.minimum(centers[inside, 1], top).clamp(min=-_ROOM[1] + 0.1)
    return centers


def make_scene(
    seed: int = 0,
    n_views: int = 24,
    height: int = 192,
    width: int = 256,
    n_boxes: int = 6,
    hold_out_every: int = 8,
) -> Scene:
    """A static procedural room as an in-memory Scene: photos, exact depth, bounds, mesh, train and test
    split.
    """
    boxes = make_boxes(seed, n_boxes)
    cameras = make_cameras(seed, n_views, height, width, boxes)
    views = render(boxes, cameras)
    assert views.depth is not None
    records = [
        Record(
            name=views.names[i],
            camera=cameras[i],
            image=to_uint8(views.images[i]),
            depth=np.asarray(views.depth[i, 0]),
            bounds=(float(views.depth[i].min()), float(views.depth[i].max())),
        )
        for i in range(n_views)
    ]
    scene = Scene(name=f"room{seed}", records=records, surface=make_mesh(boxes, cells=48))
    scene.hold_out(hold_out_every)
    return scene
