"""The mesh as the field sees it: points in the unit box of the encoding, and viewing directions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from common.errors import UserError
from geometry.meshes import Mesh

Box = Literal["mesh", "cube"]


@dataclass
class Seen:
    """What N pixels see of the surface through S samples each.

    points: [N, S, 3] in the unit box. covered: [N, S] {0, 1}. direction: [N, 3], unit, camera to surface, the
    mean over the covered samples.
    """

    points: Tensor
    covered: Tensor
    direction: Tensor


class Surface(nn.Module):
    """A mesh and its box.

    box: 'mesh' spans the mesh on every axis (specs/hash_manifold 3.5), 'cube' is the smallest cube around it,
    so that cells are as fine on every axis. Vertices are kept relative to the box's centre, subtracted in
    float64, so large coordinates (UTM) keep their precision.
    """

    vertices: Tensor
    faces: Tensor
    center: Tensor
    extent: Tensor

    def __init__(self, mesh: Mesh, box: Box = "cube") -> None:
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
            ("center", center),
            ("extent", extent.float()),
        ):
            self.register_buffer(name, value, persistent=False)

    def relative(self, points: Tensor) -> Tensor:
        """World points [..., 3] float64 -> float32, relative to the centre of the box."""
        return (points.to(self.center) - self.center).float()

    def unit(self, points: Tensor) -> Tensor:
        """Points relative to the centre [..., 3] -> the unit box."""
        return points / self.extent + 0.5

    def points(self, face: Tensor, barycentric: Tensor) -> Tensor:
        """Points [N, S, 3] relative to the centre, anywhere for a miss; of faces [N, S] with corner weights
        [N, S, 3].
        """
        corners = self.faces.index_select(0, face.flatten().clamp(min=0).int())
        weights = barycentric.reshape(-1, 3)
        points = torch.nn.functional.embedding_bag(
            corners, self.vertices, mode="sum", per_sample_weights=weights
        )
        return points.reshape(*face.shape, 3)

    def look(self, face: Tensor, barycentric: Tensor, eye: Tensor) -> Seen:
        """What pixels see.

        face: [N, S], -1 for a miss. barycentric: [N, S, 3]. eye: [N, 3] relative to the centre.
        """
        points = self.points(face, barycentric)
        covered = (face >= 0).to(points.dtype)
        return see(points, covered, eye, self.unit(points))


def see(points: Tensor, covered: Tensor, eye: Tensor, unit_points: Tensor) -> Seen:
    """`Surface.look` of given points [N, S, 3]; eye: [N, 3], in the same frame."""
    rays = points - eye[:, None]
    direction = (torch.nn.functional.normalize(rays, dim=-1) * covered[..., None]).sum(1)
    return Seen(unit_points, covered, torch.nn.functional.normalize(direction, dim=-1))
