"""Triangle meshes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor


@dataclass
class Mesh:
    """A triangle mesh.

    vertices: [V, 3] float, world units. faces: [F, 3] int64, counter-clockwise seen from outside.
    colors: [V, 3] float32 in [0, 1] per vertex. uv: [V, 2] texture coordinates per vertex.
    """

    vertices: Tensor
    faces: Tensor
    colors: Tensor | None = None
    uv: Tensor | None = None

    def to(self, *args: Any, **kwargs: Any) -> Mesh:
        """As `Tensor.to` for vertices, colours and uv; faces follow the device only."""
        vertices = self.vertices.to(*args, **kwargs)
        moved = {name: getattr(self, name) for name in ("colors", "uv")}
        return replace(
            self,
            vertices=vertices,
            faces=self.faces.to(vertices.device),
            **{name: None if value is None else value.to(*args, **kwargs) for name, value in moved.items()},
        )


def join_meshes(meshes: Sequence[Mesh]) -> Mesh:
    """Several coloured meshes as one. Raises ValueError when there is none, or one has no colours."""
    colors = [mesh.colors for mesh in meshes if mesh.colors is not None]
    if len(colors) < len(meshes) or not meshes:
        raise ValueError("every mesh needs vertex colours")
    if len(meshes) == 1:
        return meshes[0]
    starts = [0, *accumulate(len(mesh.vertices) for mesh in meshes[:-1])]
    faces = [mesh.faces + start for mesh, start in zip(meshes, starts, strict=True)]
    return Mesh(torch.cat([mesh.vertices for mesh in meshes]), torch.cat(faces), torch.cat(colors))
