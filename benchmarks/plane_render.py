"""How fast multi-plane images are rendered and photos swept, beside the plain PyTorch twin and copying.

Every line times one piece of work for one view in two ways that must agree: the kernels that 'auto' chooses
here, and the twin. All take turns, round by round, with a copy of a large tensor, each for a fifth of a
second or one call; times are those of the best call. What has to be read is counted once: the layers for a
view, and in the gradient once more with the gradient written; of a sweep the volume that is written. Memory
is what each way takes more than before.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from common.cli import command_parser, positive
from common.errors import command
from common.files import replacing
from engine.device import best_device, clock
from engine.profiling import peak_memory
from geometry.cameras import Cameras, pinhole
from geometry.plane_render import Backend, choose_backend, render_planes, sweep_photos
from geometry.planes import PlaneImage, plane_depths

EXAMPLES = """
python benchmarks/plane_render.py
python benchmarks/plane_render.py --sizes 320x180 --planes 64 --rounds 10 --json outputs/plane_render.json
"""
COPY_BYTES = 1 << 28
TURN = 0.2  # seconds
AGREEMENT = 1e-4  # largest difference from the twin, whose float32 grid places a sample to 1e-4 texels


@dataclass
class Line:
    """One line of the table.

    work: what is done. backend: what does it. size: width x height x planes. milliseconds, megabytes: of one
    view, and the memory it takes at most. gigabytes_per_second: of what must be read and written; copy_share:
    that over the copy bandwidth. twin_milliseconds, twin_megabytes: of the twin. ratio: how many times faster
    ours is. difference: largest between the results, relative to the largest value where that is above 1.
    """

    work: str
    backend: str
    size: str
    milliseconds: float
    views_per_second: float
    gigabytes_per_second: float
    copy_share: float
    megabytes: float
    twin_milliseconds: float
    twin_megabytes: float
    ratio: float
    difference: float


@dataclass
class Work:
    """One piece of work: what is done, size as in the table, bytes that must move, both ways to do it."""

    name: str
    size: str
    bytes_moved: int
    ours: Callable[[], Tensor]
    twin: Callable[[], Tensor]


def target(width: int, height: int) -> Cameras:
    """A camera [1] a little aside, ahead and turned, of the planes' size."""
    pose = torch.eye(4, dtype=torch.float64)
    angle = torch.tensor(0.03, dtype=torch.float64)
    pose[0, 0] = pose[2, 2] = angle.cos()
    pose[0, 2], pose[2, 0] = angle.sin(), -angle.sin()
    pose[:3, 3] = torch.tensor([0.08, -0.03, 0.05])
    return pinhole(0.9 * width, height, width, pose).reshape(1)


def random_planes(width: int, height: int, count: int, device: torch.device) -> PlaneImage:
    """Planes that let a tenth of what they could shine through to the last, so that all of them are read."""
    generator = torch.Generator().manual_seed(0)
    layers = torch.rand(count, height, width, 4, generator=generator)
    layers[..., 3] *= 4 / count
    return PlaneImage(layers.to(device), plane_depths(1.0, 100.0, count), pinhole(0.9 * width, height, width))


def view(planes: PlaneImage, camera: Cameras, backend: Backend) -> Tensor:
    """Everything that is seen: [1, 5, h, w]."""
    made = render_planes(planes, camera, backend)
    return torch.cat([made.color, made.alpha, made.disparity], 1)


def gradient(planes: PlaneImage, camera: Cameras, backend: Backend) -> Tensor:
    """Of the sum of squares of all that is seen, by the layers."""
    layers = planes.layers.detach().requires_grad_()
    again = PlaneImage(layers, planes.depths, planes.camera)
    return torch.autograd.grad(view(again, camera, backend).square().sum(), layers)[0]


def work_of(width: int, height: int, count: int, device: torch.device) -> list[Work]:
    """All that is timed at one size."""
    size, camera = f"{width}x{height}x{count}", target(width, height)
    planes, chosen = random_planes(width, height, count, device), choose_backend("auto", device)
    half = PlaneImage(planes.layers.half(), planes.depths, planes.camera)
    photo = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(1)).to(device)
    layers, volume = 4 * planes.layers.numel(), 4 * photo.numel() * count

    def work(name: str, moved: int, run: Callable[..., Tensor], *fixed: object) -> Work:
        return Work(name, size, moved, partial(run, *fixed, chosen), partial(run, *fixed, "twin"))

    def swept(backend: Backend) -> Tensor:
        way: Backend = backend if backend == "twin" else "auto"
        return sweep_photos(photo, camera, planes.camera, planes.depths, backend=way)

    return [
        work("render", layers, view, planes, camera),
        work("render float16", layers // 2, view, half, camera),
        work("render, gradient", 3 * layers, gradient, planes, camera),
        work("sweep of a photo", volume, swept),
    ]


def seconds(run: Callable[[], Tensor], device: torch.device) -> float:
    """Of the best call among those of a turn."""
    best, started = math.inf, clock(device)
    while best == math.inf or clock(device) - started < TURN:
        before = clock(device)
        run()
        best = min(best, clock(device) - before)
    return best


def compare(works: list[Work], rounds: int, device: torch.device) -> tuple[list[Line], float]:
    """Time all work by turns; also the copy bandwidth (read and written) in GB/s. Raises for disagreement."""
    source = torch.zeros(COPY_BYTES // 4, device=device)
    copied = torch.empty_like(source)
    memory, differences = [], []
    for work in works:
        made, wanted = work.ours(), work.twin()
        differences.append(float((made - wanted).abs().max() / wanted.abs().max().clamp(min=1)))
        if differences[-1] > AGREEMENT:
            raise RuntimeError(f"{work.name}, {work.size}: the two ways differ by {differences[-1]:.1e}")
        del made, wanted
        memory.append([peak_megabytes(run, device) for run in (work.ours, work.twin)])
    copies: list[float] = []
    times: list[tuple[list[float], list[float]]] = [([], []) for _ in works]
    for _ in range(rounds):
        copies.append(seconds(lambda: copied.copy_(source), device))
        for work, (own, other) in zip(works, times, strict=True):
            own.append(seconds(work.ours, device))
            other.append(seconds(work.twin, device))
    bandwidth = 2 * COPY_BYTES / min(copies) / 1e9
    lines = []
    for work, peaks, difference, (own, other) in zip(works, memory, differences, times, strict=True):
        best, twin = min(own), min(other)
        rate = work.bytes_moved / best / 1e9
        speed = 1e3 * best, 1 / best, rate, rate / bandwidth, peaks[0]
        beside = 1e3 * twin, peaks[1], twin / best, difference
        lines.append(Line(work.name, choose_backend("auto", device), work.size, *speed, *beside))
    return lines, bandwidth


def peak_megabytes(run: Callable[[], Tensor], device: torch.device) -> float:
    """How much more memory is held at most while this runs than before."""
    before = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).malloc_trim(0)  # what is free but kept would hide what is taken
    with peak_memory(device) as memory:
        run()
        clock(device)
    return max(memory.get("allocated", memory.get("resident", 0)) - before, 0) / 2**20


def table(lines: list[Line]) -> str:
    """The lines as text."""
    rows = [
        f"{'work':17} {'size':>11} {'backend':>8} | {'ms':>8} {'views/s':>8} {'GB/s':>6} {'of copy':>7}"
        f" {'MB':>6} | {'twin: ms':>8} {'MB':>6} | {'faster':>7} {'differ by':>9}"
    ]
    for line in lines:
        rows.append(
            f"{line.work:17} {line.size:>11} {line.backend:>8} | {line.milliseconds:8.2f}"
            f" {line.views_per_second:8.1f} {line.gigabytes_per_second:6.1f} {line.copy_share:7.0%}"
            f" {line.megabytes:6.0f} | {line.twin_milliseconds:8.1f} {line.twin_megabytes:6.0f} |"
            f" {line.ratio:6.1f}x {line.difference:9.1e}"
        )
    return "\n".join(rows)


def image_size(text: str) -> tuple[int, int]:
    """(width, height) of WIDTHxHEIGHT."""
    width, _, height = text.partition("x")
    if not (width.isdigit() and height.isdigit() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 640x360")
    return int(width), int(height)


@command
def main() -> None:
    parser = command_parser(__doc__ or "", EXAMPLES)
    sizes = [(160, 90), (640, 360)]
    parser.add_argument(
        "--sizes", type=image_size, nargs="+", default=sizes, metavar="WxH", help="default: 160x90 640x360"
    )
    parser.add_argument("--planes", type=positive(int), default=32, help="default: 32")
    parser.add_argument("--rounds", type=positive(int), default=3, help="turns of everything (default: 3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers as JSON")
    args = parser.parse_args()
    device = best_device()
    works = [work for width, height in args.sizes for work in work_of(width, height, args.planes, device)]
    lines, bandwidth = compare(works, args.rounds, device)
    print(table(lines))
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    threads = f"{torch.get_num_threads()} threads of {os.cpu_count()} logical CPUs"
    print(f"{name}, {threads}; copies at {bandwidth:.1f} GB/s; best calls of {args.rounds} rounds")
    if args.json is not None:
        report = {
            "machine": f"{name}, {threads}",
            "copy_gigabytes_per_second": bandwidth,
            "lines": [asdict(line) for line in lines],
        }
        with replacing(args.json) as partial_file:
            partial_file.write_text(json.dumps(report, indent=2) + "\n")
        print(args.json)


if __name__ == "__main__":
    main()
