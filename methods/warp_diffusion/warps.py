"""The photo seen from the target: lifted by its depth, warped, put on the network's canvas (3.1, 3.6)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dataloader.canvas import fit_canvas, on_canvas
from dataloader.images import resize_with_padding, to_tensor, to_uint8
from dataloader.pairs import Canvas
from geometry.cameras import Cameras
from geometry.lifting import depth_scale, lift_depth
from geometry.meshes import Mesh, join_meshes
from geometry.rasterize import Rasterizer, render_vertex_colors
from geometry.views import Views
from geometry.warp import fill_nearest, render_lifted
from methods.warp_diffusion.config import WarpDiffusionConfig


@dataclass
class Warps:
    """What N target views show of the lifted photos.

    image: [N, 3, h, w] in [0, 1], black where nothing is. coverage: [N, 1, h, w] in [0, 1]. depth: [N, 1, h,
    w], 0 where nothing is. canvas: where they lie on the network's canvas. faded: whether colours fade to
    black with the coverage.
    """

    image: Tensor
    coverage: Tensor
    depth: Tensor
    canvas: Canvas
    faded: bool = False

    def __getitem__(self, index: slice) -> Warps:
        return replace(self, image=self.image[index], coverage=self.coverage[index], depth=self.depth[index])

    def __len__(self) -> int:
        return len(self.image)

    def shown(self) -> Tensor:
        """What a network that encodes the warp sees, canvases [N, 3, S, S] in [-1, 1]: holes take the colour
        of their nearest covered pixel, so that no black bleeds into the latents around them.
        """
        pairs = zip(self.full(), self.coverage, strict=True)
        filled = torch.stack([fill_nearest(image, coverage[0] >= 0.5) for image, coverage in pairs])
        return to_canvas(filled, self.canvas) * 2 - 1

    def full(self) -> Tensor:
        """The images with full colours where they cover a pixel in part, whether or not they fade there."""
        if not self.faded:
            return self.image
        return (self.image / self.coverage.clamp(min=1 / 255)).clamp(0, 1)

    def padded_coverage(self) -> Tensor:
        """[N, 1, S, S] in [0, 1], 0 around."""
        return to_canvas(self.coverage, self.canvas, 0.0)

    def small(self, size: int) -> Tensor:
        """Canvases [N, 3, size, size] in [-1, 1], resampled as the original does (Lanczos, 8 bits)."""
        small = [on_canvas(to_uint8(image), size) for image in self.image]
        return torch.stack(small).to(self.image.device) * 2 - 1


def to_canvas(images: Tensor, canvas: Canvas, around: float = 1.0) -> Tensor:
    """Images [N, C, h, w] pasted on canvases [N, C, S, S]."""
    padded = images.new_full((*images.shape[:2], canvas.size, canvas.size), around)
    canvas.cut(padded)[:] = images
    return padded


def fit_views(views: Views, size: int) -> Views:
    """Views [N] resized so that their long side is `size` (Lanczos); depth takes its nearest sample."""
    cameras = views.cameras
    canvas = fit_canvas(cameras.height, cameras.width, size)
    if (canvas.height, canvas.width) == (cameras.height, cameras.width):
        return views
    pictures = [Image.fromarray(to_uint8(image)) for image in views.images]
    images = torch.stack([to_tensor(np.asarray(resize_with_padding(p, size)[1])) for p in pictures])
    depth = views.depth
    if depth is not None:
        depth = torch.nn.functional.interpolate(
            depth, size=(canvas.height, canvas.width), mode="nearest-exact"
        )
    return Views(
        images.to(views.images.device),
        cameras.resize(canvas.height, canvas.width),
        depth=depth,
        names=views.names,
    )


@dataclass
class LiftedPhotos:
    """Source photos [J] at the network's size, lifted when a target first needs them.

    views: with depth, or without where no warp is wanted. scales: depth unit of each, the 20th percentile of
    its depth. earlier: further surfaces that targets see beside the photo's own (views made before).
    """

    views: Views
    config: WarpDiffusionConfig
    scales: list[float] = field(default_factory=list)
    earlier: list[Mesh] = field(default_factory=list)
    _meshes: dict[int, Mesh] = field(default_factory=dict)
    _surfaces: dict[int, Rasterizer] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.scales:
            self.scales = [self._scale(j) for j in range(len(self.views))]

    def _scale(self, index: int) -> float:
        depth = None if self.views.depth is None else self.views.depth[index]
        known = None if depth is None else depth[depth > 0]
        return 1.0 if known is None or not len(known) else depth_scale(known)

    @property
    def canvas(self) -> Canvas:
        """Where the photos lie on the network's canvas."""
        cameras = self.views.cameras
        return fit_canvas(cameras.height, cameras.width, self.config.resolution)

    def padded(self) -> Tensor:
        """The photos as canvases [J, 3, S, S] in [-1, 1], white around."""
        return to_canvas(self.views.images, self.canvas) * 2 - 1

    def mesh(self, index: int) -> Mesh:
        """A photo lifted by its depth. Raises ValueError where it has none."""
        if index not in self._meshes:
            view = self.views[index]
            if view.depth is None:
                raise ValueError("a photo without depth cannot be lifted")
            depth = self._limited(view.depth[0], self.scales[index])
            colors = view.images.permute(1, 2, 0)
            self._meshes[index] = lift_depth(depth, view.cameras, colors, self.config.max_angle)
        return self._meshes[index]

    def _limited(self, depth: Tensor, scale: float) -> Tensor:
        """The depth map with far things and sky where the configuration wants them."""
        far = self.config.far * scale
        if self.config.sky == "drop":
            return torch.where(depth < far, depth, torch.zeros_like(depth))
        return depth.clamp(max=far)

    def surface(self, index: int) -> Rasterizer:
        """Photo `index`, and the earlier views, ready to render."""
        if index not in self._surfaces:
            self._surfaces[index] = Rasterizer(join_meshes([self.mesh(index), *self.earlier]))
        return self._surfaces[index]

    def add(self, mesh: Mesh) -> None:
        """Let later targets see a further surface."""
        self.earlier.append(mesh)
        self._surfaces.clear()

    def warp(self, sources: list[int], cameras: Cameras) -> Warps:
        """Warp photo `sources[i]` to camera i of `cameras` [N], resized to the network's canvas."""
        canvas = fit_canvas(cameras.height, cameras.width, self.config.resolution)
        cameras = cameras.resize(canvas.height, canvas.width)
        faded = self.config.warp_edges == "faded"
        frames = []
        for i, source in enumerate(sources):
            surface = self.surface(source)
            if faded:
                frames.append(render_vertex_colors(surface, cameras[i], eight_bit=True))
            else:
                frames.append(render_lifted(surface, cameras[i]))
        depth = torch.stack([f.depth for f in frames if f.depth is not None])
        coverage = torch.stack([f.opacity for f in frames if f.opacity is not None])
        return Warps(torch.stack([f.image for f in frames]).clamp(0, 1), coverage, depth, canvas, faded)


def canvas_cameras(cameras: Cameras, canvas: Canvas, size: int) -> Cameras:
    """Cameras [N] of whole canvases, at `size` pixels a side: what a latent pixel looks through."""
    fitted = cameras.resize(canvas.height, canvas.width)
    return fitted.crop(-canvas.top, -canvas.left, canvas.size, canvas.size).resize(size, size)
