"""Draws procedural rigs: a room with boxes, posts and panels, what moves through it, and who films it.

Until the end lengths are metres in the frame of the room, whose origin is the middle of the rig (x right, y
down) and whose far wall is at `wall` along z. Sizes follow the distance of that wall, and the pitch of the
cameras follows from the disparities that neighbours should have.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from dataloader.rig.toy_colors import draw_paint
from dataloader.rig.toy_stage import BOX, ELLIPSOID, ROOM, Floats, Solids, Stage
from geometry.cameras import Cameras, stack_cameras, pinhole

_WIDTH = 128.0  # pixels, for the disparities below
_WALL_DISPARITY = (0.7, 4.0)  # pixels between neighbours, at the far wall
_NEAR_DISPARITY = 13.0  # pixels, the most that something which moves has
_FIELD = (50.0, 85.0)  # degrees across
_CAMERAS = (4, 10)
_STRETCH = (0.3, 3.0)  # world units per metre


@dataclass
class _Part:
    """A solid in the making. center [T, 3] and turn [T, 3, 3] (solid to room) at T moments."""

    kind: int
    half: Floats
    center: Floats
    turn: Floats
    paints: list[NDArray[np.void]]


@dataclass
class _Site:
    """What the parts of one scene are drawn by.

    across, down: half of what is seen at a distance of 1. nearest: distance of what may move. floor, ceiling:
    heights (y). heading: [3, 3] the rig's turn about the vertical.
    """

    random: np.random.Generator
    moments: int
    across: float
    down: float
    wall: float
    nearest: float
    floor: float
    ceiling: float
    heading: Floats
    saturation: float
    parts: list[_Part] = field(default_factory=list)

    def uniform(self, low: float, high: float) -> float:
        return float(self.random.uniform(low, high))

    def at(self, across: float, down: float, depth: float) -> Floats:
        """The place [3] at a depth before the rig; `across` and `down` are -1 ... 1 within its view."""
        return self.heading @ np.array([across * self.across * depth, down * self.down * depth, depth])

    def sizes(self, low: float, high: float, n: int = 3) -> Floats:
        """[n] lengths in metres between shares of the wall's distance, small ones as often as large ones."""
        return self.wall * np.exp(self.random.uniform(math.log(low), math.log(high), n))

    def paint(self, pattern: str = "") -> NDArray[np.void]:
        return draw_paint(self.random, self.wall, self.saturation, pattern)

    def stand(self, kind: int, half: Floats, center: Floats, turn: Floats, sides: int = 1) -> None:
        """Add a solid that stands still. sides: how many textures it has."""
        still = (np.tile(center, (self.moments, 1)), np.tile(turn, (self.moments, 1, 1)))
        self.parts.append(_Part(kind, half, *still, [self.paint() for _ in range(sides)]))


def draw_rig(seed: int, moments: int, height: int, width: int, cameras: int = 0) -> tuple[Stage, Cameras]:
    """A procedural scene and the cameras [C] that film it, in a world of arbitrary pose and scale.

    seed: everything follows from it. cameras: how many; 0 draws 4 to 10. Neighbours in their order are
    neighbours in space. The same seed gives the same scene for any size of one aspect ratio.
    """
    random = np.random.default_rng([seed, 0x719])
    site, pitch, tilt = _draw_site(random, moments, width / height)
    poses = _draw_poses(random, cameras or int(random.integers(_CAMERAS[0], _CAMERAS[1] + 1)), pitch)
    zoom = 1 + 0.01 * random.standard_normal(len(poses))
    _build_room(site)
    _furnish(site)
    still = len(site.parts)
    for _ in range(random.choice([1, 2, 3], p=[0.35, 0.4, 0.25])):
        _send_through(site)
    metre = math.exp(random.uniform(*np.log(_STRETCH)))
    turn, shift = _euler(*random.uniform(-0.6, 0.6, 3)), 1.5 * metre * random.standard_normal(3)
    poses = _placed(np.eye(4), turn @ site.heading @ tilt, shift, 1.0) @ _placed(poses, np.eye(3), 0, metre)
    focal = width / (2 * site.across)
    rig = [
        pinhole(focal * factor, height, width, torch.from_numpy(pose))
        for factor, pose in zip(zoom, poses, strict=True)
    ]
    return _stage(site, still, metre, turn, shift), stack_cameras(rig)


def _draw_site(random: np.random.Generator, moments: int, aspect: float) -> tuple[_Site, float, Floats]:
    """The frame of a scene, the pitch of its cameras in metres and the rig's tilt [3, 3]."""
    across = math.tan(math.radians(random.uniform(*_FIELD)) / 2)
    wall = random.uniform(6.0, 12.0)
    disparity = math.exp(random.uniform(*np.log(_WALL_DISPARITY)))
    yaw = random.uniform(-0.6, 0.6) if random.random() < 0.3 else 0.1 * random.standard_normal()
    site = _Site(
        random,
        moments,
        across,
        across / aspect,
        wall,
        nearest=wall * max(disparity / _NEAR_DISPARITY, 0.22),
        floor=wall * random.uniform(0.11, 0.24),
        ceiling=-wall * random.uniform(0.18, 0.6),
        heading=_euler(0, yaw, 0),
        saturation=random.uniform(0.1, 1.0),
    )
    tilt = _euler(0.05 * random.standard_normal(), 0, 0.02 * random.standard_normal())
    return site, disparity * wall * 2 * across / _WIDTH, tilt


def _draw_poses(random: np.random.Generator, count: int, pitch: float) -> Floats:
    """[C, 4, 4] camera to rig: a row or a grid of nearly parallel cameras, up and down its columns in turn."""
    rows = int(random.choice([n for n in (1, 2, 3) if count > 2 * n or count == 4 * n // 2]))
    columns = math.ceil(count / rows)
    cells = [(c, r if c % 2 == 0 else rows - 1 - r) for c in range(columns) for r in range(rows)][:count]
    places = np.array(cells) - np.array([(columns - 1) / 2, (rows - 1) / 2])
    poses = np.tile(np.eye(4), (count, 1, 1))
    poses[:, :2, 3] = pitch * places * [1, random.uniform(0.6, 1.1)]
    poses[:, :3, 3] += 0.04 * pitch * random.standard_normal((count, 3))
    for pose, angles in zip(poses, np.radians(random.standard_normal((count, 3))), strict=True):
        pose[:3, :3] = _euler(*angles)
    return poses


def _build_room(site: _Site) -> None:
    """The room: floor, ceiling and far wall as drawn, side walls anywhere from near to out of view."""
    left, right = (-site.wall * site.uniform(0.5, 1.3) for _ in range(2))
    low = np.array([left, site.ceiling, -0.4 * site.wall])
    high = np.array([-right, site.floor, site.wall])
    site.stand(ROOM, (high - low) / 2, (high + low) / 2, np.eye(3), sides=6)


def _furnish(site: _Site) -> None:
    """Boxes and balls on the floor or in the air, thin posts and rails, panels on the far wall."""
    random = site.random
    for _ in range(random.integers(3, 10)):
        half, depth = site.sizes(0.025, 0.09), site.wall * max(site.uniform(0.38, 0.92), 1.1 * site.nearest / site.wall)
        center = site.at(site.uniform(-1, 1), site.uniform(-0.8, 0.5), depth)
        if random.random() < 0.75:
            center[1] = site.floor - half[1]
        kind = BOX if random.random() < 0.85 else ELLIPSOID
        site.stand(kind, half, center, _euler(0, site.uniform(-0.8, 0.8), 0), int(random.choice([1, 3])))
    for _ in range(random.integers(0, 4)):
        half = np.append(site.sizes(0.004, 0.014, 2), site.sizes(0.1, 0.5, 1))[random.permutation(3)]
        center = site.at(site.uniform(-1, 1), site.uniform(-0.6, 0.6), site.uniform(max(0.35 * site.wall, site.nearest), 0.9 * site.wall))
        site.stand(BOX, half, center, _euler(0, site.uniform(-0.5, 0.5), 0))
    for _ in range(random.integers(0, 5)):
        center = site.at(site.uniform(-0.9, 0.9), site.uniform(-0.9, 0.2), site.wall)
        center[2] = site.wall
        site.stand(BOX, np.append(site.sizes(0.03, 0.15, 2), 0.01), center, np.eye(3))


def _send_through(site: _Site) -> None:
    """Something that crosses the view, comes nearer or goes away, and turns as it goes."""
    random = site.random
    depth = site.uniform(site.nearest, max(0.62 * site.wall, 1.05 * site.nearest))
    s = np.linspace(-0.5, 0.5, site.moments) if site.moments > 1 else np.zeros(1)
    comes = random.random() < 0.25
    depths = np.maximum(depth * (1 + s * site.uniform(-0.15, 0.15) * (4 if comes else 1)), site.nearest)
    span = random.choice([-1, 1]) * site.uniform(0.2, 1.5) * (0.3 if comes else 1)
    across, down = site.uniform(-0.45, 0.45) + span * s, site.uniform(-0.3, 0.35)
    path = np.stack([site.at(a, down, d) for a, d in zip(across, depths, strict=True)])
    path[:, 1] += depth * site.down * site.uniform(0, 0.12) * np.sin(site.uniform(2, 7) * s)
    rate, still = site.uniform(-2.5, 2.5), site.uniform(-1.5, 1.5)
    upright = random.random() < 0.7
    lean = np.zeros(3) if upright else random.uniform(-1, 1, 3)
    turn = np.stack([_euler(lean[0] * t, still + rate * t, lean[2] * (1 + t)) for t in s])
    size = depth * site.down * site.uniform(0.25, 0.8)  # half its height
    for kind, half, offset, sides in _bodies(random, size):
        center = path + turn @ offset
        site.parts.append(_Part(kind, half, center, turn, [site.paint() for _ in range(sides)]))


def _bodies(random: np.random.Generator, size: float) -> list[tuple[int, Floats, Floats, int]]:
    """Kind, half extents, offset and number of textures of the solids that make a moving thing up.

    size: half its height. They are a figure with a head and perhaps legs, a box, an ellipsoid or a stick.
    """
    what = random.choice(["figure", "box", "ellipsoid", "stick"], p=[0.45, 0.25, 0.18, 0.12])
    wide, deep = random.uniform(0.25, 0.5, 2)
    if what == "box":
        return [(BOX, 0.6 * size * random.uniform(0.5, 1.2, 3), np.zeros(3), 3)]
    if what == "ellipsoid":
        return [(ELLIPSOID, 0.7 * size * random.uniform(0.5, 1.2, 3), np.zeros(3), 1)]
    if what == "stick":
        return [(BOX, size * np.array([0.06, 1.0, 0.06])[random.permutation(3)], np.zeros(3), 1)]
    body = BOX if random.random() < 0.3 else ELLIPSOID
    head = size * random.uniform(0.18, 0.27)
    parts = [(ELLIPSOID, np.array([head, 1.15 * head, head]), np.array([0, 1.15 * head - size, 0]), 1)]
    legs = random.random() < 0.5
    low, high = (0.35 * size if legs else size), 2.1 * head - size
    half = np.array([wide * size, (low - high) / 2, deep * size])
    parts.append((body, half, np.array([0, (low + high) / 2, 0]), 1))
    for side in (-1, 1) if legs else ():
        leg = np.array([0.14, 0.4, 0.14]) * size
        parts.append((BOX, leg, np.array([side * 0.5 * wide * size, 0.6 * size, 0]), 1))
    return parts


def _stage(site: _Site, still: int, metre: float, turn: Floats, shift: Floats) -> Stage:
    """The parts, from the room to the world: x -> metre * turn @ x + shift."""
    parts, paints = site.parts, [paint for part in site.parts for paint in part.paints]
    first = np.cumsum([0] + [len(part.paints) for part in parts])
    sides = [first[i] + np.arange(6) * len(part.paints) // 6 for i, part in enumerate(parts)]
    light = site.random.uniform([-0.6, -1.0, -1.0], [0.6, -0.4, -0.3])
    solids = Solids(
        kind=np.array([part.kind for part in parts]),
        half=metre * np.stack([part.half for part in parts]),
        center=metre * np.stack([part.center for part in parts], 1) @ turn.T + shift,
        rotation=turn @ np.stack([part.turn for part in parts], 1),
        paint=np.stack(sides),
        still=still,
    )
    light = turn @ site.heading @ light / np.linalg.norm(light)
    return Stage(solids, np.stack(paints), light, site.uniform(0.45, 0.8), metre)


def _placed(poses: Floats, turn: Floats, shift: Floats | float, scale: float) -> Floats:
    """Poses [..., 4, 4] after x -> turn @ (scale * x) + shift, still rigid."""
    moved = np.array(poses)
    moved[..., :3, :3] = turn @ poses[..., :3, :3]
    moved[..., :3, 3] = scale * poses[..., :3, 3] @ turn.T + shift
    return moved


def _euler(about_x: float, about_y: float, about_z: float) -> Floats:
    """[3, 3] rotation about z, then x, then y (radians)."""
    (cx, cy, cz), (sx, sy, sz) = np.cos([about_x, about_y, about_z]), np.sin([about_x, about_y, about_z])
    x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return y @ x @ z
