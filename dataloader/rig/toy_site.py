"""The frame of a procedural scene, and the rig that films it.

Lengths are metres in the frame of the room: its origin is the middle of the rig, y points down, and the far
wall is across z. Sizes follow the distance of that wall, and the pitch of the cameras follows from the
disparities that neighbours should have. `Site.metre`, `turn` and `shift` lead from there to the world.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from dataloader.rig.toy_stage import Floats
from geometry.cameras import Cameras, pinhole

_WIDTH = 128.0  # pixels, for the disparities below
_WALL_DISPARITY = (1.0, 4.5)  # pixels between neighbours, at the far wall
_NEAR_DISPARITY = 14.0  # pixels, the most that something which moves has
_FIELD = (50.0, 85.0)  # degrees across
_WALL = (6.0, 12.0)  # metres
_CAMERAS = (4, 10)
_TURN = math.radians(1.0)  # of the cameras of a rig, standard deviation about each axis
_ZOOM = 0.01  # of their focal lengths, standard deviation as a share
_METRE = (0.3, 3.0)  # world units


@dataclass
class Site:
    """The frame of a scene.

    across, down: half of what is seen at a distance of 1. wall: distance of the far wall. nearest: of what
    may move. floor, ceiling: where they are along y. pitch: distance between neighbouring cameras. heading
    [3, 3]: the rig's turn about the vertical; tilt [3, 3]: its nod and roll after that. metre, turn [3, 3],
    shift [3]: x in the room is metre * turn @ x + shift in the world.
    """

    across: float
    down: float
    wall: float
    nearest: float
    floor: float
    ceiling: float
    pitch: float
    heading: Floats
    tilt: Floats
    metre: float
    turn: Floats
    shift: Floats

    def at(self, across: float, down: float, depth: float) -> Floats:
        """The place [3] at a depth before the rig; `across` and `down` are -1 ... 1 within its view."""
        return self.heading @ np.array([across * self.across * depth, down * self.down * depth, depth])


def draw_site(seed: int, aspect: float) -> Site:
    """The frame of scene `seed`. aspect: width over height of the photos."""
    random = np.random.default_rng([seed, 0])
    across = math.tan(math.radians(random.uniform(*_FIELD)) / 2)
    wall, disparity = random.uniform(*_WALL), log_uniform(random, *_WALL_DISPARITY)
    oblique = random.random() < 0.3
    metre = log_uniform(random, *_METRE)
    return Site(
        across,
        across / aspect,
        wall,
        nearest=wall * max(disparity / _NEAR_DISPARITY, 0.22),
        floor=wall * random.uniform(0.11, 0.24),
        ceiling=-wall * random.uniform(0.18, 0.6),
        pitch=disparity * wall * 2 * across / _WIDTH,
        heading=rotation(0, random.uniform(-0.6, 0.6) if oblique else random.normal(0, 0.1), 0),
        tilt=rotation(random.normal(0, 0.05), 0, random.normal(0, 0.02)),
        metre=metre,
        turn=rotation(*random.uniform(-0.6, 0.6, 3)),
        shift=metre * random.normal(0, 1.5, 3),
    )


def draw_cameras(seed: int, site: Site, height: int, width: int, count: int = 0) -> Cameras:
    """The rig [C] of scene `seed`: float64 cameras in a row or in a grid, neighbours in space where they are
    in their order. count: how many; 0 draws 4 to 10.
    """
    random = np.random.default_rng([seed, 1])
    drawn = int(random.integers(_CAMERAS[0], _CAMERAS[1] + 1))
    cells = _cells(count or drawn, random)
    local = site.pitch * (cells + random.normal(0, 0.04, cells.shape))  # [C, 3]
    turns = np.stack([rotation(*angles) for angles in random.normal(0, _TURN, cells.shape)])
    room = site.heading @ site.tilt
    poses = np.tile(np.eye(4), (len(cells), 1, 1))
    poses[:, :3, :3] = site.turn @ room @ turns
    poses[:, :3, 3] = site.metre * local @ (site.turn @ room).T + site.shift
    cameras = pinhole(width / (2 * site.across), height, width).with_poses(torch.from_numpy(poses))
    cameras.K[:, :2, :2] *= torch.from_numpy(1 + random.normal(0, _ZOOM, len(cells)))[:, None, None]
    return cameras


def _cells(count: int, random: np.random.Generator) -> Floats:
    """[C, 3] places in a grid of pitch 1 around the origin: along its columns, down and up in turn."""
    rows = int(random.choice([rows for rows in (1, 2, 3) if count >= 2 * rows]))
    columns = math.ceil(count / rows)
    places = [(c, r if c % 2 == 0 else rows - 1 - r, 0) for c in range(columns) for r in range(rows)]
    middle = np.array([(columns - 1) / 2, (rows - 1) / 2, 0])
    return (np.array(places[:count]) - middle) * [1, random.uniform(0.6, 1.1), 1]


def log_uniform(random: np.random.Generator, low: float, high: float) -> float:
    """A number between two, as often below their geometric mean as above."""
    return math.exp(random.uniform(math.log(low), math.log(high)))


def rotation(about_x: float, about_y: float, about_z: float) -> Floats:
    """[3, 3] turn about z, then x, then y, in radians."""
    (cx, cy, cz), (sx, sy, sz) = ((f(about_x), f(about_y), f(about_z)) for f in (math.cos, math.sin))
    x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return y @ x @ z
