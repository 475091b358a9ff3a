"""How fast lifted photos are rendered from new cameras: frames and rays per second, and where the time goes.

Each case renders one coloured mesh along a spiral with 4x multisampling and back-face culling
(geometry.rasterize), and again the simple way: for every frame remove the back faces, build a new scene,
cast, and shade. Both ways make the same pictures, which is checked.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.cli import command_parser, positive
from common.errors import command
from common.files import replacing
from dataloader.builtin import motorcycle
from geometry.cameras import Cameras, pinhole
from geometry.lifting import depth_scale, lift_depth
from geometry.mesh_files import read_mesh
from geometry.meshes import Mesh
from geometry.paths import spiral
from geometry.rasterize import SUBSAMPLES, Rasterizer, render_vertex_colors

EXAMPLES = """
python benchmarks/warp.py
python benchmarks/warp.py --frames 5 --json outputs/warp.json
"""
SMALL = (166, 256)  # height, width: what the diffusion warps are rendered at
ROUNDS = 3  # each way is timed so often
AGREEMENT = 45.0  # dB between the two ways; they differ at the pixels of edges seen exactly edge-on


@dataclass
class Timing:
    """One line of the table. Times are wall-clock seconds, of the fastest of ROUNDS.

    build_share: of building the scene and rendering all frames; embree_share: of rendering them;
    simple_build_share: of the simple way's rendering.
    """

    case: str
    width: int
    height: int
    faces: int
    frames: int
    build_seconds: float
    build_share: float
    frames_per_second: float
    rays_per_second: float
    embree_share: float
    embree_rays_per_second: float
    simple_frames_per_second: float
    simple_build_share: float
    agreement_db: float

    @property
    def ratio(self) -> float:
        """How many times faster than the simple way, the one scene build included."""
        ours = self.build_seconds + self.frames / self.frames_per_second
        return self.frames / self.simple_frames_per_second / ours


class Stopwatch:
    """Stands in for a ray-casting scene and adds up the time spent in it."""

    def __init__(self, scene: Any) -> None:
        self._scene = scene
        self.seconds = 0.0
        self.rays = 0

    def _timed(self, query: Callable[..., Any], rays: Any, options: dict[str, Any]) -> Any:
        started = time.perf_counter()
        result = query(rays, **options)
        self.seconds += time.perf_counter() - started
        self.rays += rays.num_elements() // 6
        return result

    def cast_rays(self, rays: Any, **options: Any) -> Any:
        return self._timed(self._scene.cast_rays, rays, options)

    def list_intersections(self, rays: Any, **options: Any) -> Any:
        return self._timed(self._scene.list_intersections, rays, options)


def small_mesh(frames: int) -> tuple[str, Mesh, Cameras]:
    """The official MegaScenes mesh where the shared data is at hand, else the stereo photo made small."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    official = Path(os.environ.get("PARITY_DATA", default)) / "megascenes" / "hatfield" / "mesh.ply"
    if official.is_file():
        return "hatfield", read_mesh(official), spiral(pinhole(80.0, *SMALL), n=frames)
    return photo_mesh(frames, SMALL)


def photo_mesh(frames: int, size: tuple[int, int] | None = None) -> tuple[str, Mesh, Cameras]:
    """The built-in stereo photo, lifted by its depth."""
    view = motorcycle().views([0], size)[0]
    assert view.depth is not None
    depth = view.depth[0]
    mesh = lift_depth(depth, view.cameras, view.images.permute(1, 2, 0), max_angle=85.0)
    path = spiral(view.cameras, scale=depth_scale(depth[depth > 0]), n=frames, max_trans=0.3)
    return "motorcycle", mesh, path


def simple_render(mesh: Mesh, camera: Cameras) -> tuple[Tensor, float]:
    """One frame [3, H, W] with a scene of its own, and the seconds spent building that scene."""
    import open3d as o3d

    started = time.perf_counter()
    vertices, faces = mesh.vertices.numpy(), mesh.faces.numpy()
    colors = mesh.colors.numpy() if mesh.colors is not None else np.zeros_like(vertices)
    a, b, c = (vertices[faces[:, corner]] for corner in range(3))
    front = (np.cross(b - a, c - a) * (a - camera.center.numpy())).sum(-1) < 0
    faces = faces[front]
    scene = o3d.t.geometry.RaycastingScene()
    scene.add_triangles(
        o3d.core.Tensor(vertices.astype(np.float32)), o3d.core.Tensor(faces.astype(np.uint32))
    )
    scene.cast_rays(o3d.core.Tensor(np.ones((1, 6), np.float32)))
    built = time.perf_counter() - started
    centers = camera.pixel_centers().reshape(-1, 2)
    origin, through_center = (ray.numpy() for ray in camera.rays(centers, unit=False))
    picture = np.zeros((len(centers), 3))
    for offset in SUBSAMPLES:
        pixels = centers - 0.5 + torch.tensor(offset, dtype=centers.dtype)
        rays = np.concatenate([origin, camera.rays(pixels, unit=False)[1].numpy()], axis=1)
        face = scene.cast_rays(o3d.core.Tensor(rays.astype(np.float32)))["primitive_ids"].numpy()
        hit = face < len(faces)
        corners = vertices[faces[face[hit]]] - origin[hit][:, None]  # [P, 3, 3]
        sides = np.stack([np.cross(corners[:, (k + 1) % 3], corners[:, (k + 2) % 3]) for k in range(3)], 1)
        weights = np.einsum("pkc,pc->pk", sides, through_center[hit])
        weights /= weights.sum(-1, keepdims=True)
        picture[hit] += np.clip(np.einsum("pk,pkc->pc", weights, colors[faces[face[hit]]]), 0, 1) / 4
    image = torch.from_numpy(picture).T.reshape(3, camera.height, camera.width)
    return image.float(), built


def fastest(run: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of the fastest of ROUNDS calls, and what it returned."""
    timed = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        result = run()
        timed.append((time.perf_counter() - started, result))
    return min(timed, key=lambda pair: pair[0])


def measure(case: str, mesh: Mesh, cameras: Cameras) -> Timing:
    """Render all cameras both ways."""
    Rasterizer(mesh, backend="embree")  # loads Open3D
    build, rasterizer = fastest(lambda: Rasterizer(mesh, backend="embree"))
    render_vertex_colors(rasterizer, cameras[:1])
    scene = rasterizer._caster.scene
    raw = scene.raw

    def ours() -> tuple[Tensor, Stopwatch]:
        scene.raw = Stopwatch(raw)
        return render_vertex_colors(rasterizer, cameras).image, scene.raw

    seconds, (images, watch) = fastest(ours)
    simple_seconds, simple = fastest(lambda: [simple_render(mesh, camera) for camera in each(cameras)])
    error = torch.stack([image for image, _ in simple]).sub(images).square().mean().item()
    frames = len(cameras)
    rays = frames * len(SUBSAMPLES) * cameras.height * cameras.width
    return Timing(
        case=case,
        width=cameras.width,
        height=cameras.height,
        faces=len(mesh.faces),
        frames=frames,
        build_seconds=build,
        build_share=build / (build + seconds),
        frames_per_second=frames / seconds,
        rays_per_second=rays / seconds,
        embree_share=watch.seconds / seconds,
        embree_rays_per_second=watch.rays / watch.seconds,
        simple_frames_per_second=frames / simple_seconds,
        simple_build_share=sum(built for _, built in simple) / simple_seconds,
        agreement_db=float(-10 * np.log10(max(error, 1e-12))),
    )


def each(cameras: Cameras) -> list[Cameras]:
    """The single cameras of a batch."""
    return [cameras[i] for i in range(len(cameras))]


def table(timings: list[Timing]) -> str:
    """The timings as text."""
    lines = [
        f"{'mesh':10} {'size':>7} {'triangles':>9} {'frames/s':>8} {'Mrays/s':>7} {'in Embree':>9}"
        f" {'in build':>8} {'build':>7} | {'simple: frames/s':>16} {'in build':>8} |"
        f" {'faster':>6} {'agree':>7}"
    ]
    for t in timings:
        lines.append(
            f"{t.case:10} {f'{t.width}x{t.height}':>7} {t.faces:9d} {t.frames_per_second:8.1f}"
            f" {t.rays_per_second / 1e6:7.2f} {t.embree_share:9.0%} {t.build_share:8.0%}"
            f" {t.build_seconds:6.3f}s | {t.simple_frames_per_second:16.2f} {t.simple_build_share:8.0%}"
            f" | {t.ratio:5.1f}x {t.agreement_db:4.0f} dB"
        )
    return "\n".join(lines)


@command
def main() -> None:
    parser = command_parser(__doc__ or "", EXAMPLES)
    parser.add_argument(
        "--frames", type=positive(int), default=10, metavar="N", help="cameras per case (default: 10)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers as JSON")
    args = parser.parse_args()
    timings = [measure(*small_mesh(args.frames)), measure(*photo_mesh(args.frames))]
    for timing in timings:
        if timing.agreement_db < AGREEMENT:
            raise RuntimeError(f"{timing.case}: the two ways differ ({timing.agreement_db:.1f} dB)")
    print(table(timings))
    print(f"fastest of {ROUNDS} rounds of {args.frames} frames; {os.cpu_count()} logical CPUs")
    print("'faster' is per frame, with the one scene build counted in")
    if args.json is not None:
        report = [{**asdict(timing), "ratio": timing.ratio} for timing in timings]
        with replacing(args.json) as partial:
            partial.write_text(json.dumps(report, indent=2) + "\n")
        print(args.json)


if __name__ == "__main__":
    main()
