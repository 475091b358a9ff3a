"""Planes that face a reference camera: plane sweeps of photos, and multi-plane images seen from elsewhere.

Plane 0 is the farthest. Depths are z in the reference camera, evenly spaced in inverse depth. All of it is
from *Deep 3D Mask Volume* (Lin et al., ICCV 2021; specs/mask_volume 3), on cameras with OpenCV axes and pixel
centres at +0.5. `composite` here is the readable twin of the compiled renderers (`geometry.plane_render`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import grid_sample, pad

from geometry.cameras import Cameras

Beyond = Literal["flag", "edge"]  # what a plane sweep holds where a photo does not reach: see `sweep`

# Where a plane sweep samples a photo. consistent: at the projected point. original: pulled towards the middle
# by up to half a pixel, as published weights saw it (specs/mask_volume 3.4).
Sampling = Literal["consistent", "original"]

OUT_OF_VIEW = -1.0  # what a plane sweep holds where a photo does not reach
_TINY = 1e-8  # keeps what shines through, and denominators, off zero (specs/mask_volume 3.3, 3.5)


@dataclass
class PlaneImage:
    """A multi-plane image.

    layers: [..., D, H, W, 4] RGBA, far to near. depths: [..., D] z-depth in the reference camera. camera: the
    reference [...], whose size the layers have. premultiplied: whether colours are multiplied by alpha.
    backdrop: whether the farthest plane goes on beyond its edges, with the colours it has there.
    """

    layers: Tensor
    depths: Tensor
    camera: Cameras
    premultiplied: bool = False
    backdrop: bool = False

    def __post_init__(self) -> None:
        size = (self.camera.height, self.camera.width, 4)
        if self.layers.shape[-3:] != size or self.layers.shape[:-3] != self.depths.shape:
            raise ValueError(
                f"layers {tuple(self.layers.shape)} do not fit depths {tuple(self.depths.shape)} and a "
                f"camera of {size[1]}x{size[0]}"
            )

    def to(self, *args: Any, **kwargs: Any) -> PlaneImage:
        """As `Tensor.to`, for every tensor."""
        return replace(
            self,
            layers=self.layers.to(*args, **kwargs),
            depths=self.depths.to(*args, **kwargs),
            camera=self.camera.to(*args, **kwargs),
        )


@dataclass
class Composite:
    """Planes seen from N cameras. color: [..., N, 3, h, w], black where nothing is. alpha: [..., N, 1, h, w].

    disparity: [..., N, 1, h, w] sum over planes of weight times disparity, not divided by alpha.
    """

    color: Tensor
    alpha: Tensor
    disparity: Tensor

    @property
    def depth(self) -> Tensor:
        """[..., N, 1, h, w] z-depth of what is seen, whose inverse is averaged; 0 where nothing is."""
        return torch.where(self.disparity > 0, self.alpha / self.disparity.clamp(min=_TINY**2), 0.0)


def plane_depths(near: Tensor | float, far: Tensor | float, count: int) -> Tensor:
    """Depths [..., count] from far to near, evenly spaced in inverse depth; near and far are [...].

    In the precision of `near` (float32 for numbers). Raises ValueError unless 0 < near < far and count >= 2.
    """
    near, far = torch.as_tensor(near), torch.as_tensor(far)
    if count < 2 or bool((near <= 0).any()) or bool((far <= near).any()):
        raise ValueError(f"need 0 < near < far and at least 2 planes, got {near}, {far}, {count}")
    if not near.is_floating_point():
        near = near.float()
    steps = torch.linspace(0, 1, count, dtype=near.dtype, device=near.device)
    first, last = 1 / far[..., None], 1 / near[..., None]
    return 1 / (first + (last - first) * steps)


def sweep_homographies(reference: Cameras, sources: Cameras, depths: Tensor) -> Tensor:
    """Maps [..., V, D, 3, 3] from reference pixels (x, y, 1) to pixels of each source, through each plane.

    reference: [...]. sources: [..., V]. depths: [..., D]. The third coordinate is the z-depth in the source
    over the plane's depth: positive in front of it.
    """
    to_source = sources.w2c @ reference.c2w[..., None, :, :]
    offset = torch.zeros_like(to_source[..., None, :3, :3]).repeat_interleave(depths.shape[-1], -3)
    offset[..., 2] = to_source[..., None, :3, 3] / depths[..., None, :, None].to(to_source)
    inverse = torch.linalg.inv(reference.K)[..., None, None, :, :]
    return sources.K[..., None, :, :] @ (to_source[..., None, :3, :3] + offset) @ inverse


def plane_homographies(reference: Cameras, targets: Cameras, depths: Tensor) -> Tensor:
    """Maps [..., N, D, 3, 3] from target pixels (x, y, 1) to reference pixels, through each plane.

    reference: [...]. targets: [..., N]. depths: [..., D]. The third coordinate is the plane's depth over the
    z-depth of the point in the target: not positive where the plane lies behind it (specs/mask_volume 3.5).
    """
    relative = targets.w2c @ reference.c2w[..., None, :, :]
    back = relative[..., None, :3, :3].transpose(-1, -2)  # R^T
    moved = back @ relative[..., None, :3, 3:]  # R^T t
    distance = -depths[..., None, :, None].to(moved) - moved[..., 2, :]
    distance = torch.where(distance == 0, torch.full_like(distance, _TINY), distance)
    middle = back + moved @ back[..., 2:3, :] / distance[..., None]
    inverse = torch.linalg.inv(targets.K)[..., None, :, :]
    return reference.K[..., None, None, :, :] @ middle @ inverse


def in_front(homographies: Tensor, height: int, width: int) -> Tensor:
    """Whether a plane lies in front of any pixel of a height x width target: [...] bool.

    homographies: [..., 3, 3] of `plane_homographies`. Their third coordinate is linear in the pixel, so that
    the corners decide.
    """
    x, y = _centers(height, width, homographies)
    corners = torch.stack([torch.stack([a, b, torch.ones_like(a)]) for a in x[[0, -1]] for b in y[[0, -1]]])
    return (homographies[..., 2, :] @ corners.T > 0).any(-1)


def disparity_rows(homographies: Tensor, depths: Tensor) -> Tensor:
    """Rows [..., N, D, 3] whose product with a target's pixel (x, y, 1) is the disparity seen there.

    homographies: [..., N, D, 3, 3] of `plane_homographies`. depths: [..., D].
    """
    return homographies[..., 2, :] / depths[..., None, :, None].to(homographies)


def _centers(height: int, width: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """The x [w] and y [h] of pixel centres."""
    return torch.arange(width).to(like) + 0.5, torch.arange(height).to(like) + 0.5


def map_pixels(homographies: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Every pixel centre of a height x width image, mapped: [..., h, w, 2]; third coordinates [..., h, w].

    Points that are not in front (third coordinate not positive) land far out of any image.
    """
    x, y = _centers(height, width, homographies)
    h = homographies[..., None, None, :, :]
    mapped = h[..., 0] * x[:, None] + h[..., 1] * y[:, None, None] + h[..., 2]  # [..., h, w, 3]
    ahead = mapped[..., 2]
    behind = ahead.clamp(min=0)
    return mapped[..., :2] / torch.where(behind <= 1e-20, behind + _TINY, behind)[..., None], ahead


def sweep(
    images: Tensor,
    sources: Cameras,
    reference: Cameras,
    depths: Tensor,
    sampling: Sampling = "consistent",
    beyond: Beyond = "flag",
) -> Tensor:
    """The plane sweep volume [..., V, C, D, H, W] of photos [..., V, C, h, w], in the reference's frame.

    sources: [..., V]. reference: [...], whose size the volume has. depths: [..., D]. beyond: where a photo
    does not reach, 'flag' gives `OUT_OF_VIEW`, into which its outermost pixels fade; 'edge' gives the colour
    of its nearest pixel.
    """
    maps = sweep_homographies(reference, sources, depths)
    scale = torch.tensor([sources.width, sources.height], dtype=maps.dtype, device=maps.device)
    shape = maps.shape[:-3]
    flat, maps = images.flatten(0, -4), maps.flatten(0, -4)  # [B, C, h, w], [B, D, 3, 3]
    volume = flat.new_empty(len(flat), flat.shape[1], depths.shape[-1], reference.height, reference.width)
    for plane in range(depths.shape[-1]):
        pixels, _ = map_pixels(maps[:, plane], reference.height, reference.width)
        grid = (pixels / scale * 2 - 1).clamp(-4, 4).to(flat)
        padding = "zeros" if beyond == "flag" else "border"
        shifted = grid_sample(flat - OUT_OF_VIEW, grid, "bilinear", padding, sampling == "original")
        volume[:, :, plane] = shifted + OUT_OF_VIEW
    return volume.unflatten(0, shape)


def in_view(sources: Cameras, reference: Cameras, depths: Tensor) -> Tensor:
    """Where each source reaches: [..., V, D, H, W] bool, for the planes of `sweep`."""
    maps = sweep_homographies(reference, sources, depths)
    planes = []
    for plane in range(depths.shape[-1]):
        pixels, ahead = map_pixels(maps[..., plane, :, :], reference.height, reference.width)
        x, y = pixels.unbind(-1)
        planes.append((ahead > 0) & (x >= 0) & (x <= sources.width) & (y >= 0) & (y <= sources.height))
    return torch.stack(planes, -3)


def warp_planes(
    layers: Tensor, homographies: Tensor, height: int, width: int, backdrop: bool = False
) -> Tensor:
    """Layers [B, D, H, W, C] resampled at mapped pixels: [B, N, D, height, width, C].

    homographies: [B, N, D, 3, 3] from the new pixels to the layers'. Bilinear; zero outside the layers and
    behind the camera. backdrop: the farthest plane goes on beyond its edges.
    """
    b, n, d = homographies.shape[:3]
    pixels, ahead = map_pixels(homographies.flatten(0, 2), height, width)
    size = torch.tensor([layers.shape[3], layers.shape[2]], dtype=pixels.dtype, device=pixels.device)
    grid = (pixels / size * 2 - 1).clamp(-4, 4).to(layers)
    flat = layers[:, None].expand(b, n, *layers.shape[1:]).flatten(0, 2).permute(0, 3, 1, 2)
    warped = grid_sample(flat, grid, "bilinear", "zeros", align_corners=False)
    warped = warped.unflatten(0, (b, n, d))
    if backdrop:
        far = grid.unflatten(0, (b, n, d))[:, :, 0].flatten(0, 1)
        source = flat.unflatten(0, (b, n, d))[:, :, 0].flatten(0, 1)
        clamped = grid_sample(source, far, "bilinear", "border", align_corners=False)
        warped = torch.cat([clamped.unflatten(0, (b, n))[:, :, None], warped[:, :, 1:]], 2)
    visible = (ahead > 0).unflatten(0, (b, n, d))[:, :, :, None]
    return (warped * visible).permute(0, 1, 2, 4, 5, 3)


def plane_weights(alpha: Tensor) -> Tensor:
    """How much of each plane is seen through those before it: alpha [..., D, h, w] -> weights, likewise.

    w_k = a_k * product over nearer planes of (1 - a + 1e-8) (specs/mask_volume 3.5).
    """
    return alpha * shining_through(alpha)


def shining_through(alpha: Tensor) -> Tensor:
    """What shines through the planes before each: alpha [..., D, h, w] -> likewise; 1 for the nearest."""
    through = torch.cumprod((1 - alpha + _TINY).flip(-3), -3).flip(-3)
    return pad(through[..., 1:, :, :], (0, 0, 0, 0, 0, 1), value=1.0)


def composite(
    layers: Tensor,
    homographies: Tensor,
    rows: Tensor,
    height: int,
    width: int,
    premultiplied: bool = False,
    backdrop: bool = False,
) -> Composite:
    """Layers [B, D, H, W, 4] seen from N cameras of height x width each, by plain tensor operations.

    homographies: [B, N, D, 3, 3] of `plane_homographies`. rows: [B, N, D, 3] of `disparity_rows`.
    premultiplied, backdrop: as in `PlaneImage`. Warps every plane, then adds them up (over operator).
    """
    warped = warp_planes(layers, homographies, height, width, backdrop)  # [B, N, D, h, w, 4]
    through = shining_through(warped[..., 3])
    weights = warped[..., 3] * through
    color = ((through if premultiplied else weights)[..., None] * warped[..., :3]).sum(2)
    x, y = _centers(height, width, rows)
    r = rows[..., None, None, :]
    disparity = (r[..., 0] * x + r[..., 1] * y[:, None] + r[..., 2]).to(weights)
    return Composite(
        color.permute(0, 1, 4, 2, 3),
        weights.sum(2)[:, :, None],
        (weights * disparity).sum(2)[:, :, None],
    )
