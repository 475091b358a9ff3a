"""Visibility: against every ray and every triangle tested one by one, and against slower ways to cull."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from common.errors import UserError
from geometry import rasterize as module
from geometry import raycast
from geometry.cameras import Cameras, pinhole
from geometry.meshes import Mesh
from geometry.poses import matrix_from_quaternion, pose
from geometry.rasterize import (
    SUBSAMPLES,
    Fragments,
    Rasterizer,
    interpolate,
    rasterize,
    render_vertex_colors,
)
from geometry.raycast import clip_matrix, face_planes, front_faces

seeds = st.integers(0, 2**31 - 1)
SIZE = (9, 14)


def soup(seed: int, faces: int = 25) -> Mesh:
    """Separate coloured triangles, around the origin, of either orientation."""
    generator = torch.Generator().manual_seed(seed)
    centers = 4 * torch.rand(faces, 1, 3, generator=generator, dtype=torch.float64) - 2
    corners = centers + 1.5 * torch.randn(faces, 3, 3, generator=generator, dtype=torch.float64)
    colors = torch.rand(3 * faces, 3, generator=generator)
    return Mesh(corners.reshape(-1, 3), torch.arange(3 * faces).reshape(-1, 3), colors)


def random_cameras(seed: int, n: int = 2) -> Cameras:
    """Float64 cameras with skew, fx != fy, off-centre principal points, looking about from near the soup."""
    generator = torch.Generator().manual_seed(seed + 1)
    K = torch.zeros(n, 3, 3, dtype=torch.float64)
    u = torch.rand(n, 8, generator=generator, dtype=torch.float64)
    K[:, 0, 0], K[:, 1, 1], K[:, 0, 1] = 8 + 10 * u[:, 0], 8 + 10 * u[:, 1], 4 * u[:, 2] - 2
    K[:, 0, 2], K[:, 1, 2], K[:, 2, 2] = SIZE[1] * u[:, 3], SIZE[0] * u[:, 4], 1
    rotation = matrix_from_quaternion(torch.randn(n, 4, generator=generator, dtype=torch.float64))
    return Cameras(K, pose(rotation, 6 * u[:, 5:] - 3), *SIZE)


def every_triangle(mesh: Mesh, camera: Cameras, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Weights [P, F, 3] and z-depth [P, F] of the rays through pixels [P, 2] on all triangles' planes."""
    origin, direction = camera.rays(pixels, unit=False)
    a, b, c = (mesh.vertices[mesh.faces[:, corner]] - origin[0] for corner in range(3))
    sides = [torch.linalg.cross(p, q) for p, q in ((b, c), (c, a), (a, b))]
    weights = torch.stack([direction @ side.T for side in sides], dim=-1)
    weights = weights / weights.sum(-1, keepdim=True)
    z = torch.stack([p @ camera.w2c[2, :3] for p in (a, b, c)], dim=-1)
    return weights, (weights * z).sum(-1)


def nearest_hits(mesh: Mesh, camera: Cameras, pixels: Tensor, cull: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Face [P], z-depth [P], and whether the ray stays clear [P] of edges and ties (rounding decides)."""
    weights, z = every_triangle(mesh, camera, pixels)
    front = front_faces(face_planes(mesh.vertices, mesh.faces), camera.center)
    inside = (weights > 0).all(-1) & (z > 0) & (front if cull else True)
    depth = torch.where(inside, z, torch.inf)
    sorted_depth = depth.sort(dim=-1).values
    touched = (weights > -1e-4).all(-1) & (z > -1e-3)
    unsure = touched & ((weights.abs() < 1e-4).any(-1) | (z < 1e-3))
    clear = ~unsure.any(-1) & ~(sorted_depth[:, 1] - sorted_depth[:, 0] < 1e-4)
    face = torch.where(inside.any(-1), depth.argmin(-1), -1)
    return face, torch.where(face >= 0, sorted_depth[:, 0], 0), clear


@pytest.mark.parametrize("cull", [False, True])
@given(seed=seeds)
@settings(max_examples=15, deadline=None)
def test_pixel_centres_see_the_nearest_triangle(cull: bool, seed: int) -> None:
    mesh, cameras = soup(seed), random_cameras(seed)
    fragments = rasterize(mesh, cameras, cull_backfaces=cull)
    for i in range(len(cameras)):
        pixels = cameras.pixel_centers().reshape(-1, 2)
        face, depth, clear = nearest_hits(mesh, cameras[i], pixels, cull)
        assume(clear.float().mean() > 0.5)  # the camera may sit in a triangle
        got = fragments.face[i].flatten()
        assert torch.equal(got[clear], face[clear])
        torch.testing.assert_close(
            fragments.depth[i].flatten()[clear], depth[clear].float(), rtol=1e-4, atol=1e-4
        )
        weights, _ = every_triangle(mesh, cameras[i], pixels)
        rows = (clear & (face >= 0)).nonzero()[:, 0]
        expected = weights[rows, face[rows]].float()
        torch.testing.assert_close(fragments.barycentric[i].reshape(-1, 3)[rows], expected, rtol=0, atol=2e-3)


@pytest.mark.parametrize("cull", [False, True])
@given(seed=seeds)
@settings(max_examples=15, deadline=None)
def test_multisampling_covers_at_subsamples_and_weighs_at_the_centre(cull: bool, seed: int) -> None:
    mesh, cameras = soup(seed), random_cameras(seed)
    fragments = rasterize(mesh, cameras, multisample=True, cull_backfaces=cull)
    assert fragments.face.shape == (2, 4, *SIZE)
    for i in range(len(cameras)):
        centers = cameras.pixel_centers().reshape(-1, 2)
        central, _ = every_triangle(mesh, cameras[i], centers)
        for s, offset in enumerate(SUBSAMPLES):
            pixels = centers - 0.5 + torch.tensor(offset, dtype=torch.float64)
            face, depth, clear = nearest_hits(mesh, cameras[i], pixels, cull)
            assert torch.equal(fragments.face[i, s].flatten()[clear], face[clear])
            torch.testing.assert_close(
                fragments.depth[i, s].flatten()[clear], depth[clear].float(), rtol=1e-4, atol=1e-4
            )
            rows = (clear & (face >= 0)).nonzero()[:, 0]
            expected = central[rows, face[rows]].float()
            got = fragments.barycentric[i, s].reshape(-1, 3)[rows]
            torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


@given(seeds, st.sampled_from([0.0, 1e9]))
@settings(max_examples=20, deadline=None)
def test_culling_equals_a_scene_of_the_front_faces_built_per_view(seed: int, scene_cost: float) -> None:
    """Whether the hits behind back faces are listed, or cast again."""
    mesh, cameras = soup(seed, faces=60), random_cameras(seed, n=3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(raycast, "_SCENE_COST", scene_cost)
        fast = rasterize(mesh, cameras, multisample=True, cull_backfaces=True)
    planes = face_planes(mesh.vertices, mesh.faces)
    for i in range(len(cameras)):
        front = front_faces(planes, cameras.center[i]).nonzero()[:, 0]
        slow = rasterize(Mesh(mesh.vertices, mesh.faces[front]), cameras[i], multisample=True)
        face = torch.where(slow.face >= 0, front[slow.face.clamp(min=0)], -1)
        same = fast.face[i] == face  # rays on edges may choose either neighbour: the soup has no neighbours
        assert same.float().mean() > 0.999
        torch.testing.assert_close(fast.depth[i][same], slow.depth[same], rtol=1e-4, atol=1e-4)


def square(z: float = 2.0, flip: bool = False) -> Mesh:
    """A large square at depth z, facing the camera at the identity unless flipped."""
    corners = torch.tensor([[-9, -9, z], [-9, 9, z], [9, 9, z], [9, -9, z]], dtype=torch.float64)
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    return Mesh(corners, faces.flip(1) if flip else faces, torch.full((4, 3), 0.5))


@pytest.mark.parametrize("scene_cost", [0.0, 1e9])
def test_two_sided_sheets_survive_culling(monkeypatch: pytest.MonkeyPatch, scene_cost: float) -> None:
    monkeypatch.setattr(raycast, "_SCENE_COST", scene_cost)
    sheet = square()
    both = Mesh(sheet.vertices, torch.cat([sheet.faces.flip(1), sheet.faces]))
    fragments = rasterize(both, pinhole(10.0, *SIZE), multisample=True, cull_backfaces=True)
    assert set(fragments.face.unique().tolist()) == {2, 3}


def test_culling_sees_through_to_what_lies_behind() -> None:
    near, far = square(2.0, flip=True), square(5.0)
    mesh = Mesh(torch.cat([near.vertices, far.vertices]), torch.cat([near.faces, far.faces + 4]))
    camera = pinhole(10.0, *SIZE)
    torch.testing.assert_close(rasterize(mesh, camera).depth, torch.full((1, *SIZE), 2.0))
    culled = rasterize(mesh, camera, cull_backfaces=True)
    torch.testing.assert_close(culled.depth, torch.full((1, *SIZE), 5.0))


@pytest.mark.parametrize("multisample", [False, True])
@pytest.mark.parametrize("budget", [1, 100, 700])
def test_tiles_change_nothing(monkeypatch: pytest.MonkeyPatch, budget: int, multisample: bool) -> None:
    mesh, cameras = soup(1), random_cameras(1, n=6).reshape(2, 3)
    rasterizer = Rasterizer(mesh)
    whole = rasterizer.rasterize(cameras, multisample, cull_backfaces=True)
    picture = render_vertex_colors(rasterizer, cameras, multisample)
    monkeypatch.setattr(module, "_TILE_SAMPLES", budget)
    parts = rasterizer.rasterize(cameras, multisample, cull_backfaces=True)
    assert whole.face.shape == (2, 3, 4 if multisample else 1, *SIZE)
    assert torch.equal(parts.face, whole.face)
    torch.testing.assert_close(parts.depth, whole.depth)
    torch.testing.assert_close(render_vertex_colors(rasterizer, cameras, multisample).image, picture.image)


def test_single_cameras_and_batches_agree() -> None:
    mesh, cameras = soup(2), random_cameras(2)
    one, two = rasterize(mesh, cameras[1]), rasterize(mesh, cameras)
    assert one.face.shape == (1, *SIZE)
    assert torch.equal(one.face, two.face[1])
    assert torch.equal(Rasterizer(mesh).depth(cameras), two.depth)


def test_large_world_coordinates_keep_their_pixels() -> None:
    """At an offset like UTM's, float32 coordinates would be rounded to 0.03 or 0.5."""
    mesh, cameras = soup(4), random_cameras(4)
    offset = torch.tensor([500_000.0, 5_400_000.0, 300.0], dtype=torch.float64)
    far = Cameras(cameras.K, cameras.c2w.clone(), *SIZE)
    far.c2w[:, :3, 3] += offset
    moved = rasterize(Mesh(mesh.vertices + offset, mesh.faces), far, multisample=True)
    still = rasterize(mesh, cameras, multisample=True)
    assert (moved.face == still.face).float().mean() > 0.999
    same = moved.face == still.face
    torch.testing.assert_close(moved.depth[same], still.depth[same], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(moved.barycentric[same], still.barycentric[same], rtol=1e-4, atol=1e-4)


@given(seeds)
@settings(max_examples=15, deadline=None)
def test_interpolated_positions_are_the_unprojected_depth(seed: int) -> None:
    mesh, cameras = soup(seed), random_cameras(seed)
    fragments = rasterize(mesh, cameras)
    positions = interpolate(fragments, mesh.faces, mesh.vertices)  # [2, 3, H, W]
    hit = fragments.face[:, 0] >= 0
    expected = cameras.unproject(fragments.depth[:, 0].double())
    torch.testing.assert_close(positions.movedim(1, -1)[hit], expected[hit], rtol=1e-4, atol=1e-4)
    assert (positions.movedim(1, -1)[~hit] == 0).all()


def test_interpolation_is_the_mean_over_samples_and_has_gradients() -> None:
    face = torch.tensor([0, 0, 1, -1]).reshape(4, 1, 1)
    weights = torch.tensor([[0.2, 0.3, 0.5], [0.2, 0.3, 0.5], [1.5, -0.5, 0.0], [0, 0, 0]]).reshape(
        4, 1, 1, 3
    )
    fragments = Fragments(face, weights, torch.ones(4, 1, 1))
    faces = torch.tensor([[0, 1, 2], [3, 2, 1]])
    generator = torch.Generator().manual_seed(0)
    attributes = torch.randn(4, 2, generator=generator, dtype=torch.float64).requires_grad_()
    a = attributes.detach()
    expected = (2 * (0.2 * a[0] + 0.3 * a[1] + 0.5 * a[2]) + 1.5 * a[3] - 0.5 * a[2]) / 4
    torch.testing.assert_close(
        interpolate(fragments, faces, attributes).flatten(), expected, rtol=1e-6, atol=1e-6
    )
    assert torch.autograd.gradcheck(lambda x: interpolate(fragments, faces, x), (attributes,))
    assert fragments.coverage.item() == 0.75


def test_colours_fade_at_silhouettes_and_are_clamped_per_sample() -> None:
    """A white half-plane whose edge runs at x = 0.5 within its pixel: two of four sub-samples are covered."""
    camera = pinhole(1.0, 2, 4)
    corners = torch.tensor([[-90.0, -90, 1], [-90, 90, 1], [0.5, 90, 1], [0.5, -90, 1]], dtype=torch.float64)
    mesh = Mesh(corners, torch.tensor([[0, 1, 2], [0, 2, 3]]), torch.ones(4, 3))
    picture = render_vertex_colors(mesh, camera)
    assert picture.opacity is not None
    assert picture.opacity[0, 0].tolist() == [1, 1, 0.5, 0]
    torch.testing.assert_close(picture.image, picture.opacity.expand(3, -1, -1))


def test_eight_bit_colours_are_multiples_of_one_level() -> None:
    mesh, cameras = soup(7), random_cameras(7)
    levels = 255 * render_vertex_colors(mesh, cameras, eight_bit=True).image
    torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-4)
    exact = 255 * render_vertex_colors(mesh, cameras).image
    assert 0.01 < (levels - exact).abs().max() <= 1.0


def test_nothing_in_view_is_zero_opacity() -> None:
    camera = pinhole(10.0, *SIZE)
    behind, empty = (
        square(-2.0),
        Mesh(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int64), torch.zeros(0, 3)),
    )
    for mesh in (behind, empty):
        picture = render_vertex_colors(mesh, camera)
        assert picture.opacity is not None
        assert picture.opacity.max() == 0
        assert picture.image.max() == 0
        assert (rasterize(mesh, camera).face == -1).all()


def test_a_mesh_without_colours_is_refused() -> None:
    with pytest.raises(ValueError, match="no vertex colours"):
        render_vertex_colors(Mesh(square().vertices, square().faces), pinhole(10.0, *SIZE))


@given(seeds)
@settings(max_examples=25, deadline=None)
def test_clip_space_agrees_with_projection(seed: int) -> None:
    cameras = random_cameras(seed)
    points = cameras.unproject(torch.full((2, *SIZE), 3.0, dtype=torch.float64))[:, 2, 3:6]  # [2, 3, 3]
    matrix = clip_matrix(cameras, near=0.5, far=torch.tensor([10.0, 20.0]))
    clip = torch.nn.functional.pad(points, (0, 1), value=1.0) @ matrix.transpose(-1, -2)
    size = torch.tensor([SIZE[1], SIZE[0]])
    pixels, z = cameras.project(points)
    torch.testing.assert_close((clip[..., :2] / clip[..., 3:] + 1) / 2 * size, pixels)
    torch.testing.assert_close(clip[..., 3], z)
    near = -1 + 2 * (z - 0.5) / z * torch.tensor([[10.0 / 9.5], [20.0 / 19.5]])  # linear in 1 / z, -1 at near
    torch.testing.assert_close(clip[..., 2] / clip[..., 3], near)


def clip_rasterize(
    context: object, clip: Tensor, triangles: Tensor, resolution: list[int]
) -> tuple[Tensor, None]:
    """What nvdiffrast's `rasterize` returns (specs/hash_manifold 10), one pixel against all triangles."""
    assert clip.dtype == torch.float32
    assert triangles.dtype == torch.int32
    height, width = resolution
    x = (2 * torch.arange(width) + 1) / width - 1
    y = (2 * torch.arange(height) + 1) / height - 1
    ndc = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).double()[
        :, :, None, None
    ]  # [H, W, 1, 1, 2]
    corners = clip[0].double()[triangles.long()]  # [F, 3, 4]
    p = corners[..., :2] - ndc * corners[..., 3:]  # [H, W, F, 3, 2]
    p0, p1, p2 = p.unbind(-2)
    area = [a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0] for a, b in ((p1, p2), (p2, p0), (p0, p1))]
    weights = torch.stack(area, dim=-1)
    weights = weights / weights.sum(-1, keepdim=True)  # [H, W, F, 3]
    z, w = ((weights * corners[..., k]).sum(-1) for k in (2, 3))
    ratio = torch.where((weights >= 0).all(-1) & (w > 0) & (z.abs() <= w), z / w, torch.inf)
    best, index = ratio.min(dim=-1)
    out = torch.zeros(1, height, width, 4)
    chosen = weights.gather(2, index[..., None, None].expand(-1, -1, 1, 3))[:, :, 0]
    hit = torch.isfinite(best)
    out[0][hit] = torch.stack([chosen[..., 0], chosen[..., 1], best, index + 1.0], dim=-1).float()[hit]
    return out, None


@pytest.mark.parametrize("multisample", [False, True])
@pytest.mark.parametrize("cull", [False, True])
def test_nvdiffrast_is_driven_by_its_conventions(
    monkeypatch: pytest.MonkeyPatch, cull: bool, multisample: bool
) -> None:
    """A stand-in that follows nvdiffrast's documented semantics sees what ray casting sees."""
    stand_in = SimpleNamespace(RasterizeCudaContext=lambda device: None, rasterize=clip_rasterize)
    monkeypatch.setattr(raycast, "_load_nvdiffrast", lambda device: stand_in)
    for seed in range(3):
        mesh, cameras = soup(seed), random_cameras(seed)
        got = Rasterizer(mesh, backend="nvdiffrast").rasterize(cameras, multisample, cull)
        expected = Rasterizer(mesh, backend="embree").rasterize(cameras, multisample, cull)
        same = got.face == expected.face
        assert same.float().mean() > 0.99  # the near plane cuts what touches the camera
        torch.testing.assert_close(got.depth[same], expected.depth[same], rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(got.barycentric[same], expected.barycentric[same], rtol=2e-3, atol=2e-3)


def test_triangle_ids_above_the_float_range_are_bit_patterns() -> None:
    ids = torch.tensor([0, 1, 2**24 - 1, 2**24, 2**24 + 1, 2**24 + 12345])
    patterns = (0x4A800000 + ids).int().view(torch.float32)
    encoded = torch.where(ids <= 2**24, ids.float(), patterns)
    assert torch.equal(raycast._triangle_ids(encoded), ids)


def test_asking_for_an_absent_nvdiffrast_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "nvdiffrast", None)
    with pytest.raises(UserError, match="install it or use embree") as caught:
        Rasterizer(square(), backend="nvdiffrast")
    assert "\n" not in str(caught.value)


def test_nvdiffrast_agrees_with_ray_casting_on_a_gpu() -> None:
    pytest.importorskip("nvdiffrast.torch", reason="nvdiffrast is not installed")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    camera = pinhole(150.0, 120, 200)
    angles = torch.linspace(0, math.pi, 20, dtype=torch.float64)
    ring = torch.stack([angles.cos(), angles.sin(), 3 + 0 * angles], dim=-1)
    mesh = Mesh(
        torch.cat([ring, ring * 0.5]),
        torch.stack([torch.arange(19), torch.arange(1, 20), torch.arange(19) + 20], 1),
    )
    got = rasterize(mesh.to("cuda"), camera)
    expected = rasterize(mesh, camera)
    assert (got.face.cpu() == expected.face).float().mean() > 0.99
