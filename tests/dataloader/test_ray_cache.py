"""Rays on disk: equal to those cast on demand, small, in bounded pieces, and never taken when stale."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from common.errors import UserError
from dataloader import ray_cache
from dataloader.formats import open_scene, write_scene
from dataloader.images import write_image
from dataloader.lenses import Lens
from dataloader.ray_cache import RayCache, write_ray_cache
from dataloader.ray_files import decode, encode, record_type
from dataloader.scene import Scene
from dataloader.surface_rays import CastRays, SurfaceRays
from geometry.meshes import Mesh
from geometry.rasterize import Rasterizer

SIZES = [(12, 16), (9, 20), (12, 16), (14, 10)]


def shape(scale: float = 1.0, shift: float = 0.0) -> Mesh:
    """A tetrahedron around the origin that fills part of the small scenes' photos."""
    corners = torch.tensor([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], dtype=torch.float64)
    return Mesh(scale * corners + shift, torch.tensor([[0, 1, 2], [0, 2, 3], [0, 3, 1], [1, 3, 2]]))


@pytest.fixture
def scene(posed_scene: Callable[..., Scene]) -> Scene:
    """Four photos of different sizes, in memory."""
    made = posed_scene(4, seed=3, size=SIZES, off_center=1.5)
    made.surface = shape()
    return made


@pytest.fixture
def stored(scene: Scene, tmp_path: Path) -> Path:
    """The same scene as a folder."""
    write_scene(scene, tmp_path / "scene", "mvsnet")
    return tmp_path / "scene"


def all_rays(source: CastRays | RayCache) -> SurfaceRays:
    view = torch.repeat_interleave(torch.arange(len(source.sizes)), source.sizes)
    return source.take(view, torch.cat([torch.arange(n) for n in source.sizes.tolist()]))


@pytest.mark.parametrize("supersample", [1, 2])
@pytest.mark.parametrize("max_size", [0, 11])
def test_the_cache_holds_the_covered_rays_that_are_cast(
    scene: Scene, tmp_path: Path, supersample: int, max_size: int
) -> None:
    indices = [2, 0, 3]
    made = write_ray_cache(scene, indices, tmp_path, supersample, max_size)
    cache = RayCache.open(tmp_path, scene, indices, supersample, max_size)
    cast = CastRays(scene, indices, scene.mesh(), supersample, max_size)
    assert torch.equal(cache.shapes, cast.shapes)
    expected = all_rays(cast)
    kept = expected.covered.any(-1)
    stored = all_rays(cache)
    assert torch.equal(stored.face, expected.face[kept])
    assert torch.equal(stored.color, expected.color[kept])
    assert torch.equal(stored.view, expected.view[kept])
    assert (stored.barycentric - expected.barycentric[kept]).abs().max() < 1.6e-5
    assert (stored.barycentric >= 0).all()
    pixels = torch.cat([torch.arange(n) for n in cast.sizes.tolist()])[kept]
    assert torch.equal(torch.cat([cache.pixels(i) for i in range(3)]), pixels)
    assert (made.views, made.pixels, made.samples) == (3, int(kept.sum()), int(expected.covered.sum()))
    assert made.bytes == sum(path.stat().st_size for path in tmp_path.iterdir())


def test_random_draws_keep_their_order(scene: Scene, tmp_path: Path) -> None:
    write_ray_cache(scene, range(4), tmp_path)
    cache = RayCache.open(tmp_path, scene, range(4))
    generator = torch.Generator().manual_seed(0)
    view = torch.randint(4, (500,), generator=generator)
    row = (torch.rand(500, generator=generator) * cache.sizes[view]).long()
    rays = cache.take(view, row)
    pixel = torch.stack([cache.pixels(int(v))[r] for v, r in zip(view, row, strict=True)])
    cast = CastRays(scene, range(4), scene.mesh()).take(view, pixel)
    assert torch.equal(rays.face, cast.face)
    assert torch.equal(rays.color, cast.color)
    assert torch.equal(rays.view, view)


@pytest.mark.parametrize("supersample", [1, 2, 3])
def test_codes(supersample: int) -> None:
    count, generator = supersample**2, torch.Generator().manual_seed(1)
    face = torch.randint(-1, 2**31, (200, count), generator=generator)
    face[0] = 0xFFFFFFFE
    weights = torch.rand(200, count, 3, generator=generator) ** 4
    weights = weights / weights.sum(-1, keepdim=True) * (face >= 0)[..., None]
    color = np.random.default_rng(0).integers(0, 256, (200, 3), dtype=np.uint8)
    records = encode(face, weights, color)
    assert records.itemsize == record_type(supersample).itemsize == 8 * count + 3
    rays = decode(records, torch.zeros(200, dtype=torch.int64))
    assert torch.equal(rays.face, face)
    assert (rays.barycentric - weights).abs().max() < 1.6e-5
    assert (rays.barycentric >= 0).all()
    assert rays.color.tolist() == color.tolist()


@pytest.mark.parametrize(("supersample", "most"), [(1, 11.3), (2, 8.9)])
def test_bytes_per_covered_sub_sample(
    posed_scene: Callable[..., Scene], tmp_path: Path, supersample: int, most: float
) -> None:
    scene = posed_scene(2, size=(120, 160))
    scene.surface = shape(2.0)
    made = write_ray_cache(scene, [0, 1], tmp_path, supersample)
    assert made.samples > 4000 * supersample**2
    assert made.bytes / made.samples < most


def test_large_photos_are_cast_in_tiles(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the tile, the same bytes; and no more rays at a time than allowed (or one row)."""
    write_ray_cache(scene, range(4), tmp_path / "whole", 2)
    monkeypatch.setattr(ray_cache, "_TILE_SAMPLES", 100)
    batches = []
    original = Rasterizer.at_pixels

    def counted(self, cameras, view, pixels):
        batches.append(pixels[..., 0].numel())
        return original(self, cameras, view, pixels)

    monkeypatch.setattr(Rasterizer, "at_pixels", counted)
    write_ray_cache(scene, range(4), tmp_path / "tiled", 2)
    assert max(batches) <= 100
    assert len(batches) > 20
    for path in (tmp_path / "whole").iterdir():
        assert path.read_bytes() == (tmp_path / "tiled" / path.name).read_bytes()


def remade(root: Path, cache: Path, supersample: int = 1) -> int:
    """How many views are cast by another run."""
    scene = open_scene(root)
    return write_ray_cache(scene, range(len(scene)), cache, supersample).made


def refused(root: Path, cache: Path, supersample: int = 1) -> str:
    """The message of a cache that must not be used."""
    scene = open_scene(root)
    with pytest.raises(UserError) as error:
        RayCache.open(cache, scene, range(len(scene)), supersample, root="data/x")
    return str(error.value)


def test_only_what_changed_is_made_again(stored: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert remade(stored, cache) == 4
    assert remade(stored, cache) == 0
    photo = stored / "images" / "0001.png"
    image = open_scene(stored).records[1].load().copy()
    image[0, 0, 0] ^= 1
    write_image(image, photo)
    message = refused(stored, cache)
    assert "view 0001 are of no use (the photo has changed)" in message
    assert f"run scripts/scene.py cache-rays data/x {cache} --supersample 1" in message
    assert remade(stored, cache) == 1
    text = stored / "cams" / "0002_cam.txt"
    text.write_text(text.read_text().replace("\n\nintrinsic\n", "\n\nintrinsic\n1"))  # fx: another digit
    assert "view 0002 are of no use (the camera has changed)" in refused(stored, cache)
    assert remade(stored, cache) == 1
    (cache / "0003.rays").unlink()
    assert "view 0003 are of no use (they are missing or cut off)" in refused(stored, cache)
    assert remade(stored, cache) == 1
    with (stored / "mesh.ply").open("ab") as file:
        file.write(b" ")
    assert "(the mesh has changed)" in refused(stored, cache)
    assert remade(stored, cache) == 4
    assert "(made with --supersample 1, not 2)" in refused(stored, cache, 2)
    assert "--supersample 2" in refused(stored, cache, 2)
    assert remade(stored, cache, 2) == 4
    assert remade(stored, cache, 2) == 0


def test_rounding_of_a_pose_on_another_machine_is_no_change(scene: Scene, tmp_path: Path) -> None:
    write_ray_cache(scene, [0, 1], tmp_path)
    camera = scene.records[0].camera
    scene.records[0].camera = replace(camera, c2w=camera.c2w * (1 + 4e-16), K=camera.K * (1 - 4e-16))
    assert write_ray_cache(scene, [0, 1], tmp_path).made == 0
    RayCache.open(tmp_path, scene, [0, 1])
    scene.records[0].camera = replace(camera, c2w=camera.c2w + 1e-6)
    assert write_ray_cache(scene, [0, 1], tmp_path).made == 1


def test_another_lens_is_a_change(scene: Scene, tmp_path: Path) -> None:
    write_ray_cache(scene, [0], tmp_path)
    scene.records[0].lens = Lens(scene.records[0].camera.K.numpy(), (-0.01, 0.0, 0.0), (0.0, 0.0))
    assert write_ray_cache(scene, [0], tmp_path).made == 1


@pytest.mark.parametrize("keep", [0, 3, 15, 200, -1])
def test_files_that_are_cut_off(scene: Scene, tmp_path: Path, keep: int) -> None:
    write_ray_cache(scene, [0], tmp_path)
    whole = (tmp_path / "0000.rays").read_bytes()
    (tmp_path / "0000.rays").write_bytes(whole[:keep])
    with pytest.raises(UserError, match="view 0000 are of no use \\(they are missing or cut off"):
        RayCache.open(tmp_path, scene, [0])
    assert write_ray_cache(scene, [0], tmp_path).made == 1
    assert (tmp_path / "0000.rays").read_bytes() == whole


def test_damage_is_found_and_leftovers_are_removed(scene: Scene, tmp_path: Path) -> None:
    write_ray_cache(scene, [0], tmp_path)
    whole = (tmp_path / "0000.rays").read_bytes()
    (tmp_path / "0000.rays").write_bytes(whole[:50] + bytes([whole[50] ^ 4]) + whole[51:])
    (tmp_path / ".0001.rays.77.tmp").write_bytes(b"half")
    assert write_ray_cache(scene, [0], tmp_path).made == 1
    assert [path.name for path in tmp_path.iterdir()] == ["0000.rays"]
    assert (tmp_path / "0000.rays").read_bytes() == whole


def test_a_file_of_another_version(scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_ray_cache(scene, [0], tmp_path)
    data = (tmp_path / "0000.rays").read_bytes()
    (tmp_path / "0000.rays").write_bytes(data.replace(b'"version": 1', b'"version": 0'))
    with pytest.raises(UserError, match="made by another version"):
        RayCache.open(tmp_path, scene, [0])
    assert json.dumps({"version": 1})[1:-1].encode() in data


def test_views_that_see_nothing(scene: Scene, tmp_path: Path) -> None:
    """One is left out; all are an error that says where mesh and cameras lie, and leave nothing."""
    scene.records[2].camera.c2w[:3, 3] += 100
    made = write_ray_cache(scene, range(4), tmp_path / "some")
    assert (made.views, made.unseen) == (3, ["0002"])
    assert write_ray_cache(scene, range(4), tmp_path / "some").made == 0
    cache = RayCache.open(tmp_path / "some", scene, range(4))
    assert cache.sizes[2] == 0
    assert len(cache.pixels(2)) == 0
    assert len(all_rays(cache)) == made.pixels
    with pytest.raises(UserError, match="none of the chosen views sees the mesh"):
        RayCache.open(tmp_path / "some", scene, [2])
    scene.surface = shape(scale=0.1, shift=1000.0)
    with pytest.raises(UserError) as error:
        write_ray_cache(scene, range(4), tmp_path / "none")
    assert "none of the 4 views sees the mesh" in str(error.value)
    assert "[999.9, 1000] x [999.9, 1000] x [999.9, 1000], the cameras within [" in str(error.value)
    assert not (tmp_path / "none").exists()


def test_nonsense(scene: Scene, tmp_path: Path) -> None:
    for indices, supersample, max_size, message in (
        ([9], 1, 0, "no view 9"),
        ([], 1, 0, "no view was chosen"),
        ([0], 0, 0, "supersample is 0"),
        ([0], 1, -1, "max_size -1"),
    ):
        with pytest.raises(UserError, match=message):
            write_ray_cache(scene, indices, tmp_path / "out", supersample, max_size)
    scene.surface = None
    with pytest.raises(UserError, match="has no mesh"):
        write_ray_cache(scene, [0], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").write_text("")
    scene.surface = shape()
    with pytest.raises(UserError, match="cannot write"):
        write_ray_cache(scene, [0], tmp_path / "file")
