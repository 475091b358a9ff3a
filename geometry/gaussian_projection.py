"""3D Gaussians projected into an image, and the tiles that each of them touches.

Elliptical weighted averages (Zwicker et al. 2001; Kerbl et al. 2023) with the antialiasing of Yu et al. 2024
(Mip-Splatting) and the constants of specs/scene_lifting 3.5.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from geometry.cameras import Cameras
from geometry.gaussians import Gaussians

TILE = 16  # pixels a side: Gaussians are looked up by tiles
NEAR = 0.01  # depth units: nothing nearer is drawn
BLUR = 0.3  # squared pixels, added to every Gaussian's extent
MIN_ALPHA, MAX_ALPHA = 1 / 255, 0.999
OPAQUE = 1e-4  # what may still shine through when blending ends
_MARGIN = 1.3  # of the field of view, within which perspective is linearised where a Gaussian is


@dataclass
class Projected:
    """Gaussians in an image. Those that are not seen have radius 0.

    xy: [G, 2] pixels. z: [G] depth. conics: [G, 3], a, b, c of the inverse covariance [[a, b], [b, c]].
    opacities: [G], with what antialiasing takes away. radius: [G] whole pixels, three standard deviations.
    """

    xy: Tensor
    z: Tensor
    conics: Tensor
    opacities: Tensor
    radius: Tensor


def project_gaussians(gaussians: Gaussians, camera: Cameras, w2c: Tensor) -> Projected:
    """Project Gaussians into the image of a single camera at pose w2c [4, 4]."""
    local = gaussians.means @ w2c[:3, :3].T + w2c[:3, 3]
    seen = local[:, 2] > NEAR
    x, y, z = torch.where(seen[:, None], local, local.new_tensor([0.0, 0.0, 1.0])).unbind(-1)
    fx, fy, cx, cy = camera.K[0, 0], camera.K[1, 1], camera.K[0, 2], camera.K[1, 2]
    xx, xy, yy = _image_covariances(gaussians.covariances(), torch.stack([x, y, z], -1), camera, w2c).unbind(
        -1
    )
    sharp = xx * yy - xy * xy
    xx, yy = xx + BLUR, yy + BLUR
    blurred = xx * yy - xy * xy
    compensation = (sharp / blurred).clamp(min=1e-12).sqrt()
    with torch.no_grad():
        middle = (xx + yy) / 2
        radius = (3 * (middle + (middle**2 - blurred).clamp(min=0.1).sqrt()).sqrt()).ceil()
    return Projected(
        xy=torch.stack([fx * x / z + cx, fy * y / z + cy], dim=-1),
        z=z,
        conics=torch.stack([yy, -xy, xx], dim=-1) / blurred[:, None],
        opacities=gaussians.opacity_logits[:, 0].sigmoid() * compensation,
        radius=torch.where(seen, radius, 0),
    )


def _image_covariances(covariances: Tensor, local: Tensor, camera: Cameras, w2c: Tensor) -> Tensor:
    """xx, xy, yy [G, 3] of covariances [G, 3, 3] (world) around camera-space positions [G, 3], in pixels.

    Perspective is linearised at the position, or at the border of a slightly wider field of view.
    """
    x, y, z = local.unbind(-1)
    fx, fy, cx, cy = camera.K[0, 0], camera.K[1, 1], camera.K[0, 2], camera.K[1, 2]
    limit_x = _MARGIN * torch.maximum(cx, camera.width - cx) / fx
    limit_y = _MARGIN * torch.maximum(cy, camera.height - cy) / fy
    slope_x = torch.minimum(torch.maximum(x / z, -limit_x), limit_x)
    slope_y = torch.minimum(torch.maximum(y / z, -limit_y), limit_y)
    zero = torch.zeros_like(z)
    jacobian = torch.stack(
        [
            torch.stack([fx / z, zero, -fx * slope_x / z], dim=-1),
            torch.stack([zero, fy / z, -fy * slope_y / z], dim=-1),
        ],
        dim=-2,
    )  # [G, 2, 3]
    onto = jacobian @ w2c[:3, :3]
    # Projecting the axes of a Gaussian would be shorter, but gradients of symmetric matrices are exactly
    # symmetric, so that the rotation of a round Gaussian has none. Adam would blow rounding errors up.
    image = onto @ covariances @ onto.transpose(-1, -2)
    return torch.stack([image[:, 0, 0], image[:, 0, 1], image[:, 1, 1]], dim=-1)


@torch.no_grad()
def tile_lists(projected: Projected, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Which Gaussians each tile has to look at, nearest first.

    Tiles are counted row by row. Returns indices [N] of Gaussians, tile after tile, and where each tile's
    begin, [T + 1].
    """
    tiles = projected.xy.new_tensor([-(-width // TILE), -(-height // TILE)])
    order = projected.z.argsort(stable=True)
    order = order[projected.radius[order] > 0]
    center, reach = projected.xy[order] / TILE, projected.radius[order, None] / TILE
    first = torch.minimum((center - reach).trunc().clamp(min=0), tiles).long()
    end = torch.minimum((center + reach + 1).trunc().clamp(min=0), tiles).long()
    span = (end - first).clamp(min=0)
    count = span.prod(-1)
    item = torch.repeat_interleave(torch.arange(len(order), device=count.device), count)
    inner = torch.arange(len(item), device=count.device) - (count.cumsum(0) - count)[item]
    column = first[item, 0] + inner % span[item, 0]
    row = first[item, 1] + torch.div(inner, span[item, 0], rounding_mode="floor")
    tile, by_tile = (row * int(tiles[0]) + column).sort(stable=True)
    sizes = torch.bincount(tile, minlength=int(tiles.prod()))
    return order[item[by_tile]], torch.nn.functional.pad(sizes.cumsum(0), (1, 0))
