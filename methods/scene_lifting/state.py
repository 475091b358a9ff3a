"""What a lifted scene is while it grows: coloured points and the views they came from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from geometry.cameras import Cameras
from geometry.gaussians import Gaussians

# (image [3, H, W] in [0, 1], sparse z-depth [H, W], 0 = unknown, depth unit of the sparse channel)
# -> dense z-depth [H, W], positive
CompleteDepth = Callable[[Tensor, Tensor, float], Tensor]


@dataclass
class LiftedView:
    """A view that is part of a scene.

    image: [3, H, W] in [0, 1]. camera: single. depth: [H, W] z-depth, world units, as it was lifted. known:
    [H, W] bool, pixels that the scene showed before the view joined it (none for the photo). prompt: what it
    was painted with.
    """

    image: Tensor
    camera: Cameras
    depth: Tensor
    known: Tensor
    name: str
    prompt: str = ""


@dataclass
class LiftedScene:
    """Points [P, 3] with colours [P, 3] in [0, 1], in the world of the views' cameras."""

    points: Tensor
    colors: Tensor
    views: list[LiftedView] = field(default_factory=list)
    gaussians: Gaussians | None = None
