"""Images with their cameras (`Views`) and what a method makes of a camera (`Rendering`)."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor

from geometry.cameras import Cameras


def _indexed(value: Any, index: Any) -> Any:
    if isinstance(value, list):
        return [value[i] for i in torch.arange(len(value))[index].reshape(-1).tolist()] if value else value
    return None if value is None else value[index]


@dataclass
class Views:
    """Images of one size and what is known about them.

    images: [..., 3, H, W] float32 in [0, 1]. cameras: [...]. depth: [..., 1, H, W] z-depth in world units.
    valid: [..., 1, H, W] {0, 1}, where depth is known. foreground: {0, 1}, the moving part.
    coverage: {0, 1}, where the scene's geometry is. background: [..., 3, H, W], the same views without what
    moves (plates). bounds: [..., 2], nearest and farthest z-depth there is to see, in world units. names: one
    per view, for files and messages.
    """

    images: Tensor
    cameras: Cameras
    depth: Tensor | None = None
    valid: Tensor | None = None
    foreground: Tensor | None = None
    coverage: Tensor | None = None
    background: Tensor | None = None
    bounds: Tensor | None = None
    names: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        size = (self.cameras.height, self.cameras.width)
        if self.images.shape[-2:] != size:
            raise ValueError(f"images are {tuple(self.images.shape[-2:])}, their cameras {size}")

    def __len__(self) -> int:
        return len(self.cameras)

    def __getitem__(self, index: Any) -> Views:
        return replace(
            self, **{item.name: _indexed(getattr(self, item.name), index) for item in fields(self)}
        )

    def to(self, *args: Any, **kwargs: Any) -> Views:
        """As `Tensor.to`, for every tensor."""
        moved = {
            item.name: getattr(self, item.name).to(*args, **kwargs)
            for item in fields(self)
            if isinstance(getattr(self, item.name), (Tensor, Cameras))
        }
        return replace(self, **moved)


@dataclass
class Rendering:
    """What a method renders for cameras [...].

    image: [..., 3, H, W] in [0, 1] (a leading sample axis where a method draws several). depth: [..., 1, H,
    W] z-depth, 0 where nothing is hit. opacity: [..., 1, H, W] in [0, 1]: how much of the pixel the method's
    content covers. extras: further maps by name.
    """

    image: Tensor
    depth: Tensor | None = None
    opacity: Tensor | None = None
    extras: dict[str, Tensor] = field(default_factory=dict)

    def covered(self) -> Tensor:
        """[..., 1, H, W] {0, 1} float mask of pixels whose opacity is at least one half; all ones when
        unknown.
        """
        if self.opacity is None:
            return torch.ones_like(self.image[..., :1, :, :])
        return (self.opacity >= 0.5).to(self.image.dtype)
