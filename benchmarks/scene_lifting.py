"""What the parts of scene lifting cost: filling of depth edges, points splatted, the views of a 360 scene.

Most lines time one piece of work in two ways that must agree, by turns; times are the best of the rounds.
Filling is compared with a search of the nearest known pixel through all of them, which is the original's way,
and splatting in torch with the compiled splatting. The scene is grown with stand-ins for both networks, so
that what is left is the loop itself.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.cli import command_parser, positive
from common.errors import command
from common.files import replacing
from geometry.cameras import pinhole
from geometry.depth_edges import depth_steps, erode, snap_edges
from geometry.points import Backend, Weights, ndc_radius, splat
from methods.scene_lifting.config import GenerationConfig
from methods.scene_lifting.generation import generate, lift_photo
from methods.scene_lifting.plan import later_cameras

EXAMPLES = """
python benchmarks/scene_lifting.py
python benchmarks/scene_lifting.py --size 128 --points 10000 --rounds 1 --json outputs/scene_lifting.json
"""
SNAP_THRESHOLD, SNAP_EROSION = 12, 3  # of the method's default settings
_AT_ONCE = 1 << 23  # distances held in memory together by the search


@dataclass
class Line:
    """One line of the table.

    items: pixels, points or views of one call. seconds, peak_megabytes: of our way, and what the process held
    more than before at most. twin_seconds, twin_megabytes: the same of the other way, where there is one.
    ratio: how many times faster ours is. difference: largest between the results.
    """

    name: str
    items: int
    seconds: float
    peak_megabytes: float
    twin_seconds: float | None = None
    twin_megabytes: float | None = None
    ratio: float | None = None
    difference: float | None = None


def search_distances(known: Tensor) -> Tensor:
    """City-block distance [H, W] of every pixel to the known ones: an unknown one looks at each of them."""
    targets = known.nonzero().short()
    unknown = (~known).nonzero().short()
    distance = torch.zeros(known.shape, dtype=torch.int16)
    for part in unknown.split(max(1, _AT_ONCE // len(targets))):
        steps = (part[:, None, 0] - targets[:, 0]).abs_() + (part[:, None, 1] - targets[:, 1]).abs_()
        distance[part[:, 0].long(), part[:, 1].long()] = steps.min(1).values
    return distance


def fill_by_search(values: Tensor, known: Tensor) -> Tensor:
    """As `geometry.depth_edges.fill_from_known`, with a quadratic search and one pass over the whole image
    per layer.
    """
    distance = search_distances(known)
    flat = values.reshape(*known.shape, -1)
    for layer in range(1, int(distance.max()) + 1):
        below = torch.where((distance < layer)[..., None], flat, -torch.inf).permute(2, 0, 1)
        largest = torch.nn.functional.max_pool2d(below[None], 3, stride=1, padding=1)[0].permute(1, 2, 0)
        flat = torch.where((distance == layer)[..., None], largest, flat)
    return flat.reshape(values.shape)


class PeakMemory:
    """Samples what the process holds while a function runs."""

    def __init__(self) -> None:
        self.process = psutil.Process()

    def __call__(self, work: Callable[[], Tensor]) -> tuple[float, float, Tensor]:
        """Seconds, additional megabytes at the peak, and what the function returned."""
        import threading

        before, peak, done = self.process.memory_info().rss, [0], threading.Event()

        def watch() -> None:
            while not done.wait(0.005):
                peak[0] = max(peak[0], self.process.memory_info().rss - before)

        thread = threading.Thread(target=watch)
        thread.start()
        started = time.perf_counter()
        try:
            made = work()
        finally:
            seconds = time.perf_counter() - started
            done.set()
            thread.join()
        return seconds, peak[0] / 2**20, made


def compare(
    name: str, items: int, ours: Callable[[], Tensor], twin: Callable[[], Tensor], rounds: int
) -> Line:
    """Time both ways by turns, after a first call of ours."""
    measure, runs = PeakMemory(), []
    ours()  # warms up
    for _ in range(rounds):
        runs.append((measure(ours), measure(twin)))
    seconds, twin_seconds = (min(run[side][0] for run in runs) for side in (0, 1))
    memory, twin_memory = (max(run[side][1] for run in runs) for side in (0, 1))
    difference = float((runs[-1][0][2] - runs[-1][1][2]).abs().max())
    return Line(name, items, seconds, memory, twin_seconds, twin_memory, twin_seconds / seconds, difference)


def stepped_depth(size: int) -> Tensor:
    """A depth map of slanted discs before a wall, whose edges are smeared as a network smears them."""
    generator = torch.Generator().manual_seed(0)
    y, x = torch.meshgrid(torch.linspace(0, 1, size), torch.linspace(0, 1, size), indexing="ij")
    depth = 4 + x
    for cx, cy, radius, z in torch.rand(12, 4, generator=generator).tolist():
        inside = (x - cx) ** 2 + (y - cy) ** 2 < (0.05 + 0.15 * radius) ** 2
        depth = torch.where(inside, torch.minimum(depth, 1 + 2 * z + 0.3 * y), depth)
    return torch.nn.functional.avg_pool2d(depth[None, None], 5, 1, 2, count_include_pad=False)[0, 0]


def measure_filling(args: argparse.Namespace) -> list[Line]:
    """Snap the edges of a depth map."""
    depth = stepped_depth(args.size)

    def ours() -> Tensor:
        return snap_edges(depth, SNAP_THRESHOLD, SNAP_EROSION)

    def search() -> Tensor:
        return fill_by_search(depth, erode(depth_steps(depth) < SNAP_THRESHOLD, SNAP_EROSION))

    return [compare(f"snap {args.size}x{args.size}", depth.numel(), ours, search, args.rounds)]


def measure_splatting(args: argparse.Namespace) -> list[Line]:
    """Render points for an image of 768x1024."""
    camera = pinhole(1024.0, 768, 1024)
    generator = torch.Generator().manual_seed(0)
    z = 1 + 3 * torch.rand(args.points, generator=generator)
    x, y = torch.rand(2, args.points, generator=generator) - 0.5
    points = torch.stack([x * z, 0.75 * y * z, z], dim=1)
    colors = torch.rand(args.points, 3, generator=generator)

    def work(radius: float, weights: Weights, backend: Backend) -> Callable[[], Tensor]:
        def run() -> Tensor:
            made = splat(points, colors, camera, radius, weights, backend=backend)
            assert made.depth is not None
            return torch.cat([made.image, made.depth])

        return run

    kinds: list[tuple[str, float, Weights]] = [
        ("hard, 1 px", 1.0, "hard"),
        ("soft, 0.01", ndc_radius(0.01, camera), "soft"),
    ]
    lines = []
    for name, radius, weights in kinds:
        splat(points[:1], colors[:1], camera, radius, weights)  # compiles
        ours, twin = work(radius, weights, "auto"), work(radius, weights, "torch")
        lines.append(compare(f"splat {name}", args.points, ours, twin, args.rounds))
    return lines


def measure_scene(args: argparse.Namespace) -> list[Line]:
    """Grow a 360 scene of 12 views around a photo, with stand-ins for both networks."""
    config = GenerationConfig(mode="360", prompt="a room")
    photo = pinhole(float(args.size), args.size, args.size)
    depth = stepped_depth(args.size)
    image = (depth / depth.max()).expand(3, -1, -1).contiguous()
    cameras = later_cameras(photo, config)

    def complete(image: Tensor, sparse: Tensor, unit: float) -> Tensor:
        return torch.where(sparse > 0, sparse, 4 + image.mean(0))

    def paint(
        image: NDArray[np.uint8], hole: NDArray[np.uint8], prompt: str, negative_prompt: str, seed: int
    ) -> NDArray[np.uint8]:
        return np.where(hole[..., None] > 0, np.uint8(128), image)

    def grow() -> Tensor:
        scene = lift_photo(image, photo, depth, complete, config)
        return generate(scene, cameras, complete, paint, config).points

    measure = PeakMemory()
    runs = [measure(grow) for _ in range(args.rounds)]
    seconds, memory = min(run[0] for run in runs), max(run[1] for run in runs)
    return [Line(f"360 scene {args.size}", len(cameras), seconds, memory)]


MEASUREMENTS: list[Callable[[argparse.Namespace], list[Line]]] = [
    measure_filling,
    measure_splatting,
    measure_scene,
]


def table(lines: list[Line]) -> str:
    """The lines as text."""
    rows = [
        f"{'work':18} {'items':>8} | {'seconds':>8} {'items/s':>9} {'MB':>6} |"
        f" {'twin: s':>8} {'items/s':>9} {'MB':>6} | {'faster':>8} {'differ by':>9}"
    ]
    for line in lines:
        row = (
            f"{line.name:18} {line.items:8d} | {line.seconds:8.3f} {line.items / line.seconds:9.2e}"
            f" {line.peak_megabytes:6.0f} |"
        )
        if line.twin_seconds is not None:
            row += (
                f" {line.twin_seconds:8.3f} {line.items / line.twin_seconds:9.2e}"
                f" {line.twin_megabytes:6.0f} | {line.ratio:7.1f}x {line.difference:9.1e}"
            )
        rows.append(row)
    return "\n".join(rows)


@command
def main() -> None:
    parser = command_parser(__doc__ or "", EXAMPLES)
    parser.add_argument("--size", type=positive(int), default=512, help="of the depth map (default: 512)")
    parser.add_argument("--points", type=positive(int), default=1_000_000, help="default: 1000000")
    parser.add_argument("--rounds", type=positive(int), default=1, help="default: 1")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers as JSON")
    args = parser.parse_args()
    started = time.perf_counter()
    lines = [line for measure in MEASUREMENTS for line in measure(args)]
    print(table(lines))
    print(
        f"best of {args.rounds} rounds, {torch.get_num_threads()} threads of {os.cpu_count()} logical CPUs; "
        f"{time.perf_counter() - started:.0f} s in all"
    )
    for line in lines:
        if line.difference is not None and line.difference > 1e-5:
            raise RuntimeError(f"{line.name}: the two ways differ by {line.difference:.1e}")
    if args.json is not None:
        with replacing(args.json) as partial:
            partial.write_text(json.dumps([asdict(line) for line in lines], indent=2) + "\n")
        print(args.json)


if __name__ == "__main__":
    main()
