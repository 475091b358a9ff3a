"""What cached surface rays take on disk, and how fast they are written, read at random, and cast on demand.

For supersampling 1 and 2, beside the original's way in the same run: float32 tensors of position, normal and
direction per sub-sample and colour per pixel (48 and 156 bytes per pixel), one file per view.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from common.cli import command_parser, positive
from common.errors import command
from common.files import replacing
from dataloader.formats import open_scene
from dataloader.ray_cache import RayCache, write_ray_cache
from dataloader.scene import Scene
from dataloader.surface_rays import CastRays, SurfaceRays
from geometry.cameras import Cameras
from geometry.meshes import Mesh

EXAMPLES = """
python benchmarks/ray_cache.py
python benchmarks/ray_cache.py --scene data/temple --rays 49152 --json outputs/ray_cache.json
"""
ROUNDS = 5  # draws timed; the fastest counts


@dataclass
class Timing:
    """One line of the table. Rays are pixels with all their sub-samples; bytes are per covered sub-sample.

    tensor_*: the original's float32 tensors, read through a memory map and written from rays already cast.
    """

    supersample: int
    views: int
    pixels: int
    bytes_per_sample: float
    tensor_bytes_per_sample: float
    written_per_second: float
    tensor_written_per_second: float
    read_per_second: float
    tensor_read_per_second: float
    cast_per_second: float
    largest_error: float


def fastest(run: Callable[[], object]) -> float:
    """Seconds of the fastest of ROUNDS calls."""
    times = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return min(times)


def tensors_of(rays: SurfaceRays, mesh: Mesh, normals: Tensor, cameras: Cameras) -> Tensor:
    """The original's numbers [N, 9 S + 3] float32: position, normal, direction, colour."""
    xyz = rays.interpolate(mesh.faces, mesh.vertices)
    normal = torch.nn.functional.normalize(rays.interpolate(mesh.faces, normals), dim=-1)
    direction = torch.nn.functional.normalize(xyz - cameras.center[rays.view][:, None], dim=-1)
    return torch.cat([*(part.flatten(1) for part in (xyz, normal, direction)), rays.color / 256], -1).float()


def vertex_normals(mesh: Mesh) -> Tensor:
    """Area-weighted normals [V, 3]."""
    a, b, c = (mesh.vertices[mesh.faces[:, corner]] for corner in range(3))
    face = torch.linalg.cross(b - a, c - a)
    total = torch.zeros_like(mesh.vertices)
    for corner in range(3):
        total.index_add_(0, mesh.faces[:, corner], face)
    return torch.nn.functional.normalize(total, dim=-1)


class TensorCache:
    """The original's tensors, one memory-mapped file per view."""

    def __init__(self, cache: RayCache, mesh: Mesh, cameras: Cameras, folder: Path) -> None:
        self.files, normals, self.seconds = [], vertex_normals(mesh), 0.0
        for view, size in enumerate(cache.sizes.tolist()):
            rays = cache.take(torch.full((size,), view), torch.arange(size))
            path = folder / f"{view}.npy"
            started = time.perf_counter()
            np.save(path, tensors_of(rays, mesh, normals, cameras).numpy())
            self.seconds += time.perf_counter() - started
            self.files.append(path)
        self.bytes = sum(path.stat().st_size for path in self.files)
        self._maps = [np.load(path, mmap_mode="r") for path in self.files]

    def take(self, view: Tensor, row: Tensor) -> Tensor:
        """[N, 9 S + 3] in the order asked for."""
        out = np.empty((len(view), self._maps[0].shape[1]), np.float32)
        for i, stored in enumerate(self._maps):
            mine = (view == i).numpy()
            out[mine] = stored[row.numpy()[mine]]
        return torch.from_numpy(out)


def measure(scene: Scene, supersample: int, rays: int, max_size: int) -> Timing:
    """Write, read and cast the training views of a scene."""
    indices, mesh = scene.split("train"), scene.mesh()
    with tempfile.TemporaryDirectory(prefix="ray_cache_") as name:
        started = time.perf_counter()
        made = write_ray_cache(scene, indices, Path(name) / "rays", supersample, max_size)
        seconds = time.perf_counter() - started
        cache = RayCache.open(Path(name) / "rays", scene, indices, supersample, max_size)
        cast = CastRays(scene, indices, mesh, supersample, max_size)
        tensors = TensorCache(cache, mesh, cast.cameras, Path(name))
        generator = torch.Generator().manual_seed(0)
        view = torch.randint(len(indices), (rays,), generator=generator)
        view = view[cache.sizes[view] > 0]
        row = (torch.rand(len(view), generator=generator) * cache.sizes[view]).long()
        pixels = [cache.pixels(i) for i in range(len(indices))]
        pixel = torch.stack([pixels[int(v)][r] for v, r in zip(view, row, strict=True)])
        stored, again = cache.take(view, row), cast.take(view, pixel)
        if not torch.equal(stored.face, again.face):
            raise RuntimeError("the cache holds other triangles than are cast")
        return Timing(
            supersample=supersample,
            views=made.views,
            pixels=made.pixels,
            bytes_per_sample=made.bytes / made.samples,
            tensor_bytes_per_sample=tensors.bytes / made.samples,
            written_per_second=made.pixels / seconds,
            tensor_written_per_second=made.pixels / tensors.seconds,
            read_per_second=len(view) / fastest(lambda: cache.take(view, row)),
            tensor_read_per_second=len(view) / fastest(lambda: tensors.take(view, row)),
            cast_per_second=len(view) / fastest(lambda: cast.take(view, pixel)),
            largest_error=(stored.barycentric - again.barycentric).abs().max().item(),
        )


def table(timings: list[Timing]) -> str:
    """The timings as text."""
    lines = [
        f"{'samples':>7} {'views':>5} {'pixels':>9} | {'bytes/sample':>12} {'tensors':>7} {'smaller':>7} |"
        f" {'written Mpx/s':>13} {'tensors':>7} | {'read Mpx/s':>10} {'tensors':>7} | {'cast Mpx/s':>10}"
        f" | {'error':>7}"
    ]
    for t in timings:
        lines.append(
            f"{f'{t.supersample}x{t.supersample}':>7} {t.views:5d} {t.pixels:9d} | {t.bytes_per_sample:12.2f}"
            f" {t.tensor_bytes_per_sample:7.2f} {t.tensor_bytes_per_sample / t.bytes_per_sample:6.1f}x |"
            f" {t.written_per_second / 1e6:13.2f} {t.tensor_written_per_second / 1e6:7.2f} |"
            f" {t.read_per_second / 1e6:10.2f} {t.tensor_read_per_second / 1e6:7.2f} |"
            f" {t.cast_per_second / 1e6:10.2f} | {t.largest_error:7.1e}"
        )
    return "\n".join(lines)


@command
def main() -> None:
    parser = command_parser(__doc__ or "", EXAMPLES)
    parser.add_argument(
        "--scene", default="builtin:room", metavar="SCENE", help="scene with a mesh (default: builtin:room)"
    )
    parser.add_argument("--max_size", type=int, default=0, metavar="N", help="reduce the photos (default: 0)")
    parser.add_argument(
        "--rays", type=positive(int), default=16384, metavar="N", help="rays per draw (default: 16384)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers as JSON")
    args = parser.parse_args()
    scene = open_scene(args.scene)
    timings = [measure(scene, supersample, args.rays, args.max_size) for supersample in (1, 2)]
    print(table(timings))
    print(f"draws of {args.rays} rays, fastest of {ROUNDS}; {os.cpu_count()} logical CPUs")
    print("error: of a barycentric weight; tensors: written without the time of casting")
    if args.json is not None:
        with replacing(args.json) as partial:
            partial.write_text(json.dumps([asdict(timing) for timing in timings], indent=2) + "\n")
        print(args.json)


if __name__ == "__main__":
    main()
