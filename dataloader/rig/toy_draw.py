"""Draws what stands in front of a procedural rig: a room with boxes, posts and panels, and what moves through
it. Lengths are metres in the frame of the room (`toy_site`), until the end.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dataloader.rig.toy_colors import draw_paint
from dataloader.rig.toy_site import Site, rotation
from dataloader.rig.toy_stage import BOX, ELLIPSOID, ROOM, Floats, Solids, Stage

_MOVING = (0.35, 0.4, 0.25)  # how often one, two and three things move
_THINGS = {"figure": 0.45, "box": 0.25, "ellipsoid": 0.18, "stick": 0.12}  # how often which of them


@dataclass
class _Solid:
    """A solid in the making. center [T, 3] and turn [T, 3, 3] (solid to room) at T moments."""

    kind: int
    half: Floats
    center: Floats
    turn: Floats
    paints: list[NDArray[np.void]]


@dataclass
class _Maker:
    """Makes the solids of one scene, one after the other, from one generator."""

    random: np.random.Generator
    site: Site
    moments: int
    saturation: float
    solids: list[_Solid] = field(default_factory=list)

    def uniform(self, low: float, high: float) -> float:
        return float(self.random.uniform(low, high))

    def sizes(self, low: float, high: float, n: int) -> Floats:
        """[n] lengths between shares of the wall's distance, small ones as often as large ones."""
        return self.site.wall * np.exp(self.random.uniform(math.log(low), math.log(high), n))

    def add(self, kind: int, half: Floats, center: Floats, turn: Floats, sides: int = 1) -> None:
        """Add a solid. center: [T, 3], or [3] if it stands still. sides: how many textures it has."""
        center = np.broadcast_to(center, (self.moments, 3))
        turn = np.broadcast_to(turn, (self.moments, 3, 3))
        paints = [draw_paint(self.random, self.site.wall, self.saturation) for _ in range(sides)]
        self.solids.append(_Solid(kind, half, center, turn, paints))


def draw_stage(seed: int, site: Site, moments: int) -> Stage:
    """What is in front of the rig of scene `seed`, in the world, at so many moments."""
    random = np.random.default_rng([seed, 2])
    maker = _Maker(random, site, moments, saturation=random.uniform(0.15, 1.0))
    _build_room(maker)
    for add, least, most in ((_add_object, 3, 9), (_add_post, 0, 3), (_add_panel, 0, 4)):
        for _ in range(random.integers(least, most + 1)):
            add(maker)
    still = len(maker.solids)
    for _ in range(1 + random.choice(len(_MOVING), p=_MOVING)):
        _send_through(maker)
    return _stage(maker, still)


def _build_room(maker: _Maker) -> None:
    """Floor, ceiling and far wall of the site, side walls anywhere from near to out of view."""
    site = maker.site
    left, right = (site.wall * maker.uniform(0.5, 1.3) for _ in range(2))
    low = np.array([-left, site.ceiling, -0.4 * site.wall])
    high = np.array([right, site.floor, site.wall])
    maker.add(ROOM, (high - low) / 2, (high + low) / 2, np.eye(3), sides=6)


def _add_object(maker: _Maker) -> None:
    """A box, or at times an ellipsoid, on the floor or in the air."""
    site, half = maker.site, maker.sizes(0.025, 0.09, 3)
    depth = max(site.wall * maker.uniform(0.38, 0.92), 1.1 * site.nearest)
    center = site.at(maker.uniform(-1, 1), maker.uniform(-0.8, 0.5), depth)
    if maker.random.random() < 0.75:
        center[1] = site.floor - half[1]
    kind, sides = (BOX, maker.random.choice([1, 3])) if maker.random.random() < 0.85 else (ELLIPSOID, 1)
    maker.add(kind, half, center, rotation(0, maker.uniform(-0.8, 0.8), 0), sides)


def _add_post(maker: _Maker) -> None:
    """A thin bar: a post, or a rail along or across."""
    site, random = maker.site, maker.random
    half = np.concatenate([maker.sizes(0.004, 0.014, 2), maker.sizes(0.1, 0.5, 1)])
    depth = maker.uniform(max(0.35 * site.wall, site.nearest), 0.9 * site.wall)
    center = site.at(maker.uniform(-1, 1), maker.uniform(-0.6, 0.6), depth)
    half = np.roll(half, random.choice([0, 1, 2], p=[0.15, 0.35, 0.5]))
    maker.add(BOX, half, center, rotation(0, maker.uniform(-0.5, 0.5), 0))


def _add_panel(maker: _Maker) -> None:
    """A panel on the far wall."""
    site = maker.site
    center = site.at(maker.uniform(-0.9, 0.9), maker.uniform(-0.9, 0.2), site.wall)
    center[2] = site.wall
    maker.add(BOX, np.append(maker.sizes(0.03, 0.15, 2), 0.01), center, np.eye(3))


def _send_through(maker: _Maker) -> None:
    """Something that crosses the view, comes nearer or goes away, and turns as it goes."""
    site, random = maker.site, maker.random
    depth = site.nearest + max(0.62 * site.wall - site.nearest, 0.2) * random.random() ** 1.5
    size = depth * site.down * maker.uniform(0.25, 0.8)  # half its height
    time = np.linspace(-0.5, 0.5, maker.moments) if maker.moments > 1 else np.zeros(1)
    approach, span = (0.6, 0.5) if random.random() < 0.25 else (0.15, 1.5)
    depths = np.maximum(depth * (1 + time * maker.uniform(-approach, approach)), site.nearest)
    across = maker.uniform(-0.45, 0.45) + time * random.choice([-1, 1]) * maker.uniform(0.15 * span, span)
    down = maker.uniform(-0.3, 0.35)
    path = np.stack([site.at(a, down, d) for a, d in zip(across, depths, strict=True)])
    path[:, 1] += 0.5 * size * maker.uniform(0, 0.3) * np.sin(maker.uniform(2, 7) * time)
    start, rate = maker.uniform(-1.5, 1.5), maker.uniform(-2.5, 2.5)
    lean = np.zeros(2) if random.random() < 0.7 else random.uniform(-1, 1, 2)
    turn = np.stack([rotation(lean[0] * t, start + rate * t, lean[1] * (1 + t)) for t in time])
    for kind, half, offset, sides in _thing(random, size):
        maker.add(kind, half, path + turn @ offset, turn, sides)


_Piece = tuple[int, Floats, Floats, int]  # kind, half extents, offset from the middle, number of textures


def _thing(random: np.random.Generator, size: float) -> list[_Piece]:
    """The pieces of something that moves. size: half its height."""
    what = random.choice(list(_THINGS), p=list(_THINGS.values()))
    if what == "box":
        return [(BOX, 0.6 * size * random.uniform(0.5, 1.2, 3), np.zeros(3), 3)]
    if what == "ellipsoid":
        return [(ELLIPSOID, 0.7 * size * random.uniform(0.5, 1.2, 3), np.zeros(3), 1)]
    if what == "stick":
        return [(BOX, size * np.roll([0.06, 0.06, 1.0], random.integers(3)), np.zeros(3), 1)]
    return _figure(random, size)


def _figure(random: np.random.Generator, size: float) -> list[_Piece]:
    """A head on a body, which may have two legs."""
    (wide, deep), head = size * random.uniform(0.25, 0.5, 2), size * random.uniform(0.18, 0.27)
    body, legs = BOX if random.random() < 0.3 else ELLIPSOID, random.random() < 0.5
    top, bottom = 2.1 * head - size, 0.35 * size if legs else size
    pieces = [
        (ELLIPSOID, head * np.array([1, 1.15, 1]), np.array([0, 1.15 * head - size, 0]), 1),
        (body, np.array([wide, (bottom - top) / 2, deep]), np.array([0, (top + bottom) / 2, 0]), 1),
    ]
    for side in (-0.5, 0.5) if legs else ():
        leg = size * np.array([0.14, 0.4, 0.14])
        pieces.append((BOX, leg, np.array([side * wide, 0.6 * size, 0]), 1))
    return pieces


def _stage(maker: _Maker, still: int) -> Stage:
    """The solids, from the room to the world, and the light."""
    solids, site, random = maker.solids, maker.site, maker.random
    first = np.cumsum([0] + [len(solid.paints) for solid in solids])
    light = random.uniform([-0.6, -1.0, -1.0], [0.6, -0.4, -0.3])
    center = np.stack([solid.center for solid in solids], 1)  # [T, P, 3]
    return Stage(
        Solids(
            kind=np.array([solid.kind for solid in solids]),
            half=site.metre * np.stack([solid.half for solid in solids]),
            center=site.metre * center @ site.turn.T + site.shift,
            rotation=site.turn @ np.stack([solid.turn for solid in solids], 1),
            paint=np.stack(
                [f + np.arange(6) * len(s.paints) // 6 for f, s in zip(first, solids, strict=False)]
            ),
            still=still,
        ),
        paints=np.stack([paint for solid in solids for paint in solid.paints]),
        light=site.turn @ site.heading @ light / np.linalg.norm(light),
        ambient=random.uniform(0.45, 0.8),
        metre=site.metre,
    )
