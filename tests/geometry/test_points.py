"""Point splatting: which points hit which pixels, how they mix, and that all backends agree."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from common.errors import UserError
from geometry import points as module
from geometry.cameras import Cameras, pinhole, stack_cameras
from geometry.points import ndc_radius, splat

CAMERA = pinhole(10.0, 6, 8)


def at(x: float, y: float, z: float) -> list[float]:
    """The point at depth z that projects to pixel coordinates (x, y)."""
    return [(x - 4) * z / 10, (y - 3) * z / 10, z]


def random_points(count: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    position = torch.rand(count, 3, generator=generator, dtype=torch.float64)
    points = (position - torch.tensor([0.5, 0.5, 0.1])) * torch.tensor([2.0, 2.0, 2.0])
    points[:, 2] = (points[:, 2] * 4).round() / 4  # many equal depths, some of them not in front
    return points, torch.rand(count, 3, generator=generator)


def test_the_nearest_point_wins() -> None:
    points = torch.tensor([at(2.5, 1.5, 3.0), at(2.6, 1.5, 2.0), at(2.5, 1.5, -1.0)])
    colors = torch.tensor([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]])
    made = splat(points, colors, CAMERA, radius=0.5)
    assert made.opacity is not None
    assert made.depth is not None
    assert made.image.shape == (3, 6, 8)
    assert made.image[:, 1, 2].tolist() == [0, 1, 0]
    assert made.depth[0, 1, 2] == 2
    assert made.opacity.sum() == 1
    assert (made.depth > 0).sum() == 1


def test_of_equally_near_points_the_first_wins() -> None:
    points = torch.tensor([at(2.4, 1.5, 2.0), at(2.5, 1.5, 2.0)])
    made = splat(points, torch.tensor([[1.0], [0.5]]), CAMERA, radius=0.4)
    assert made.image.shape == (1, 6, 8)
    assert made.image[0, 1, 2] == 1


@pytest.mark.parametrize(("radius", "pixels"), [(0.4, 1), (1.001, 5), (1.5, 9)])
def test_a_point_hits_the_centres_within_its_radius(radius: float, pixels: int) -> None:
    made = splat(torch.tensor([at(3.5, 2.5, 1.0)]), None, CAMERA, radius)
    assert made.opacity is not None
    assert made.opacity.sum() == pixels
    assert made.image.shape == (3, 6, 8)
    assert not made.image.any()


def test_soft_weights_are_normalised_and_legacy_ones_are_not() -> None:
    points = torch.tensor([at(2.5, 1.7, 2.0), at(2.5, 1.9, 4.0)])
    colors = torch.tensor([[1.0, 0, 0], [0, 1.0, 0]])
    near, far = 1 - 0.2**2, (1 - 0.4**2) * 0.2**2
    legacy, soft = (splat(points, colors, CAMERA, 1.0, weights) for weights in ("legacy", "soft"))
    assert legacy.image[:2, 1, 2].tolist() == pytest.approx([near, far], abs=1e-5)
    assert float(legacy.depth[0, 1, 2]) == pytest.approx(2 * near + 4 * far, abs=1e-5)
    assert soft.image[:2, 1, 2].tolist() == pytest.approx([near / (near + far), far / (near + far)], abs=1e-5)
    assert splat(points, colors, CAMERA, 1.0, "legacy", per_pixel=1).image[1, 1, 2] == 0
    assert torch.equal(legacy.opacity, soft.opacity)


def test_a_depth_map_comes_back_from_its_own_camera() -> None:
    depth = torch.rand(6, 8, dtype=torch.float64) + 1
    colors = torch.rand(48, 3)
    made = splat(CAMERA.unproject(depth).reshape(-1, 3), colors, CAMERA, radius=0.9)
    torch.testing.assert_close(made.depth[0], depth.float())
    torch.testing.assert_close(made.image, colors.T.reshape(3, 6, 8))


@pytest.mark.parametrize("weights", ["hard", "soft", "legacy"])
@given(seed=st.integers(0, 10**6), radius=st.floats(0.2, 4))
@settings(max_examples=20, deadline=None)
def test_backends_agree(weights: module.Weights, seed: int, radius: float) -> None:
    points, colors = random_points(80, seed)
    torch_made, numba_made = (
        splat(points, colors, CAMERA, radius, weights, per_pixel=3, backend=backend)
        for backend in ("torch", "numba")
    )
    assert torch.equal(torch_made.opacity, numba_made.opacity)
    torch.testing.assert_close(torch_made.depth, numba_made.depth)
    torch.testing.assert_close(torch_made.image, numba_made.image)


@pytest.mark.parametrize("weights", ["hard", "soft"])
def test_small_pieces_make_no_difference(weights: module.Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    points, colors = random_points(200, 1)
    whole = splat(points, colors, CAMERA, 1.5, weights, backend="torch")
    monkeypatch.setattr(module, "_AT_ONCE", 300)
    pieces = splat(points, colors, CAMERA, 1.5, weights, backend="torch")
    assert torch.equal(whole.image, pieces.image)
    assert torch.equal(whole.depth, pieces.depth)


@pytest.mark.parametrize("weights", ["hard", "soft"])
@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_nothing_in_sight(weights: module.Weights, backend: module.Backend) -> None:
    for points in (torch.zeros(0, 3), torch.tensor([at(2, 2, -1.0), at(90, 2, 1.0)])):
        made = splat(points, torch.ones(len(points), 3), CAMERA, 1.0, weights, backend=backend)
        assert not made.image.any()
        assert not made.depth.any()
        assert not made.opacity.any()


def fake_pytorch3d(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in with the library's interface and conventions, by exhaustive search."""

    def rasterize_points(
        clouds: SimpleNamespace, image_size: tuple[int, int], radius: float, points_per_pixel: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        height, width = image_size
        short = min(image_size)
        y = height / short - 2 * (torch.arange(height) + 0.5) / short
        x = width / short - 2 * (torch.arange(width) + 0.5) / short
        cloud = clouds.points[0]
        squared = (x[None, :, None] - cloud[:, 0]) ** 2 + (y[:, None, None] - cloud[:, 1]) ** 2
        z = torch.where((squared < radius**2) & (cloud[:, 2] >= 0), cloud[:, 2], torch.inf)
        near, order = z.sort(dim=-1, stable=True)
        near, order = near[..., :points_per_pixel], order[..., :points_per_pixel]
        missing = near.isinf()
        parts = (order, near, squared.gather(-1, order))
        indices, zbuf, distances = (part.masked_fill(missing, -1)[None] for part in parts)
        return indices, zbuf, distances

    library, renderer = ModuleType("pytorch3d"), ModuleType("pytorch3d.renderer")
    rasterizer, structures = ModuleType("pytorch3d.renderer.points"), ModuleType("pytorch3d.structures")
    rasterizer.rasterize_points = rasterize_points  # type: ignore[attr-defined]
    structures.Pointclouds = SimpleNamespace  # type: ignore[attr-defined]
    for made in (library, renderer, rasterizer, structures):
        made.__spec__ = SimpleNamespace(name=made.__name__)  # type: ignore[assignment]
        monkeypatch.setitem(sys.modules, made.__name__, made)


@pytest.mark.parametrize("weights", ["hard", "soft", "legacy"])
def test_pytorch3d_agrees(weights: module.Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_pytorch3d(monkeypatch)
    points, colors = random_points(80, 3)
    expected, made = (
        splat(points, colors, CAMERA, 1.3, weights, per_pixel=3, backend=backend)
        for backend in ("torch", "pytorch3d")
    )
    torch.testing.assert_close(made.image, expected.image, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(made.depth, expected.depth, rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("weights", ["hard", "soft"])
def test_cuda_agrees(weights: module.Weights) -> None:
    points, colors = random_points(500, 3)
    expected = splat(points, colors, CAMERA, 1.3, weights)
    made = splat(points.cuda(), colors.cuda(), CAMERA, 1.3, weights)
    torch.testing.assert_close(made.image.cpu(), expected.image)
    torch.testing.assert_close(made.depth.cpu(), expected.depth)


def test_a_radius_in_normalised_coordinates() -> None:
    assert ndc_radius(0.01, pinhole(1.0, 768, 1024)) == pytest.approx(3.84)


def test_nonsense_is_refused() -> None:
    point = torch.tensor([[0.0, 0, 1]])
    with pytest.raises(ValueError, match="single camera"):
        splat(point, None, stack_cameras([CAMERA, CAMERA]))
    with pytest.raises(ValueError, match="radius"):
        splat(point, None, CAMERA, 0.0)
    with pytest.raises(ValueError, match="weights"):
        splat(point, None, CAMERA, weights="firm")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="backend"):
        splat(point, None, CAMERA, backend="magic")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="per_pixel"):
        splat(point, None, CAMERA, per_pixel=0)


def test_a_missing_backend_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pytorch3d", None)
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="install it"):
        splat(torch.tensor([[0.0, 0, 1]]), None, CAMERA, backend="pytorch3d")


def test_the_pose_of_the_camera_counts() -> None:
    c2w = torch.eye(4, dtype=torch.float64)
    c2w[0, 3] = 0.1  # one pixel at depth 1
    moved = Cameras(CAMERA.K, c2w, 6, 8)
    made = splat(torch.tensor([at(3.5, 2.5, 1.0)]), None, moved, 0.5)
    assert made.opacity is not None
    assert made.opacity[0].nonzero().tolist() == [[2, 2]]
