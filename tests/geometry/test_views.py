"""Views and renderings: indexing and moving take everything along."""

from __future__ import annotations

import pytest
import torch

from geometry.cameras import pinhole
from geometry.meshes import Mesh
from geometry.views import Rendering, Views


def four_views(complete: bool = True) -> Views:
    """[4] views whose every tensor tells its index."""
    index = torch.arange(4.0)[:, None, None, None]
    poses = torch.eye(4, dtype=torch.float64).repeat(4, 1, 1)
    poses[:, 0, 3] = torch.arange(4)
    cameras = pinhole(5, 2, 3).with_poses(poses)
    maps = {name: index.expand(4, 1, 2, 3) for name in ("depth", "valid", "foreground", "coverage")}
    return Views(index.expand(4, 3, 2, 3), cameras, **(maps if complete else {}), names=list("abcd"))


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        (slice(1, 3), [1, 2]),
        ([3, 0], [3, 0]),
        (torch.tensor([2, 2]), [2, 2]),
        (torch.tensor([True, False, False, True]), [0, 3]),
        (slice(None, None, 2), [0, 2]),
    ],
)
def test_indexing_takes_everything_along(index: object, expected: list[int]) -> None:
    views = four_views()[index]
    assert len(views) == len(expected)
    for name in ("images", "depth", "valid", "foreground", "coverage"):
        assert getattr(views, name)[:, 0, 0, 0].tolist() == expected
    assert views.cameras.center[:, 0].tolist() == expected
    assert views.names == ["abcd"[i] for i in expected]


def test_one_view() -> None:
    view = four_views()[2]
    assert view.images.shape == (3, 2, 3)
    assert view.cameras.shape == ()
    assert view.names == ["c"]
    bare = four_views(complete=False)[1:]
    assert bare.depth is None
    assert bare.coverage is None
    bare.names = []
    assert bare[0].names == []


def test_to_moves_every_tensor() -> None:
    views = four_views().to(torch.float16)
    for name in ("images", "depth", "valid", "foreground", "coverage"):
        assert getattr(views, name).dtype == torch.float16
    assert views.cameras.K.dtype == torch.float16
    assert views.names == list("abcd")
    assert four_views(complete=False).to("cpu").depth is None


def test_images_and_cameras_of_different_size() -> None:
    with pytest.raises(ValueError, match="images are"):
        Views(torch.zeros(3, 5, 5), pinhole(5, 2, 3))


def test_covered() -> None:
    opacity = torch.tensor([[[0.0, 0.49, 0.5, 1.0]]])
    covered = Rendering(torch.zeros(3, 1, 4), opacity=opacity).covered()
    assert covered.tolist() == [[[0, 0, 1, 1]]]
    unknown = Rendering(torch.zeros(2, 3, 1, 4)).covered()
    assert unknown.shape == (2, 1, 1, 4)
    assert (unknown == 1).all()


def test_mesh_to_keeps_face_indices_whole() -> None:
    mesh = Mesh(torch.zeros(3, 3), torch.tensor([[0, 1, 2]]), colors=torch.ones(3, 3)).to(torch.float64)
    assert mesh.vertices.dtype == torch.float64
    assert mesh.colors is not None
    assert mesh.colors.dtype == torch.float64
    assert mesh.faces.dtype == torch.int64
    assert mesh.uv is None
