"""Training samples: keyed draws, with replacement, of pixels that see the surface."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from common.errors import UserError
from dataloader.surface_rays import RaySource, SurfaceRays
from engine.sampling import generator
from geometry.cameras import Cameras
from methods.hash_manifold.surface import Surface

log = logging.getLogger(__name__)

_MOST_REDRAWS = 16  # of the pixels that miss the surface


@dataclass
class PixelSample:
    """N pixels, S surface samples each.

    face: [N, S] int64, -1 for a miss. barycentric: [N, S, 3]. color: [N, 3] uint8. photo: [N] int64, row of
    the exposure table. eye: [N, 3] camera centres, in the surface's frame.
    """

    face: Tensor
    barycentric: Tensor
    color: Tensor
    photo: Tensor
    eye: Tensor

    def to(self, device: torch.device) -> PixelSample:
        """The same pixels on a device."""
        return replace(self, **{item.name: getattr(self, item.name).to(device) for item in fields(self)})


class PixelSamples:
    """Every draw is `rays` pixels of all photos alike, or `rays` of each of `views` photos.

    rays_of: where pixels and what they see come from, some at least. cameras: [V] of its photos. surface:
    sets the frame of the camera centres.
    """

    size = None

    def __init__(
        self, rays_of: RaySource, cameras: Cameras, surface: Surface, rays: int, views: int = 0
    ) -> None:
        self.rays_of, self.rays, self.views = rays_of, rays, views
        self.eyes = surface.relative(cameras.center).cpu()
        self.ends = rays_of.sizes.cumsum(0)
        total = int(self.ends[-1])
        if total < rays:
            log.warning(
                "the training photos offer %d pixels, model.rays asks for %d: pixels repeat within a step",
                total,
                rays,
            )

    def draw(self, index: int, seed: int) -> PixelSample:
        """Pixels that see the surface, chosen by the seed. Raises UserError when none is found."""
        source = generator(seed)
        if not self.views:
            return self._sample(lambda count: self._anywhere(count, source), self.rays)
        offered = (self.rays_of.sizes > 0).nonzero()[:, 0]
        chosen = offered[torch.randperm(len(offered), generator=source)[: self.views]]
        return self._sample(lambda count: self._in_photos(chosen, count, source), self.rays * len(chosen))

    def _sample(self, pick: Callable[[int], tuple[Tensor, Tensor]], count: int) -> PixelSample:
        photo, row = pick(count)
        rays = self.rays_of.take(photo, row)
        for _ in range(_MOST_REDRAWS):
            missed = (rays.face < 0).all(1).nonzero()[:, 0]
            if not len(missed):
                break
            photo, row = pick(len(missed))
            _put(rays, missed, self.rays_of.take(photo, row))
        return self._with_cameras(_repeat_hits(rays))

    def _anywhere(self, count: int, source: torch.Generator) -> tuple[Tensor, Tensor]:
        """Photos and rows [count] of pixels drawn alike from all photos."""
        flat = (torch.rand(count, generator=source, dtype=torch.float64) * int(self.ends[-1])).long()
        photo = torch.searchsorted(self.ends, flat, right=True)
        return photo, flat - self.ends[photo] + self.rays_of.sizes[photo]

    def _in_photos(self, photos: Tensor, count: int, source: torch.Generator) -> tuple[Tensor, Tensor]:
        """Photos and rows [count], as many from each of `photos`."""
        photo = photos[torch.arange(count) % len(photos)]
        row = torch.rand(count, generator=source, dtype=torch.float64) * self.rays_of.sizes[photo]
        return photo, row.long()

    def _with_cameras(self, rays: SurfaceRays) -> PixelSample:
        return PixelSample(rays.face, rays.barycentric, rays.color, rays.view, self.eyes[rays.view])

    def collate(self, items: list[PixelSample]) -> PixelSample:
        """One sample of all the items' pixels."""
        names = [item.name for item in fields(PixelSample)]
        return PixelSample(*(torch.cat([getattr(item, name) for item in items]) for name in names))

    def name(self, index: int) -> str:
        return f"draw {index}"


def _put(rays: SurfaceRays, rows: Tensor, values: SurfaceRays) -> None:
    for item in fields(SurfaceRays):
        getattr(rays, item.name)[rows] = getattr(values, item.name)


def _repeat_hits(rays: SurfaceRays) -> SurfaceRays:
    """Replace what still misses the surface by copies of what hits it."""
    hit = (rays.face >= 0).any(1)
    if hit.all():
        return rays
    if not hit.any():
        raise UserError("none of the pixels drawn sees the mesh: do mesh and cameras share one frame?")
    rows = hit.nonzero()[:, 0]
    missed = (~hit).nonzero()[:, 0]
    copies = rows[torch.arange(len(missed)) % len(rows)]
    _put(rays, missed, SurfaceRays(*(getattr(rays, item.name)[copies] for item in fields(SurfaceRays))))
    return rays
