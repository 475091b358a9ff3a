"""Multi-plane images made of a formula or of a photo with depth, and how they look from elsewhere."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from geometry.cameras import Cameras, pinhole
from geometry.planes import PlaneImage, composite, disparity_rows, plane_depths, plane_homographies


def painted(premultiplied: bool = False, backdrop: bool = False, planes: int = 6) -> PlaneImage:
    """Planes of 96 x 64 with waves of colour; soft discs on all but the farthest, which is opaque. Posed."""
    camera = pinhole(80.0, 64, 96, some_pose())
    y, x = torch.meshgrid(torch.arange(64) + 0.5, torch.arange(96) + 0.5, indexing="ij")
    layers = torch.ones(planes, 64, 96, 4)
    for k in range(planes):
        for c in range(3):
            layers[k, ..., c] = 0.5 + 0.5 * torch.sin((0.3 + 0.05 * c) * x + (0.2 - 0.1 * c) * y + k + 2 * c)
        if k:
            apart = torch.hypot(x - 96 * (0.15 + 0.7 * k / planes), y - 32 - 14 * (-1) ** k)
            layers[k, ..., 3] = ((17 - 2 * k - apart) / 4).clamp(0, 1) * (0.7 if k == 2 else 1)
    if premultiplied:
        layers[..., :3] *= layers[..., 3:]
    depths = plane_depths(torch.tensor(2.0, dtype=torch.float64), 20.0, planes)
    return PlaneImage(layers, depths, camera, premultiplied, backdrop)


def some_pose() -> Tensor:
    """c2w [4, 4] that has nothing straight."""
    rotation, _ = torch.linalg.qr(torch.tensor([[1.0, 0.2, 0.3], [-0.1, 1, 0.4], [-0.3, -0.2, 1]]).double())
    rotation = rotation * rotation.diagonal().sign()
    c2w = torch.eye(4, dtype=torch.float64)
    c2w[:3, :3], c2w[:3, 3] = rotation, torch.tensor([0.5, -2.0, 3.0])
    return c2w


def sliced_photo(planes: int = 12) -> PlaneImage:
    """A photo of a motorcycle, 185 x 125, cut into planes along its true depth."""
    from skimage.data import stereo_motorcycle

    left, _, disparity = stereo_motorcycle()
    image = torch.from_numpy(left[: 125 * 4, : 185 * 4].copy()).permute(2, 0, 1)[None].float() / 255
    image = torch.nn.functional.avg_pool2d(image, 4)[0].permute(1, 2, 0)
    shift = np.where(np.isfinite(disparity), disparity, np.nanmin(disparity))[
        2 : 125 * 4 : 4, 2 : 185 * 4 : 4
    ]
    inverse = torch.from_numpy(shift + 31.086).double() / (994.978 * 0.193)  # 1 / metres
    depths = plane_depths(1 / inverse.max(), 1 / inverse.min(), planes)
    place = (inverse - 1 / depths[0]) / (1 / depths[1] - 1 / depths[0])  # between planes
    k = torch.arange(planes)[:, None, None]
    alpha = (1 - (place - k).abs()).clamp(0, 1).where(place < k, (place < k + 1.5).double())
    alpha[0] = 1
    layers = torch.cat([image.expand(planes, *image.shape), alpha[..., None].float()], -1)
    return PlaneImage(layers, depths, pinhole(994.978 / 4, 125, 185))


def seen_from(planes: PlaneImage, x: float = 0.0, y: float = 0.0, z: float = 0.0) -> Tensor:
    """[3, H, W]: the planes from a place in the reference camera's axes."""
    reference = planes.camera
    step = torch.eye(4, dtype=reference.c2w.dtype)
    step[:3, 3] = torch.tensor([x, y, z])
    target = Cameras(reference.K[None], (reference.c2w @ step)[None], reference.height, reference.width)
    maps = plane_homographies(reference, target, planes.depths)
    rows = disparity_rows(maps, planes.depths)
    size, flags = (reference.height, reference.width), (planes.premultiplied, planes.backdrop)
    return composite(planes.layers[None], maps[None], rows[None], *size, *flags).color[0, 0]


def decibels(image: Tensor, wanted: Tensor) -> float:
    """PSNR of images in [0, 1]."""
    return float(-10 * torch.log10((image - wanted).square().mean()))
