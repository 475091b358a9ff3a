"""Triangle meshes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

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
