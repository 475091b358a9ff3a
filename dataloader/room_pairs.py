"""Image pairs of procedural rooms, with exact depth: as many as wanted, deterministic, nothing on disk."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from dataloader.pairs import Canvas, Pair
from dataloader.toy import make_boxes, make_cameras, render
from geometry.lifting import depth_scale, lift_depth
from geometry.warp import render_lifted

_VIEWS = 8  # cameras on the arc of a room, 10 degrees apart
_FARTHEST = 3  # cameras between those of a pair, at most
_BOXES = 6


@dataclass
class RoomPairs:
    """Pairs from rooms of seeds `first`, `first + 1`, ...: room i gives pair i.

    size: side of the square images in pixels. small: of the small warps. max_angle: degrees, as `lift_depth`.
    What was made once is kept, in 8 bits.
    """

    count: int
    first: int
    size: int
    small: int
    max_angle: float = 70.0
    has_warps: bool = True
    _made: dict[int, Pair] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return self.count

    def name(self, index: int) -> str:
        return f"room{self.first + index}"

    def pair(self, index: int) -> Pair:
        """Pair `index`; its two cameras are drawn from the room's seed."""
        if index not in self._made:
            self._made[index] = self._make(index)
        pair = self._made[index]
        images = {
            name: _decoded(getattr(pair, name))
            for name in ("source", "target", "warp", "small_warp", "coverage")
        }
        return Pair(**{**vars(pair), **images})

    def _make(self, index: int) -> Pair:
        seed = self.first + index
        boxes = make_boxes(seed, _BOXES)
        cameras = make_cameras(seed, _VIEWS, self.size, self.size, boxes)
        generator = torch.Generator().manual_seed(seed)
        here = int(torch.randint(_VIEWS, (1,), generator=generator))
        near = [v for v in range(_VIEWS) if 0 < abs(v - here) <= _FARTHEST]
        there = near[int(torch.randint(len(near), (1,), generator=generator))]
        views = render(boxes, cameras[torch.tensor([here, there])])
        assert views.depth is not None
        depth = views.depth[0, 0]
        surface = lift_depth(depth, cameras[here], views.images[0].permute(1, 2, 0), self.max_angle)
        warp = render_lifted(surface, cameras[there])
        assert warp.opacity is not None
        faded = warp.image * warp.opacity
        small = torch.nn.functional.interpolate(
            faded[None], size=(self.small, self.small), mode="bilinear", antialias=True
        )[0]
        canvas = Canvas(self.size, 0, 0, self.size, self.size)
        return Pair(
            name=self.name(index),
            scene=self.name(index),
            source=_encoded(views.images[0]),
            target=_encoded(views.images[1]),
            source_canvas=canvas,
            target_canvas=canvas,
            source_camera=cameras[here],
            target_camera=cameras[there],
            scale=depth_scale(depth),
            warp=_encoded(faded),
            small_warp=_encoded(small),
            coverage=_encoded(warp.opacity),
        )


def _encoded(image: Tensor) -> Tensor:
    return (image.clamp(0, 1) * 255).round().to(torch.uint8)


def _decoded(image: Tensor) -> Tensor:
    return image.float() / 255
