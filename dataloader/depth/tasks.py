"""Tasks of scene geometry: the depth of one view is known, that of another is to be completed."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from geometry.views import Views


@dataclass
class DepthTask:
    """Complete the depth of a photo, of which some is known from another view.

    source: Views [1] with true `depth` and `valid`. target: Views [1] with the photo and, for the scores, its
    true `depth` and `valid`. sparse: [1, 1, H, W] z-depth of the source's points as the target sees them, 0
    where unknown. hidden: [1, 1, H, W] {0, 1}, pixels that none of the source's points cover: those are
    scored. scene: of the pair. uneroded: [1, 1, H, W], `sparse` with the outermost pixels of what the points
    cover, where those were taken away; the original aligns depth to it.
    """

    source: Views
    target: Views
    sparse: Tensor
    hidden: Tensor
    scene: str
    name: str
    uneroded: Tensor | None = None
