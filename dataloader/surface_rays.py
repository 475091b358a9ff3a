"""Photo pixels with the surface points they show: what a surface renderer trains from.

A `RaySource` hands out rays by (view, row). `CastRays` casts them when they are asked for; `RayCache`
(dataloader.ray_cache) reads them from disk.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.cli import progress
from common.errors import UserError
from dataloader.images import fit_size, resize_image
from dataloader.scene import Record, Scene
from geometry.cameras import Cameras
from geometry.meshes import Mesh
from geometry.rasterize import Rasterizer

logger = logging.getLogger(__name__)

_TRIED = 2011  # pixels per view; prime, so that they do not line up in columns


@dataclass
class SurfaceRays:
    """Pixels and the mesh under their sub-samples.

    face: [N, S] int64, triangle seen by each of the S = s * s sub-samples of a pixel, -1 where it misses the
    mesh; sub-sample m = i * s + j lies at row (i + 0.5) / s and column (j + 0.5) / s of the pixel.
    barycentric: [N, S, 3] float32, weights of the triangle's corners, 0 for a miss. color: [N, 3] uint8, the
    photo. view: [N] int64, position in the source's list of views.
    """

    face: Tensor
    barycentric: Tensor
    color: Tensor
    view: Tensor

    def __len__(self) -> int:
        return len(self.view)

    @property
    def covered(self) -> Tensor:
        """[N, S] bool: which sub-samples see the mesh."""
        return self.face >= 0

    def interpolate(self, faces: Tensor, attributes: Tensor) -> Tensor:
        """Attributes [V, C] of the vertices (positions, normals) at the sub-samples [N, S, C], 0 for misses.

        faces: [F, 3] of the mesh. Differentiable in the attributes.
        """
        corners = attributes[faces[self.face.clamp(min=0)]]  # [N, S, 3, C]
        return (corners * self.barycentric[..., None].to(attributes.dtype)).sum(-2)

    def to(self, device: torch.device | str) -> SurfaceRays:
        """The same rays on a device."""
        return replace(self, **{name: value.to(device) for name, value in vars(self).items()})


class RaySource(Protocol):
    """Rays of a list of views.

    sizes: [V] int64, how many rays each view offers (0 where a view sees nothing).
    """

    sizes: Tensor

    def take(self, view: Tensor, row: Tensor) -> SurfaceRays:
        """The rays row [N] (each below sizes[view]) of the views [N], int64 both, in this order."""
        ...


class CastRays:
    """All pixels of the chosen photos, cast when they are asked for; the photos are held as uint8.

    surface: the mesh, or a rasteriser of it. supersample: s, sub-samples per pixel side. max_size: long side
    to which larger photos are reduced, 0 for none. Row r of a view is its pixel (r // width, r % width);
    pixels that miss the mesh have face -1 throughout. Casting is Embree's, results lie on the CPU.

    cameras: [V], float64; each belongs to its photo's (height, width) in `shapes`, the batch's own size means
    nothing. A view of which none of `_TRIED` pixels hits the mesh is named in a warning and offers no rays.
    Raises UserError for indices that are out of range, none at all, photos that cannot be read, or when no
    view sees the mesh.
    """

    def __init__(
        self,
        scene: Scene,
        indices: Sequence[int],
        surface: Mesh | Rasterizer,
        supersample: int = 1,
        max_size: int = 0,
    ) -> None:
        self.supersample = supersample
        self._rasterizer = Rasterizer(surface) if isinstance(surface, Mesh) else surface
        records = chosen_records(scene, indices)
        cameras = [record_camera(record, max_size) for record in records]
        self.cameras = mixed_cameras(cameras)
        self.shapes = torch.tensor([(camera.height, camera.width) for camera in cameras])
        self.sizes = self.shapes.prod(-1)
        self._starts = self.sizes.cumsum(0) - self.sizes
        self._colors = torch.empty(int(self.sizes.sum()), 3, dtype=torch.uint8)
        for i, record in enumerate(progress(records, "photos", unit="photo", leave=False)):
            photo = torch.from_numpy(load_photo(record, cameras[i]).copy())
            self._colors[self._starts[i] : self._starts[i] + self.sizes[i]] = photo.reshape(-1, 3)
        self._leave_out_blind_views(scene, records)

    def _leave_out_blind_views(self, scene: Scene, records: Sequence[Record]) -> None:
        counts = self.sizes.clamp(max=_TRIED)
        view = torch.arange(len(counts)).repeat_interleave(counts)
        step = torch.cat([torch.arange(int(count)) for count in counts])
        row = step * self.sizes[view] // counts[view]
        hit = self.take(view, row).covered.any(-1)
        seen = torch.zeros(len(counts), dtype=torch.int64).index_add_(0, view, hit.long()) > 0
        if not seen.any():
            raise UserError(nothing_seen(scene, records))
        for i in (~seen).nonzero()[:, 0].tolist():
            logger.warning(
                "view %s is left out: none of %d pixels tried sees the mesh", records[i].name, counts[i]
            )
            self.sizes[i] = 0

    def take(self, view: Tensor, row: Tensor) -> SurfaceRays:
        """Cast the pixels row [N] of the views [N] (see `RaySource`)."""
        pixel = torch.stack([row % self.shapes[view, 1], row // self.shapes[view, 1]], dim=-1)
        face, barycentric = cast_pixels(self._rasterizer, self.cameras, view, pixel, self.supersample)
        return SurfaceRays(face, barycentric, self._colors[self._starts[view] + row], view)


def nothing_seen(scene: Scene, records: Sequence[Record]) -> str:
    """The message that no photo sees the scene's mesh, and where both lie."""
    vertices = scene.mesh().vertices.double()
    centers = torch.stack([record.camera.center for record in records])
    return (
        f"scene {scene.name}: none of the {len(records)} views sees the mesh, which lies within "
        f"{_box(vertices)}, the cameras within {_box(centers)}: bring both to one frame and scale"
    )


def _box(points: Tensor) -> str:
    low, high = points.min(0).values.tolist(), points.max(0).values.tolist()
    return " x ".join(f"[{a:.4g}, {b:.4g}]" for a, b in zip(low, high, strict=True))


def chosen_records(scene: Scene, indices: Sequence[int]) -> list[Record]:
    """The records of a scene by index. Raises UserError for none, or an index that is out of range."""
    if not len(indices):
        raise UserError(f"scene {scene.name}: no view was chosen")
    for index in indices:
        if not 0 <= index < len(scene):
            raise UserError(f"scene {scene.name} has no view {index}: choose from 0 to {len(scene) - 1}")
    return [scene.records[index] for index in indices]


def record_camera(record: Record, max_size: int) -> Cameras:
    """The camera of a photo whose long side is reduced to max_size (0: as it is)."""
    camera = record.camera
    return camera.resize(*fit_size(camera.height, camera.width, max_size))


def load_photo(record: Record, camera: Cameras) -> NDArray[np.uint8]:
    """The photo [H, W, 3] at the camera's size."""
    return resize_image(record.load(), (camera.height, camera.width))


def mixed_cameras(cameras: Sequence[Cameras]) -> Cameras:
    """Cameras [V] of photos of any size, for `Rasterizer.at_pixels`; the batch has the first one's size."""
    K = torch.stack([camera.K for camera in cameras])
    return Cameras(K, torch.stack([c.c2w for c in cameras]), cameras[0].height, cameras[0].width)


def cast_pixels(
    rasterizer: Rasterizer, cameras: Cameras, view: Tensor, pixel: Tensor, supersample: int
) -> tuple[Tensor, Tensor]:
    """Face [N, S] and barycentric [N, S, 3] under the sub-samples of pixels [N, 2] (column, row), on the CPU.

    view: [N] int64, or [1] for one camera. Every caller goes through here, so that equal pixels give equal
    bits.
    """
    steps = (torch.arange(supersample, dtype=torch.float64) + 0.5) / supersample
    i, j = torch.meshgrid(steps, steps, indexing="ij")
    samples = pixel[:, None] + torch.stack([j.flatten(), i.flatten()], dim=-1)  # [N, S, 2]
    face, barycentric, _ = rasterizer.at_pixels(cameras, view[:, None], samples)
    return face.cpu(), barycentric.cpu()
