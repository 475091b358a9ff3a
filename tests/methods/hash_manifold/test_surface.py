"""Points, boxes and directions on a mesh."""

import pytest
import torch
from torch import Tensor

from common.errors import UserError
from geometry.meshes import Mesh
from methods.hash_manifold.surface import Surface


def slab(shift: float = 0.0) -> Mesh:
    """Two triangles in a box of 4 x 2 x 1 around `shift`."""
    vertices = torch.tensor([[-2.0, -1, -0.5], [2, -1, -0.5], [2, 1, 0.5], [-2, 1, 0.5]], dtype=torch.float64)
    return Mesh(vertices + shift, torch.tensor([[0, 1, 2], [0, 2, 3]]))


def test_the_box_of_the_mesh_is_anisotropic_and_the_cube_is_not() -> None:
    torch.testing.assert_close(Surface(slab(), "mesh").extent, torch.tensor([4.0, 2.0, 1.0]))
    torch.testing.assert_close(Surface(slab(), "cube").extent, torch.tensor([4.0, 4.0, 4.0]))


@pytest.mark.parametrize("box", ["mesh", "cube"])
def test_corners_land_in_the_unit_box(box: str) -> None:
    surface = Surface(slab(3.0), box)
    unit = surface.unit(surface.vertices)
    assert unit.min() >= 0
    assert unit.max() <= 1


def test_large_coordinates_keep_their_precision() -> None:
    """A UTM-like offset of 5e6 changes nothing."""
    near, far = Surface(slab()), Surface(slab(5e6))
    face, weights = torch.tensor([[0], [1]]), torch.tensor([[[0.2, 0.3, 0.5]], [[0.6, 0.3, 0.1]]])
    eye = torch.tensor([[0.0, 0.0, -7.0]], dtype=torch.float64)
    seen = [
        surface.look(face, weights, surface.relative(eye + shift).expand(2, 3))
        for surface, shift in ((near, 0), (far, 5e6))
    ]
    for name in ("points", "direction"):
        torch.testing.assert_close(getattr(seen[0], name), getattr(seen[1], name), atol=1e-6, rtol=0)


def test_missed_samples_count_for_nothing() -> None:
    surface = Surface(slab())
    weights = torch.tensor([[[0.2, 0.3, 0.5], [0.0, 0.0, 0.0]]])
    eye = torch.tensor([[0.5, 0.1, -3.0]])
    both = surface.look(torch.tensor([[0, -1]]), weights, eye)
    alone = surface.look(torch.tensor([[0]]), weights[:, :1], eye)
    torch.testing.assert_close(both.direction, alone.direction)
    assert both.covered.tolist() == [[1, 0]]


def test_directions_point_from_the_camera_to_the_surface() -> None:
    surface = Surface(slab())
    corner: Tensor = surface.vertices[2]
    eye = torch.tensor([[1.0, -2.0, 3.0]])
    seen = surface.look(torch.tensor([[0]]), torch.tensor([[[0.0, 0.0, 1.0]]]), eye)
    expected = torch.nn.functional.normalize(corner - eye[0], dim=0)
    torch.testing.assert_close(seen.direction[0], expected)


def test_a_mesh_without_faces_is_refused() -> None:
    with pytest.raises(UserError, match="no faces"):
        Surface(Mesh(torch.zeros(3, 3), torch.zeros(0, 3, dtype=torch.int64)))
