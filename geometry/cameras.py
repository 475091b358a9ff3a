"""Pinhole cameras with any leading batch shape, and operations that keep intrinsics in step with images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor


@dataclass
class Cameras:
    """A batch of pinhole cameras that share one image size.

    K: [..., 3, 3] intrinsics in pixels, pixel centres at +0.5.
    c2w: [..., 4, 4] camera-to-world, OpenCV axes (x right, y down, z forward), world units.
    height, width: image size in pixels.
    time: [...] optional time stamps (any unit the scene uses).

    Raises ValueError for wrong shapes. K and c2w may be float32 or float64; operations keep the dtype.
    """

    K: Tensor
    c2w: Tensor
    height: int
    width: int
    time: Tensor | None = None

    def __post_init__(self) -> None:
        if (
            self.K.shape[-2:] != (3, 3)
            or self.c2w.shape[-2:] != (4, 4)
            or self.K.shape[:-2] != self.c2w.shape[:-2]
        ):
            raise ValueError(
                f"need K [..., 3, 3] and c2w [..., 4, 4], got {tuple(self.K.shape)}, {tuple(self.c2w.shape)}"
            )
        if self.time is not None and self.time.shape != self.shape:
            raise ValueError(f"time has shape {tuple(self.time.shape)}, the cameras have {tuple(self.shape)}")

    @property
    def shape(self) -> torch.Size:
        """Leading batch shape; empty for a single camera."""
        return self.K.shape[:-2]

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("a single camera has no length")
        return self.shape[0]

    def __getitem__(self, index: Any) -> Cameras:
        time = None if self.time is None else self.time[index]
        return replace(self, K=self.K[index], c2w=self.c2w[index], time=time)

    def to(self, *args: Any, **kwargs: Any) -> Cameras:
        """As `Tensor.to`: move to a device or change the dtype of every tensor."""
        time = None if self.time is None else self.time.to(*args, **kwargs)
        return replace(self, K=self.K.to(*args, **kwargs), c2w=self.c2w.to(*args, **kwargs), time=time)

    def reshape(self, *shape: int) -> Cameras:
        """Change the leading batch shape."""
        time = None if self.time is None else self.time.reshape(shape)
        return replace(self, K=self.K.reshape(*shape, 3, 3), c2w=self.c2w.reshape(*shape, 4, 4), time=time)

    @property
    def w2c(self) -> Tensor:
        """[..., 4, 4] world-to-camera: the inverse of c2w."""
        return torch.linalg.inv(self.c2w)

    @property
    def center(self) -> Tensor:
        """[..., 3] camera centres in the world."""
        return self.c2w[..., :3, 3]

    @property
    def focal(self) -> Tensor:
        """[..., 2] focal lengths (fx, fy) in pixels."""
        return torch.stack([self.K[..., 0, 0], self.K[..., 1, 1]], dim=-1)

    def pixel_centers(self) -> Tensor:
        """[H, W, 2] pixel coordinates (x, y) of every pixel centre."""
        y = torch.arange(self.height, dtype=self.K.dtype, device=self.K.device) + 0.5
        x = torch.arange(self.width, dtype=self.K.dtype, device=self.K.device) + 0.5
        return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)

    def _local_directions(self, pixels: Tensor) -> Tensor:
        """Camera-space points at depth 1 for pixels [..., N, 2] -> [..., N, 3]."""
        homogeneous = torch.cat([pixels, torch.ones_like(pixels[..., :1])], dim=-1)
        return homogeneous @ torch.linalg.inv(self.K).transpose(-1, -2)

    def rays(self, pixels: Tensor | None = None, unit: bool = True) -> tuple[Tensor, Tensor]:
        """World-space rays through pixels.

        pixels: [..., N, 2] pixel coordinates (x, y); all pixel centres when None.
        unit: normalise the directions; otherwise their camera-space z is 1, so that origin + z * direction
        has depth z. Returns origins and directions, [..., N, 3], or [..., H, W, 3] when pixels is None.
        """
        grid = pixels is None
        if pixels is None:
            pixels = self.pixel_centers().reshape(-1, 2).expand(*self.shape, -1, 2)
        directions = self._local_directions(pixels) @ self.c2w[..., :3, :3].transpose(-1, -2)
        if unit:
            directions = torch.nn.functional.normalize(directions, dim=-1)
        origins = self.center[..., None, :].expand_as(directions)
        if grid:
            shape = (*self.shape, self.height, self.width, 3)
            return origins.reshape(shape), directions.reshape(shape)
        return origins, directions

    def project(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Project world points [..., N, 3] -> pixels [..., N, 2] and z-depth [..., N].

        Points on or behind the camera plane (depth <= 0) get non-finite or mirrored pixels: test the depth.
        """
        w2c = self.w2c
        local = points @ w2c[..., :3, :3].transpose(-1, -2) + w2c[..., None, :3, 3]
        image = local @ self.K.transpose(-1, -2)
        return image[..., :2] / image[..., 2:], local[..., 2]

    def unproject(self, depth: Tensor) -> Tensor:
        """Lift z-depth maps [..., H, W] to world points [..., H, W, 3] through the pixel centres."""
        if depth.shape[-2:] != (self.height, self.width):
            raise ValueError(f"depth is {tuple(depth.shape[-2:])}, the camera is {(self.height, self.width)}")
        local = self._local_directions(self.pixel_centers().reshape(-1, 2)) * depth.flatten(-2)[..., None]
        world = local @ self.c2w[..., :3, :3].transpose(-1, -2) + self.center[..., None, :]
        return world.reshape(*depth.shape, 3)

    def resize(self, height: int, width: int) -> Cameras:
        """The cameras of the same images resampled to height x width (x and y scale separately)."""
        scale = torch.tensor(
            [width / self.width, height / self.height, 1.0], dtype=self.K.dtype, device=self.K.device
        )
        return replace(self, K=self.K * scale[:, None], height=height, width=width)

    def crop(self, top: int, left: int, height: int, width: int) -> Cameras:
        """The cameras of the window that starts at (top, left); negative values pad."""
        K = self.K.clone()
        K[..., 0, 2] -= left
        K[..., 1, 2] -= top
        return replace(self, K=K, height=height, width=width)

    def relative_to(self, reference: Cameras) -> Cameras:
        """The same cameras in the frame of a reference camera (which then sits at the identity)."""
        return replace(self, c2w=reference.w2c @ self.c2w)

    def with_poses(self, c2w: Tensor) -> Cameras:
        """These intrinsics (broadcast) at new poses c2w [..., 4, 4]."""
        K = self.K.to(c2w.dtype).expand(*c2w.shape[:-2], 3, 3).clone()
        return Cameras(K, c2w, self.height, self.width)


def stack_cameras(cameras: Sequence[Cameras]) -> Cameras:
    """Stack cameras of one image size along a new first axis. Raises ValueError when sizes differ."""
    sizes = {(camera.height, camera.width) for camera in cameras}
    if len(sizes) != 1:
        raise ValueError(f"cameras of different image sizes cannot be stacked: {sorted(sizes)}")
    times = [camera.time for camera in cameras]
    time = None if any(t is None for t in times) else torch.stack([t for t in times if t is not None])
    height, width = next(iter(sizes))
    return Cameras(
        torch.stack([c.K for c in cameras]), torch.stack([c.c2w for c in cameras]), height, width, time
    )


def pinhole(focal: float, height: int, width: int, c2w: Tensor | None = None) -> Cameras:
    """One float64 camera with square pixels and the principal point at the image centre; identity pose by
    default.
    """
    K = torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]], dtype=torch.float64)
    return Cameras(K, torch.eye(4, dtype=torch.float64) if c2w is None else c2w, height, width)
