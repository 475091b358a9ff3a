"""How much is saved by encoding the source views of LVSM once, beside the original's schedule.

The same weights render the same targets with the sources' keys and values kept, and with one full pass per
target over all tokens under the unofficial code's mask. A third way is that pass without the mask: the
official code's schedule, the same work for other images. All take turns, round by round; times are medians,
and every ratio is of the same round.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from common.cli import add_boolean, command_parser, positive
from common.errors import UserError, command
from common.files import replacing
from engine.device import best_device, clock
from engine.profiling import count_flops, matmul_peak
from engine.random_views import random_views
from geometry.cameras import Cameras
from geometry.views import Views
from methods.lvsm.config import LossConfig, LvsmConfig, TransformerConfig
from methods.lvsm.method import Lvsm
from methods.lvsm.network import MaskedDecoder
from methods.lvsm.normalise import source_frame

EXAMPLES = """
python benchmarks/lvsm_render.py
python benchmarks/lvsm_render.py --width 768 --layers 24 --heads 12 --dtype bfloat16 --compile
python benchmarks/lvsm_render.py --targets 4 --rounds 1 --size 128 --json outputs/lvsm_render.json
"""
AGREEMENT = {"float32": 1e-5, "bfloat16": 2e-2}  # largest difference of the images
WEIGHTS = 5  # times their starting size


@dataclass
class Timing:
    """One line of the table. Seconds and FLOPs are of all targets together, encoding included.

    ratio, unmasked_ratio: seconds of full passes with and without a mask over ours. flop_ratio: the same of
    the operations. peak_share: of ours, of the machine's own matrix products. difference: largest between our
    images and those of the masked passes; spread: standard deviation of these, which shows that there is
    something to differ in.
    """

    sources: int
    targets: int
    cached_seconds: float
    full_seconds: float
    unmasked_seconds: float
    ratio: float
    unmasked_ratio: float
    cached_flops: int
    full_flops: int
    flop_ratio: float
    peak_share: float
    difference: float
    spread: float


def make_method(args: argparse.Namespace) -> Lvsm:
    """A model with random weights, large enough for the attention to matter."""
    width, heads = args.width, args.heads
    config = LvsmConfig(
        transformer=TransformerConfig(
            width=width,
            layers=args.layers,
            heads=heads,
            head_dim=width // heads,
            mlp=4 * width,
            patch=8,
        ),
        loss=LossConfig(perceptual=0.0, network="none"),
    )
    config.render.targets = args.at_once
    config.render.dtype = args.dtype
    config.render.compile = args.compile
    torch.manual_seed(0)
    method = Lvsm.create(config)
    method.initialise()
    with torch.no_grad():
        for parameter in method.parameters():
            if parameter.ndim > 1:
                parameter.mul_(WEIGHTS)
    method.prepare_inference()
    return method.to(best_device())


@torch.no_grad()
def full_passes(method: Lvsm, source: Views, cameras: Cameras, masked: bool = True) -> Tensor:
    """The originals' schedule: every target with all sources in one sequence."""
    network = method.model.network
    assert isinstance(network, MaskedDecoder)
    images, rays, targets = inputs(method, source, cameras)
    sources = images.shape[1] * rays.shape[-2] * rays.shape[-1] // network.patch**2
    tokens = sources // images.shape[1]
    ids = torch.cat([torch.zeros(sources), torch.ones(tokens)]).to(images.device)
    mask = (ids[:, None] == ids) | (ids == 0) if masked else None
    made = []
    for i in range(targets.shape[1]):
        target = targets[:, i : i + 1]
        x = torch.cat([network.tokenize_sources(images, rays), network.tokenize_targets(target)], dim=1)
        x = network.norm_in(x)
        for block in network.blocks:
            x = block(x, None, mask)[0]
        made.append(network.images(x[:, sources:], target)[0])
    return torch.cat(made)


def inputs(method: Lvsm, source: Views, cameras: Cameras) -> tuple[Tensor, Tensor, Tensor]:
    """Source images and rays, and target rays, as the transformer takes them: [1, V, C, H, W]."""
    placed = source_frame(source.cameras)
    model = method.model
    images = model.image_inputs(source.images[None])
    return images, model.ray_inputs(placed(source.cameras)[None]), model.ray_inputs(placed(cameras)[None])


def timed(work: Callable[[], Tensor], device: torch.device) -> tuple[float, Tensor]:
    """Seconds of one call, and what it returned."""
    started = clock(device)
    made = work()
    return clock(device) - started, made


def measure(method: Lvsm, views: Views, sources: int, rounds: int, peak: float) -> Timing:
    """One line: the first `sources` views are given, the others made."""
    device = best_device()
    source, cameras = views[:sources], views.cameras[sources:]

    def cached() -> Tensor:
        return method.render(method.encode(source), cameras).image

    def full() -> Tensor:
        return full_passes(method, source, cameras)

    def unmasked() -> Tensor:
        return full_passes(method, source, cameras, masked=False)

    work = {"cached": cached, "full": full, "unmasked": unmasked}
    flops = {name: count_flops(function) for name, function in work.items()}  # also warms up
    seconds: dict[str, list[float]] = {name: [] for name in work}
    made = {}
    for _ in range(rounds):
        for name, function in work.items():
            taken, made[name] = timed(function, device)
            seconds[name].append(taken)
    ratios = {
        name: median(a / b for a, b in zip(seconds[name], seconds["cached"], strict=True)) for name in work
    }
    return Timing(
        sources=sources,
        targets=len(cameras),
        cached_seconds=median(seconds["cached"]),
        full_seconds=median(seconds["full"]),
        unmasked_seconds=median(seconds["unmasked"]),
        ratio=ratios["full"],
        unmasked_ratio=ratios["unmasked"],
        cached_flops=flops["cached"],
        full_flops=flops["full"],
        flop_ratio=flops["full"] / flops["cached"],
        peak_share=flops["cached"] / median(seconds["cached"]) / peak,
        difference=float((made["cached"] - made["full"].clamp(0, 1)).abs().max()),
        spread=float(made["full"].std()),
    )


def table(timings: list[Timing]) -> str:
    """The timings as text."""
    lines = [
        f"{'sources':>7} | {'kept: ms/view':>13} {'GFLOP/view':>10} {'of peak':>7} |"
        f" {'masked: ms/view':>15} {'GFLOP/view':>10} {'faster':>7} {'by FLOPs':>8} {'differ by':>9} |"
        f" {'unmasked: ms/view':>17} {'faster':>7} {'of FLOPs':>8}"
    ]
    for t in timings:
        lines.append(
            f"{t.sources:7d} | {1e3 * t.cached_seconds / t.targets:13.1f}"
            f" {t.cached_flops / t.targets / 1e9:10.2f} {t.peak_share:7.0%} |"
            f" {1e3 * t.full_seconds / t.targets:15.1f} {t.full_flops / t.targets / 1e9:10.2f}"
            f" {t.ratio:6.2f}x {t.flop_ratio:7.2f}x {t.difference:9.1e} |"
            f" {1e3 * t.unmasked_seconds / t.targets:17.1f} {t.unmasked_ratio:6.2f}x"
            f" {t.unmasked_ratio / t.flop_ratio:8.0%}"
        )
    return "\n".join(lines)


@command
def main() -> None:
    parser = command_parser(__doc__ or "", EXAMPLES)
    parser.add_argument("--sources", type=positive(int), nargs="+", default=[2, 4, 8], metavar="N")
    parser.add_argument("--targets", type=positive(int), default=30, help="views made (default: 30)")
    parser.add_argument("--size", type=positive(int), default=256, help="pixels a side (default: 256)")
    parser.add_argument("--width", type=positive(int), default=64, help="of tokens (default: 64)")
    parser.add_argument("--layers", type=positive(int), default=2, help="default: 2")
    parser.add_argument("--heads", type=positive(int), default=2, help="default: 2")
    parser.add_argument("--at_once", type=positive(int), default=2, help="targets per batch (default: 2)")
    parser.add_argument("--rounds", type=positive(int), default=3, help="default: 3")
    parser.add_argument("--dtype", default="float32", choices=sorted(AGREEMENT), help="default: float32")
    add_boolean(parser, "--compile", help="compile the transformer")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers as JSON")
    args = parser.parse_args()
    if args.size % 8 or args.width % args.heads:
        raise UserError("--size must be a multiple of 8 and --width of --heads")
    device, started = best_device(), time.perf_counter()
    peak = matmul_peak(device, getattr(torch, args.dtype))
    method, timings = make_method(args), []
    for sources in args.sources:
        views = random_views(sources + args.targets, args.size, args.size).to(device)
        timings.append(measure(method, views, sources, args.rounds, peak))
    print(table(timings))
    print(
        f"{args.targets} targets, medians of {args.rounds} rounds on {device.type}, {os.cpu_count()} logical "
        f"CPUs, {args.dtype}, "
        f"{args.layers} layers of {args.width}; peak: {peak / 1e9:.0f} GFLOP/s of matrix products here; "
        f"{time.perf_counter() - started:.0f} s in all"
    )
    for timing in timings:
        if timing.difference > AGREEMENT[args.dtype]:
            raise RuntimeError(f"{timing.sources} sources: the two ways differ by {timing.difference:.1e}")
    if args.json is not None:
        with replacing(args.json) as partial:
            partial.write_text(json.dumps([asdict(timing) for timing in timings], indent=2) + "\n")
        print(args.json)


if __name__ == "__main__":
    main()
