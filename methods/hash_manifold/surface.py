"""The mesh as the field sees it: points in the unit box of the encoding, and viewing directions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from common.errors import UserError
from geometry.meshes import Mesh

Box = Literal["mesh", "cube"]

_HEIGHT_UNIT = 1e-3  # of the box's extent: what a learned height of 1 means
_LEAST_COSINE = 0.2  # between ray and normal, when a ray is moved on to the refined surface


@dataclass
class Seen:
    """What N pixels see of the surface through S samples each.

    points: [N, S, 3] in the unit box. covered: [N, S] {0, 1}. direction: [N, 3], unit, camera to surface, the
    mean over the covered samples. distance: [N] from the camera to the first covered sample, world units.
    """

    points: Tensor
    covered: Tensor
    direction: Tensor
    distance: Tensor


class Surface(nn.Module):
    """A mesh and its box.

    box: 'mesh' spans the mesh on every axis (specs/hash_manifold 3.5), 'cube' is the smallest cube around it,
    so that cells are as fine on every axis. refine: learn a height per vertex (`refined`). Vertices are kept relative to the box's centre, subtracted in
    float64, so large coordinates (UTM) keep their precision.
    """

    vertices: Tensor
    faces: Tensor
    normals: Tensor
    center: Tensor
    extent: Tensor

    def __init__(self, mesh: Mesh, box: Box = "cube", refine: bool = False) -> None:
        super().__init__()
        if not len(mesh.faces):
            raise UserError("the scene's mesh has no faces")
        vertices = mesh.vertices.detach().double()
        high, low = vertices.amax(0), vertices.amin(0)
        center, extent = (high + low) / 2, high - low + 1e-6
        if box == "cube":
            extent = extent.max().expand(3)
        for name, value in (
            ("vertices", (vertices - center).float()),
            ("faces", mesh.faces.int()),
            ("normals", vertex_normals(vertices - center, mesh.faces).float()),
            ("center", center),
            ("extent", extent.float()),
        ):
            self.register_buffer(name, value, persistent=False)
        self.heights = nn.Parameter(torch.zeros(len(vertices), 1)) if refine else None

    def relative(self, points: Tensor) -> Tensor:
        """World points [..., 3] float64 -> float32, relative to the centre of the box."""
        return (points.to(self.center) - self.center).float()

    def unit(self, points: Tensor) -> Tensor:
        """Points relative to the centre [..., 3] -> the unit box."""
        return points / self.extent + 0.5

    def _interpolate(self, attributes: Tensor, face: Tensor, barycentric: Tensor) -> Tensor:
        """Vertex attributes [V, C] at the samples, [N, S, C]; anything for a miss."""
        corners = self.faces.index_select(0, face.flatten().clamp(min=0).int())
        weights = barycentric.reshape(-1, 3)
        values = torch.nn.functional.embedding_bag(
            corners, attributes, mode="sum", per_sample_weights=weights
        )
        return values.reshape(*face.shape, -1)

    def points(self, face: Tensor, barycentric: Tensor) -> Tensor:
        """Points [N, S, 3] relative to the centre, anywhere for a miss; of faces [N, S] with corner weights
        [N, S, 3].
        """
        return self._interpolate(self.vertices, face, barycentric)

    def refined(self, points: Tensor, face: Tensor, barycentric: Tensor, eye: Tensor) -> Tensor:
        """Where the rays through points [N, S, 3] meet the surface after its vertices have moved.

        Every vertex moves along its normal by its learned height. To first order a ray then goes on by h / (n .
        d), h and n the height and the normal at its point: parallax is that of the moved surface.
        """
        if self.heights is None:
            return points
        height = self._interpolate(self.heights, face, barycentric) * (_HEIGHT_UNIT * self.extent.max())
        normal = torch.nn.functional.normalize(self._interpolate(self.normals, face, barycentric), dim=-1)
        ray = torch.nn.functional.normalize(points - eye[:, None], dim=-1)
        cosine = (normal * ray).sum(-1, keepdim=True)
        cosine = torch.where(cosine < 0, cosine.clamp(max=-_LEAST_COSINE), cosine.clamp(min=_LEAST_COSINE))
        return points + ray * (height / cosine)

    def look(self, face: Tensor, barycentric: Tensor, eye: Tensor) -> Seen:
        """What pixels see.

        face: [N, S], -1 for a miss. barycentric: [N, S, 3]. eye: [N, 3] relative to the centre.
        """
        points = self.refined(self.points(face, barycentric), face, barycentric, eye)
        covered = (face >= 0).to(points.dtype)
        return see(points, covered, eye, self.unit(points))


def vertex_normals(vertices: Tensor, faces: Tensor) -> Tensor:
    """Unit normals [V, 3], the mean of the adjacent faces' weighted by area; 0 for a vertex of no face."""
    a, b, c = (vertices[faces[:, corner]] for corner in range(3))
    weighted = torch.linalg.cross(b - a, c - a)
    total = torch.zeros_like(vertices).index_add_(0, faces.flatten(), weighted.repeat_interleave(3, dim=0))
    return torch.nn.functional.normalize(total, dim=-1)


def see(points: Tensor, covered: Tensor, eye: Tensor, unit_points: Tensor) -> Seen:
    """`Surface.look` of given points [N, S, 3]; eye: [N, 3], in the same frame."""
    rays = points - eye[:, None]
    direction = (torch.nn.functional.normalize(rays, dim=-1) * covered[..., None]).sum(1)
    first = covered.argmax(1)  # of the samples that hit, if any does
    distance = rays.norm(dim=-1).gather(1, first[:, None])[:, 0]
    return Seen(unit_points, covered, torch.nn.functional.normalize(direction, dim=-1), distance)
