"""How fast a hash grid is encoded and trained, beside the plain PyTorch twin and the copy bandwidth.

First table: one forward and backward pass over the points, for every implementation that runs here. Second:
a whole training step (encode, a small network, its loss, both optimisers), the simple way with dense Adam
and ours. All ways take turns, round by round, and a ratio is the median of those of the rounds.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median

import psutil
import torch
from torch import Tensor, nn

from common.cli import command_parser, positive
from common.errors import command
from common.files import replacing
from methods.hash_manifold.grid.buffers import BUFFERS
from methods.hash_manifold.grid.encoding import HashGrid, Implementation, can_compile
from methods.hash_manifold.grid.layout import GridConfig, GridLayout
from methods.hash_manifold.lazy_adam import LazyAdam

EXAMPLES = """
python benchmarks/hash_grid.py
python benchmarks/hash_grid.py --log2_hashmap_size 22 --rounds 3 --json outputs/hash_grid.json
"""
WARM_UP = 64  # points: enough to compile
COPY_BYTES = 1 << 28
AGREEMENT = 1e-4  # largest difference of features and gradients from the twin's, relative to their largest


@dataclass
class Timing:
    """One line of a table. Times are seconds, the median of the rounds.

    ratio: how many times faster than the first line. gigabytes: what has to move, 0 where not counted: table
    rows read (and in the backward pass also written), features and their gradients. copy_share: that, per
    second, as a share of the copy bandwidth measured in the same rounds; caches can take it above 1.
    peak_megabytes: largest growth of memory while it first runs.
    """

    way: str
    seconds: float
    ratio: float
    points_per_second: float
    gigabytes: float
    copy_share: float
    peak_megabytes: float


Ways = dict[str, Callable[[], object]]


def surface_points(count: int, device: torch.device) -> Tensor:
    """Points [count, 3] of a sphere within [0, 1]^3, in random order."""
    directions = torch.randn(count, 3, generator=torch.Generator().manual_seed(0))
    return (0.5 + 0.45 * nn.functional.normalize(directions, dim=1)).to(device)


def bytes_moved(layout: GridLayout, count: int) -> float:
    """Gigabytes that one forward and backward pass cannot avoid moving, if no cache held any of them."""
    config = layout.config
    corners = 1 if config.interpolation == "Nearest" else 1 << config.n_dims
    features = 4 * count * layout.n_outputs
    return (features * corners + features + 2 * features * corners + features) / 1e9


def available(device: torch.device) -> list[Implementation]:
    """The implementations that run on a device, the twin first."""
    names: list[Implementation] = ["twin"]
    if can_compile():
        names.append("compiled")
    if device.type == "cpu":
        return [*names, "numba"]
    optional: list[Implementation] = ["triton", "tinycudann"]
    return names + [name for name in optional if find_spec(name)]


def wait(device: torch.device) -> None:
    """Wait for what was asked of a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(run: Callable[[], object], device: torch.device) -> float:
    """Seconds of one call."""
    wait(device)
    started = time.perf_counter()
    run()
    wait(device)
    return time.perf_counter() - started


def peak_megabytes(run: Callable[[], object], device: torch.device) -> float:
    """How far memory grows during a call: allocated on a GPU, resident on a CPU (looked at every ms)."""
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        timed(run, device)
        return (torch.cuda.max_memory_allocated(device) - before) / 1e6
    BUFFERS.release()
    process, done, seen = psutil.Process(), threading.Event(), [0]
    before = process.memory_info().rss

    def watch() -> None:
        while not done.wait(0.001):
            seen.append(process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        run()
    finally:
        done.set()
        watcher.join()
    return (max(seen) - before) / 1e6 if max(seen) > before else 0.0


def take_turns(ways: Ways, rounds: int, device: torch.device) -> tuple[dict[str, list[float]], float]:
    """Seconds of every way in every round, and the copy bandwidth in GB/s (read and written) beside them."""
    source = torch.zeros(COPY_BYTES // 4, device=device)
    target = torch.zeros_like(source)
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    copies = []
    for _ in range(rounds):
        copies.append(timed(lambda: target.copy_(source), device))
        for way, run in ways.items():
            seconds[way].append(timed(run, device))
    return seconds, 2 * COPY_BYTES / median(copies) / 1e9


def compare(
    ways: Ways, rounds: int, device: torch.device, points: int, gigabytes: float
) -> tuple[list[Timing], float]:
    """Time the ways against the first of them; also the copy bandwidth in GB/s."""
    peaks = {way: peak_megabytes(run, device) for way, run in ways.items()}
    seconds, bandwidth = take_turns(ways, rounds, device)
    first = next(iter(seconds.values()))
    timings = []
    for way, own in seconds.items():
        ratio = median(a / b for a, b in zip(first, own, strict=True))
        share = gigabytes / median(own) / bandwidth
        timings.append(Timing(way, median(own), ratio, points / median(own), gigabytes, share, peaks[way]))
    return timings, bandwidth


def encode_ways(config: GridConfig, points: Tensor) -> tuple[Ways, GridLayout]:
    """A forward and backward pass by every implementation, on one table. They agree, or this raises."""
    device = points.device
    grid = HashGrid(config).to(device)
    nn.init.uniform_(grid.params, -1, 1)
    pull = torch.randn(len(points), grid.n_outputs, generator=torch.Generator().manual_seed(1)).to(device)

    def once(name: Implementation, sparse: bool, count: int) -> tuple[Tensor, Tensor]:
        grid.implementation, grid.sparse_gradient = name, sparse
        features = grid(points[:count])
        (gradient,) = torch.autograd.grad(features, grid.params, pull[:count])
        return features.detach(), gradient

    choices: list[tuple[Implementation, bool]] = [(name, False) for name in available(device)]
    if device.type == "cpu":
        choices.append(("numba", True))
    ways: Ways = {}
    twins = once("twin", False, WARM_UP)
    for name, sparse in choices:
        way = f"{name}, sparse gradient" if sparse else name
        for ours, wanted in zip(once(name, sparse, WARM_UP), twins, strict=True):
            ours = ours.to_dense()
            if (ours - wanted).abs().max() > AGREEMENT * wanted.abs().max():
                raise RuntimeError(f"{way} and the twin differ by {(ours - wanted).abs().max().item():.2g}")
        ways[way] = partial(once, name, sparse, len(points))
    return ways, grid.layout


def training_step(
    config: GridConfig, points: Tensor, implementation: Implementation, lazy: bool
) -> Callable[[], object]:
    """One optimisation step of a grid and a network 128 -> 64 -> 64 -> 3 that stands in for a decoder."""
    grid = HashGrid(config, implementation, sparse_gradient=lazy).to(points.device)
    torch.manual_seed(2)
    network = nn.Sequential(
        nn.Linear(grid.n_outputs, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 3)
    ).to(points.device)
    table_kind = LazyAdam if lazy else torch.optim.Adam
    optimizers = [table_kind(grid.parameters(), lr=1e-2), torch.optim.Adam(network.parameters(), lr=1e-3)]
    wanted = points.sin()

    def step() -> None:
        loss = (network(grid(points)) - wanted).abs().mean()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()

    return step


def training_ways(config: GridConfig, points: Tensor) -> Ways:
    """The simple way to train, and ours."""
    return {
        "twin, dense Adam": training_step(config, points, "twin", lazy=False),
        "auto, LazyAdam": training_step(config, points, "auto", lazy=True),
    }


def table(title: str, timings: list[Timing]) -> str:
    """Timings as text."""
    lines = [
        f"{title:24} {'seconds':>8} {'Mpoints/s':>9} {'GB':>6} {'GB/s':>6} {'of copy':>7}"
        f" {'peak MB':>8} {'faster':>7}"
    ]
    for t in timings:
        moved = f"{t.gigabytes:6.2f} {t.gigabytes / t.seconds:6.1f} {t.copy_share:7.0%}"
        lines.append(
            f"{t.way:24} {t.seconds:8.4f} {t.points_per_second / 1e6:9.3f}"
            f" {moved if t.gigabytes else '     -      -       -'} {t.peak_megabytes:8.0f} {t.ratio:6.1f}x"
        )
    return "\n".join(lines)


def machine(device: torch.device) -> str:
    """What was measured on."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{torch.get_num_threads()} threads, {os.cpu_count()} logical CPUs"


@command
def main() -> None:
    parser = command_parser(__doc__ or "", EXAMPLES)
    parser.add_argument(
        "--points", type=positive(int), default=49152, metavar="N", help="per pass (default: 49152)"
    )
    parser.add_argument(
        "--log2_hashmap_size", type=positive(int), default=19, metavar="N", help="of a level (default: 19)"
    )
    parser.add_argument(
        "--rounds", type=positive(int), default=5, metavar="N", help="turns of every way (default: 5)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers as JSON")
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    config = GridConfig(log2_hashmap_size=args.log2_hashmap_size)
    points = surface_points(args.points, device)
    ways, layout = encode_ways(config, points)
    moved = bytes_moved(layout, len(points))
    encoding, bandwidth = compare(ways, args.rounds, device, len(points), moved)
    ways.clear()  # and with them a table
    training, _ = compare(training_ways(config, points), args.rounds, device, len(points), 0.0)
    print(
        f"{config.n_levels} levels x {config.n_features} features, {layout.entries} entries;"
        f" {len(points)} points; {machine(device)}; copies at {bandwidth:.1f} GB/s"
    )
    print(table("forward and backward", encoding))
    print(table("training step", training))
    print(f"median of {args.rounds} rounds; 'faster' than the first line, side by side")
    if args.json is not None:
        report = {
            "points": len(points),
            "entries": layout.entries,
            "machine": machine(device),
            "copy_gigabytes_per_second": bandwidth,
            "encoding": [asdict(timing) for timing in encoding],
            "training": [asdict(timing) for timing in training],
        }
        with replacing(args.json) as partial:
            partial.write_text(json.dumps(report, indent=2) + "\n")
        print(args.json)


if __name__ == "__main__":
    main()
