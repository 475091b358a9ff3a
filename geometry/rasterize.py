"""Meshes seen by cameras: visible triangles, attributes interpolated over them, coloured renderings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from typing import Literal

import torch
from torch import Tensor

from geometry.cameras import Cameras
from geometry.meshes import Mesh
from geometry.raycast import EmbreeCaster, NvdiffrastCaster, pixel_rays
from geometry.views import Rendering

Backend = Literal["auto", "embree", "nvdiffrast"]
_CASTERS: dict[str, type[EmbreeCaster] | type[NvdiffrastCaster]] = {
    "embree": EmbreeCaster,
    "nvdiffrast": NvdiffrastCaster,
}

# (x, y) of the four coverage samples within a pixel, x right, y down: the pattern of 4x multisampling in the
# renderer that made the MegaScenes warps (specs/warp_diffusion 3.7)
SUBSAMPLES = ((0.375, 0.875), (0.875, 0.625), (0.125, 0.375), (0.625, 0.125))

_TILE_SAMPLES = 1 << 20  # samples worked on at a time: about 200 MB
_TABLE_FACES = 1 << 20  # largest mesh whose edges are kept, 144 bytes per triangle


@dataclass
class Fragments:
    """What cameras [...] see of a mesh, at S = 1 (pixel centres) or 4 (multisampling) samples per pixel.

    face: [..., S, H, W] int64, index of the triangle, -1 for nothing. barycentric: [..., S, H, W, 3] float32,
    perspective-correct weights of its corners, 0 for nothing; with S = 4 they are taken at the pixel centre
    too, and leave [0, 1] where the triangle covers a sub-sample but not the centre. depth: [..., S, H, W]
    float32, z-depth at the sample itself, world units, 0 for nothing.
    """

    face: Tensor
    barycentric: Tensor
    depth: Tensor

    @property
    def coverage(self) -> Tensor:
        """[..., H, W] float32 in [0, 1]: the covered fraction of the pixel's samples."""
        return (self.face >= 0).float().mean(-3)


class Rasterizer:
    """A mesh prepared for visibility queries: the acceleration structure is built once.

    backend: 'embree' (CPU, everywhere), 'nvdiffrast' (CUDA), or 'auto': nvdiffrast for a mesh on a CUDA
    device where it is installed, else embree. Results lie on the mesh's device. The mesh is moved to the
    origin in float64 before anything is rounded to float32, so large coordinates (UTM) keep their precision.
    Raises UserError when nvdiffrast is asked for and absent.
    """

    def __init__(self, mesh: Mesh, backend: Backend = "auto") -> None:
        self.mesh = mesh
        vertices = mesh.vertices.detach().double()
        self._origin = _middle(vertices)
        self._vertices = vertices - self._origin
        self.backend = _choose_backend(mesh) if backend == "auto" else backend
        self._caster = _CASTERS[self.backend](self._vertices, mesh.faces)

    def to(self, device: torch.device) -> Rasterizer:
        """This rasteriser for cameras on a device: itself where it already is, else one built anew there."""
        if self.mesh.vertices.device == device:
            return self
        return Rasterizer(self.mesh.to(device))

    def rasterize(
        self, cameras: Cameras, multisample: bool = False, cull_backfaces: bool = False
    ) -> Fragments:
        """The triangles that cameras [...] see, by their full intrinsics (skew, off-centre principal point).

        multisample: four coverage samples per pixel instead of its centre. cull_backfaces: look through
        triangles seen from their clockwise side. Keep cameras in float64 where coordinates are large. The
        result takes 24 bytes per sample; `render_vertex_colors` keeps less.
        """
        samples = len(SUBSAMPLES) if multisample else 1
        shape, device = (samples, cameras.height, cameras.width), self.mesh.vertices.device
        count = cameras.shape.numel()
        out = Fragments(
            torch.empty(count, *shape, dtype=torch.int64, device=device),
            torch.empty(count, *shape, 3, device=device),
            torch.empty(count, *shape, device=device),
        )
        for views, rows, part in self._tiles(cameras, multisample, cull_backfaces):
            out.face[views, :, rows] = part.face
            out.barycentric[views, :, rows] = part.barycentric
            out.depth[views, :, rows] = part.depth
        return Fragments(*(value.reshape(*cameras.shape, *value.shape[1:]) for value in vars(out).values()))

    def depth(self, cameras: Cameras) -> Tensor:
        """[..., 1, H, W] float32 z-depth at the pixel centres, 0 where nothing is hit."""
        size = (1, cameras.height, cameras.width)
        out = torch.empty(cameras.shape.numel(), *size, device=self.mesh.vertices.device)
        for views, rows, part in self._tiles(cameras, multisample=False, cull_backfaces=False):
            out[views, :, rows] = part.depth
        return out.reshape(*cameras.shape, *size)

    def at_pixels(self, cameras: Cameras, view: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What single pixels see: face [...] int64, barycentric [..., 3], z-depth [...], as in `Fragments`.

        cameras: [V], whose size plays no part. pixels: [..., 2] (x, y), centres at +0.5. view: [...] int64,
        broadcast against the pixels: the camera of each. All rays are cast at once by Embree on the CPU,
        whatever the backend.
        """
        cameras = self._recentred(cameras).to("cpu")
        face, uv, depth = self._ray_caster.cast_rays(pixel_rays(cameras, view.cpu(), pixels.cpu()))
        weights = _corner_weights(face, uv)
        device = self._origin.device
        return face.to(device), weights.to(device), depth.to(device)

    @cached_property
    def _ray_caster(self) -> EmbreeCaster:
        if isinstance(self._caster, EmbreeCaster):
            return self._caster
        return EmbreeCaster(self._vertices, self.mesh.faces)

    def _recentred(self, cameras: Cameras) -> Cameras:
        """The cameras in float64 and in the frame of the rasteriser's vertices."""
        moved = cameras.to(self._origin.device, torch.float64)
        moved.c2w = moved.c2w.clone()
        moved.c2w[..., :3, 3] -= self._origin
        return moved

    def _tiles(
        self, cameras: Cameras, multisample: bool, cull_backfaces: bool
    ) -> Iterator[tuple[slice, slice, Fragments]]:
        """Rasterise some cameras or some rows at a time: (flat camera indices, rows, their fragments)."""
        flat = self._recentred(cameras.reshape(-1))
        for views, rows in _tile_slices(len(flat), flat.height, flat.width * (4 if multisample else 1)):
            tile = flat[views].crop(rows.start, 0, rows.stop - rows.start, flat.width)
            yield views, rows, self._rasterize_tile(tile, multisample, cull_backfaces)

    def _rasterize_tile(self, cameras: Cameras, multisample: bool, cull_backfaces: bool) -> Fragments:
        """Fragments of recentred cameras [N], all at once."""
        samples = _subsample_cameras(cameras) if multisample else cameras.reshape(-1, 1)
        hits = self._caster.cast(samples.reshape(-1), cull_backfaces)
        face, uv, depth = (
            value.reshape(*samples.shape, *value.shape[1:]).to(self._origin.device) for value in hits
        )
        if multisample:
            weights = torch.stack([self._center_weights(face[i], cameras[i]) for i in range(len(cameras))])
        else:
            weights = _corner_weights(face, uv)
        return Fragments(face, weights, depth)

    @cached_property
    def _edges(self) -> Tensor:
        return _edge_lines(self._vertices, self.mesh.faces)

    def _center_weights(self, face: Tensor, camera: Cameras) -> Tensor:
        """Corner weights [S, H, W, 3] at the pixel centres, on the planes of the triangles `face` [S, H, W].

        A ray (o, d) has the weights d . ((p_i - o) x (p_j - o)), up to scale, with p_i, p_j the two other
        corners: linear in the pixel. In float64, because they are small differences of products.
        """
        out = torch.zeros(len(face), face[0].numel(), 3, device=face.device)
        centers = torch.nn.functional.pad(camera.pixel_centers().reshape(-1, 2), (0, 1), value=1.0)
        table = None
        if len(self.mesh.faces) <= min(_TABLE_FACES, 8 * face[0].numel()):
            table = _pixel_weights(self._edges, camera)
        for sample, weights in zip(face.flatten(1), out, strict=True):  # [H W], [H W, 3]
            pixel = (sample >= 0).nonzero()[:, 0]
            triangle = sample.index_select(0, pixel)
            if table is not None:
                planes = table.index_select(0, triangle)
            else:
                planes = _pixel_weights(_edge_lines(self._vertices, self.mesh.faces[triangle]), camera)
            unscaled = torch.bmm(planes, centers.index_select(0, pixel)[..., None])[..., 0]
            total = unscaled @ unscaled.new_ones(3, 1)
            total.masked_fill_(total == 0, 1.0)  # seen exactly edge-on: any mixture will do
            weights.index_copy_(0, pixel, (unscaled / total).float())
        return out.reshape(*face.shape, 3)


def _corner_weights(face: Tensor, uv: Tensor) -> Tensor:
    """Weights [..., 3] of the corners from those of the second and third [..., 2]; 0 where face is -1."""
    return torch.cat([1 - uv.sum(-1, keepdim=True), uv], dim=-1) * (face >= 0)[..., None]


def _choose_backend(mesh: Mesh) -> Backend:
    return "nvdiffrast" if mesh.vertices.is_cuda and find_spec("nvdiffrast") else "embree"


def _middle(vertices: Tensor) -> Tensor:
    """A point [3] amid the vertices [V, 3] that few far ones (sky at depth 100) do not move."""
    if not len(vertices):
        return vertices.new_zeros(3)
    return vertices[:: max(1, len(vertices) // 10000)].median(dim=0).values


def _tile_slices(count: int, height: int, row_samples: int) -> Iterator[tuple[slice, slice]]:
    """Cut `count` images of `height` rows into parts of about _TILE_SAMPLES: whole images, or rows of one."""
    views = max(1, _TILE_SAMPLES // (row_samples * height))
    rows = height if views > 1 else max(1, min(height, _TILE_SAMPLES // row_samples))
    for view in range(0, count, views):
        for row in range(0, height, rows):
            yield slice(view, min(view + views, count)), slice(row, min(row + rows, height))


def _subsample_cameras(cameras: Cameras) -> Cameras:
    """Cameras [N, 4] whose pixel centres are the sub-samples of cameras [N]."""
    K = cameras.K[:, None].repeat(1, len(SUBSAMPLES), 1, 1)
    K[..., :2, 2] += 0.5 - torch.tensor(SUBSAMPLES).to(K)
    c2w = cameras.c2w[:, None].expand(-1, len(SUBSAMPLES), 4, 4)
    return Cameras(K, c2w, cameras.height, cameras.width)


def _edge_lines(vertices: Tensor, faces: Tensor) -> Tensor:
    """Plücker lines [F, 3, 6] (moment, direction) of the edge opposite each corner."""
    a, b, c = (vertices[faces[:, corner]] for corner in range(3))
    moments = [torch.linalg.cross(p, q) for p, q in ((b, c), (c, a), (a, b))]
    return torch.cat([torch.stack(moments, dim=1), torch.stack([c - b, a - c, b - a], dim=1)], dim=-1)


def _pixel_weights(lines: Tensor, camera: Cameras) -> Tensor:
    """[F, 3, 3]: row k times the pixel (x, y, 1) is the weight of corner k, up to a scale per triangle.

    lines: [F, 3, 6] of `_edge_lines`. For the ray (o, d) the weight is d . m + (o x d) . e.
    """
    direction = camera.c2w[:3, :3] @ torch.linalg.inv(camera.K)  # d = direction @ (x, y, 1)
    moment = torch.linalg.cross(camera.center[:, None].expand(3, 3), direction, dim=0)  # o x d
    return (lines.reshape(-1, 6) @ torch.cat([direction, moment])).reshape(-1, 3, 3)


def rasterize(
    mesh: Mesh, cameras: Cameras, multisample: bool = False, cull_backfaces: bool = False
) -> Fragments:
    """`Rasterizer(mesh).rasterize(...)`, for a mesh that is looked at once."""
    return Rasterizer(mesh).rasterize(cameras, multisample, cull_backfaces)


def interpolate(fragments: Fragments, faces: Tensor, attributes: Tensor) -> Tensor:
    """Attributes [V, C] of vertices as images [..., C, H, W]: the mean over each pixel's samples.

    faces: [F, 3], of the mesh that was rasterised. Samples that hit nothing count as 0, so silhouettes fade
    under multisampling. Differentiable in the attributes.
    """
    values = _interpolate_samples(fragments, faces, attributes).mean(-4)  # [..., H, W, C]
    return values.movedim(-1, -3).contiguous()


def _interpolate_samples(fragments: Fragments, faces: Tensor, attributes: Tensor) -> Tensor:
    """Attributes [V, C] at every sample, [..., S, H, W, C]; 0 where nothing is hit (its weights are 0)."""
    if not len(faces):
        return attributes.new_zeros(*fragments.face.shape, attributes.shape[1])
    corners = faces.index_select(0, fragments.face.clamp(min=0).flatten())  # [P, 3]
    weights = fragments.barycentric.reshape(-1, 3).to(attributes.dtype)
    values = torch.nn.functional.embedding_bag(corners, attributes, mode="sum", per_sample_weights=weights)
    return values.reshape(*fragments.face.shape, -1)


def render_vertex_colors(
    surface: Mesh | Rasterizer,
    cameras: Cameras,
    multisample: bool = True,
    cull_backfaces: bool = True,
    eight_bit: bool = False,
) -> Rendering:
    """Render a mesh with colours at its vertices, unlit, for cameras [...], on black.

    The defaults are those of the MegaScenes warps (specs/warp_diffusion 3.7). A sample's colour is clamped to
    [0, 1] before the mean over the pixel is taken. eight_bit: round it, and the mean, to multiples of 1/255,
    as a renderer with an 8-bit frame buffer does.

    Returns image [..., 3, H, W], depth [..., 1, H, W] at the first sample, and the coverage as opacity
    [..., 1, H, W]: 0 everywhere means that no camera sees the mesh. Not differentiable (see `interpolate`).
    Raises ValueError when the mesh has no colours.
    """
    rasterizer = Rasterizer(surface) if isinstance(surface, Mesh) else surface
    mesh = rasterizer.mesh
    if mesh.colors is None:
        raise ValueError("the mesh has no vertex colours to render")
    count, size, device = cameras.shape.numel(), (cameras.height, cameras.width), mesh.vertices.device
    image = torch.empty(count, 3, *size, device=device)
    depth, opacity = torch.empty(2, count, 1, *size, device=device)
    colors = mesh.colors.detach().float()
    for views, rows, part in rasterizer._tiles(cameras, multisample, cull_backfaces):
        samples = _interpolate_samples(part, mesh.faces, colors).clamp_(0, 1)  # [N, S, H, W, 3]
        mean = _round(_round(samples, eight_bit).mean(1), eight_bit)
        image[views, :, rows] = mean.movedim(-1, 1)
        depth[views, :, rows] = part.depth[:, :1]
        opacity[views, 0, rows] = part.coverage
    image, depth, opacity = (
        value.reshape(*cameras.shape, *value.shape[1:]) for value in (image, depth, opacity)
    )
    return Rendering(image, depth, opacity)


def _round(colors: Tensor, eight_bit: bool) -> Tensor:
    return (colors * 255).round() / 255 if eight_bit else colors
