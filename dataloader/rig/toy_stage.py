"""What stands in front of a procedural rig: boxes and ellipsoids with textures, some of which move."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

ROOM, BOX, ELLIPSOID = range(3)  # kinds of solids; a room is a box seen from inside
PATTERNS = ("none", "checker", "brick", "stripes", "waves", "dots", "tiles", "lines", "planks")


# A texture: value noise that blends two colours, with a pattern of a third on top.
PAINT = np.dtype(
    [
        ("pattern", "i8"),  # index into PATTERNS
        ("opacity", "f8"),  # of the pattern
        ("colors", "f8", (3, 3)),  # first, second, pattern's, in [0, 1]
        ("noise", "f8", (3, 2)),  # per octave its frequency, per metre, and weight; weights sum to 1
        ("axes", "f8", (2, 2)),  # metres on the surface -> periods of the pattern, across and along
        ("seed", "i8"),  # of the noise
    ]
)


@dataclass
class Solids:
    """P solids at T moments in world space, those that stand still first.

    kind [P]. half [P, 3] extents or radii. center [T, P, 3]. rotation [T, P, 3, 3] solid to world. paint
    [P, 6] index into the paints, for sides -x, +x, -y, +y, -z, +z (an ellipsoid uses the first). still: how
    many never move.
    """

    kind: Integers
    half: Floats
    center: Floats
    rotation: Floats
    paint: Integers
    still: int


@dataclass
class Stage:
    """A scene at T moments. paints: [M] of PAINT. light: [3] unit vector towards the light, in the world.
    ambient: share of the light that comes from everywhere. metre: in world units.
    """

    solids: Solids
    paints: NDArray[np.void]
    light: Floats
    ambient: float
    metre: float

    def __len__(self) -> int:
        return len(self.solids.center)
