"""How fast, and how exactly, views are drawn from a diffusion model: the original's way and ours.

The original encodes the photo again for every call, draws the samples of one pose at a time by 49 stochastic
DDIM steps, and encodes and decodes a dummy target on the way. Ours encodes once and draws all poses together
by a few steps of a higher-order solver. Both start from the same noise; the error is that of the images, in
[0, 1], to the solution of the same equation in 1000 deterministic steps. --switches adds what every switch of
`model.sampling` does to held-out views and to the steadiness of a video.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from common.cli import add_boolean, command_parser, positive, progress
from common.errors import command
from common.files import replacing
from dataloader.room_pairs import RoomPairs
from dataloader.toy import make_boxes, make_cameras, render
from engine.checkpoint import find_trained, load_for_inference
from engine.device import best_device, clock
from engine.metrics import ImageMetrics
from engine.pairs import pair_batches
from geometry.cameras import Cameras
from geometry.views import Views
from geometry.warp import warp
from methods import create_method, load_experiment
from methods.warp_diffusion.conditioning import Condition
from methods.warp_diffusion.config import SamplingConfig
from methods.warp_diffusion.method import PhotoState, WarpDiffusion
from methods.warp_diffusion.model import LatentDiffusion
from methods.warp_diffusion.sampling import sample_latents, sample_original

EXAMPLES = """
python benchmarks/diffusion_sampling.py
python benchmarks/diffusion_sampling.py --poses 8 --rounds 5 --json outputs/diffusion_sampling.json
python benchmarks/diffusion_sampling.py -e configs/warp_diffusion/toy -r latest --switches
"""
ROOM = 30_000  # seed of a room that no training has seen
PATH_VIEWS = 8
SWITCHES = {
    "as is": {},
    "composite: latent": {"composite": "latent"},
    "composite: pixels": {"composite": "pixels"},
    "composite: both": {"composite": "both"},
    "noise: shared": {"noise": "shared"},
    "noise: warped": {"noise": "warped"},
    "sequential": {"sequential": True},
    "both, warped noise": {"composite": "both", "noise": "warped"},
    "both, sequential": {"composite": "both", "sequential": True},
}


@dataclass
class Line:
    """One way. evaluations: network calls per sample, counting both halves of guidance. seconds: median of
    the rounds. error: root mean square of the images' difference to the reference. faster: per sample, to
    the first line.
    """

    way: str
    evaluations: int
    seconds_per_sample: float
    seconds_per_pose: float
    error: float
    faster: float


@dataclass
class Switch:
    """One setting. dB over the pixels that the warp covers and the others, of held-out pairs; steadiness: dB
    between a video's frame and the one before carried along by the exact depth, where the photo shows
    nothing.
    """

    setting: str
    covered: float
    uncovered: float
    steadiness: float


@dataclass
class Task:
    """A photo, the poses to make, and the noise to start from, [S, N, C, s, s]."""

    method: WarpDiffusion
    source: Views
    cameras: Cameras
    noise: Tensor
    guidance: float

    def condition(self, state: PhotoState, chosen: slice) -> Condition:
        """What the network is told of some of the poses."""
        cameras = self.cameras[chosen]
        sources = [0] * len(cameras)
        return self.method.condition(state, sources, cameras, state.photos.warp(sources, cameras))


def make_task(method: WarpDiffusion, poses: int, samples: int, guidance: float) -> Task:
    """Views of a procedural room, from one of its photos."""
    size = method.config.resolution
    boxes = make_boxes(ROOM)
    cameras = make_cameras(ROOM, poses + 1, size, size, boxes)
    device = best_device()
    source = render(boxes, cameras[:1]).to(device)
    side = method.config.latent_size
    shape = (samples, poses, method.config.autoencoder.latent_channels, side, side)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device)
    return Task(method, source, cameras[1:].to(device), noise, guidance)


def repeated(condition: Condition, count: int) -> Condition:
    """The conditions of N views, `count` times over."""
    return Condition(condition.token.repeat(count, 1, 1), condition.channels.repeat(count, 1, 1, 1))


def draw_original(task: Task, eta: float = 1.0) -> Tensor:
    """The original's way: pose by pose, everything encoded again; images [S, N, 3, H, W]."""
    model, images = task.method.networks, []
    generator = torch.Generator().manual_seed(1)
    for n in range(len(task.cameras)):
        state = task.method.encode(task.source)
        black = torch.full_like(state.photos.padded(), -1).repeat(len(task.noise), 1, 1, 1)
        noise = task.noise[:, n]
        model.decode(model.target_latents(black, torch.zeros_like(noise)))  # the dummy target
        condition = repeated(task.condition(state, slice(n, n + 1)), len(noise))
        predict = model.predictor(condition, task.guidance)

        def draw(like: Tensor = noise) -> Tensor:
            return torch.randn(like.shape, generator=generator).to(like)

        latents = sample_original(predict, noise, model.schedule, 50, eta, draw)
        images.append(finished(model, latents, condition))
    return torch.stack(images, 1)


def draw_ours(task: Task, settings: SamplingConfig) -> Tensor:
    """Ours: the photo once, all poses and samples together; images [S, N, 3, H, W]."""
    model = task.method.networks
    state = task.method.encode(task.source)
    condition = repeated(task.condition(state, slice(None)), len(task.noise))
    predict = model.predictor(condition, task.guidance, batch=settings.batch)
    latents = sample_latents(predict, task.noise.flatten(0, 1), model.schedule, settings)
    return finished(model, latents, condition).unflatten(0, task.noise.shape[:2])


def finished(model: LatentDiffusion, latents: Tensor, condition: Condition) -> Tensor:
    """Images in [0, 1] of latents."""
    base = model.base(condition)
    images = model.decode(latents if base is None else latents + base)
    return ((images + 1) / 2).clamp(0, 1)


def compare(
    task: Task, settings: SamplingConfig, rounds: int, reference_samples: int, reference_steps: int = 1000
) -> list[Line]:
    """Time all ways in turns and measure their errors on the first samples of every pose."""
    own = f"ours: {settings.sampler}, {settings.steps} steps"
    ways: dict[str, tuple[int, Callable[[], Tensor]]] = {
        "original: 49 DDIM steps": (49, lambda: draw_original(task)),
        "original with eta 0": (49, lambda: draw_original(task, 0.0)),
        own: (settings.steps, lambda: draw_ours(task, settings)),
    }
    exact = replace(settings, sampler="ddim", steps=reference_steps, eta=0.0)
    reference = draw_ours(replace(task, noise=task.noise[:reference_samples]), exact)
    times: dict[str, list[float]] = {way: [] for way in ways}
    errors: dict[str, float] = {}
    for _ in range(rounds):
        for way, (_, run) in ways.items():
            started = clock(task.noise.device)
            images = run()
            times[way].append(clock(task.noise.device) - started)
            errors[way] = float((images[:reference_samples] - reference).square().mean().sqrt())
    count, poses = task.noise.shape[:2]
    doubled = 1 if task.guidance == 1 else 2
    first = median(times["original: 49 DDIM steps"])
    return [
        Line(
            way,
            doubled * steps,
            median(times[way]) / (count * poses),
            median(times[way]) / poses,
            errors[way],
            first / median(times[way]),
        )
        for way, (steps, _) in ways.items()
    ]


def measure_switches(method: WarpDiffusion, pairs: int) -> list[Switch]:
    """Every switch by itself on held-out pairs and on a short video of a room."""
    config, found = method.config, []
    plain = replace(config.sampling, composite="none", noise="independent", sequential=False)
    rooms = RoomPairs(pairs, ROOM, config.resolution, config.latent_size, config.max_angle)
    for setting, changes in progress(SWITCHES.items(), "switches", total=len(SWITCHES)):
        config.sampling = replace(plain, **changes)
        covered, uncovered = score(method, rooms)
        found.append(Switch(setting, covered, uncovered, steadiness(method)))
    return found


@torch.no_grad()
def score(method: WarpDiffusion, rooms: RoomPairs) -> tuple[float, float]:
    """Mean PSNR over covered and over uncovered pixels."""
    rows = []
    for _, batch in pair_batches(rooms, range(len(rooms)), 16):
        rows += method.evaluate_pairs(batch, ImageMetrics()).rows
    columns = (torch.tensor([row[name] for row in rows]) for name in ("psnr_covered", "psnr_uncovered"))
    covered, uncovered = (float(values[values.isfinite()].mean()) for values in columns)
    return covered, uncovered


@torch.no_grad()
def steadiness(method: WarpDiffusion) -> float:
    """How well each frame of a video agrees with the one before, in dB, where the photo shows nothing."""
    import tempfile

    size = method.config.resolution
    boxes = make_boxes(ROOM)
    cameras = make_cameras(ROOM, 3 * PATH_VIEWS, size, size, boxes)[:PATH_VIEWS]
    truth = render(boxes, cameras)
    state = method.encode(truth[:1])
    hidden = state.photos.warp([0] * PATH_VIEWS, cameras).coverage < 0.5
    with tempfile.TemporaryDirectory() as folder:
        frames = [rendering.image[0] for rendering in method.film(state, cameras, Path(folder))]
    squares, pixels = 0.0, 0.0
    for i in range(1, PATH_VIEWS):
        assert truth.depth is not None
        before = Views(frames[i - 1], cameras[i - 1], depth=truth.depth[i - 1])
        carried = warp(before, cameras[i], max_angle=70.0)
        assert carried.opacity is not None
        where = (hidden[i] & (carried.opacity > 0.99)).float()
        squares += float((where * (frames[i] - carried.image).square()).sum())
        pixels += float(where.sum()) * 3
    return float(-10 * torch.log10(torch.tensor(squares / pixels)))


def table(lines: list[Line]) -> str:
    """The ways as text."""
    head = f"{'way':26} {'calls/sample':>12} {'s/sample':>9} {'s/pose':>8} {'error':>8} {'faster':>7}"
    rows = [
        f"{line.way:26} {line.evaluations:12d} {line.seconds_per_sample:9.4f} {line.seconds_per_pose:8.3f}"
        f" {line.error:8.4f} {line.faster:6.2f}x"
        for line in lines
    ]
    return "\n".join([head, *rows])


def switch_table(switches: list[Switch]) -> str:
    """The switches as text."""
    head = f"{'model.sampling':22} {'covered dB':>11} {'uncovered dB':>13} {'steadiness dB':>14}"
    rows = [f"{s.setting:22} {s.covered:11.2f} {s.uncovered:13.2f} {s.steadiness:14.2f}" for s in switches]
    return "\n".join([head, *rows])


def machine() -> str:
    """What was measured on."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{torch.get_num_threads()} threads, {os.cpu_count()} logical CPUs"


def open_model(folder: Path, output: Path | None, which: str) -> WarpDiffusion:
    """The trained model of an experiment."""
    experiment, _ = load_experiment(folder)
    method = create_method(experiment)
    assert isinstance(method, WarpDiffusion)
    load_for_inference(method, find_trained(output or folder, which))
    return method.to(best_device()).eval()


@command
def main() -> None:
    parser = command_parser(__doc__ or "", EXAMPLES)
    parser.add_argument("-e", "--exp_dir", type=Path, default=Path("assets/warp_diffusion_toy"))
    parser.add_argument("-r", "--resume", default="latest", help="checkpoint: N or latest (default)")
    parser.add_argument("--output_dir", type=Path, help="where the iter_N folders are (default: -e)")
    numbers = (
        ("--poses", 4, "views of one photo"),
        ("--samples", 9, "per pose"),
        ("--reference_samples", 2, "per pose that are compared with the 1000-step solution"),
        ("--steps", 16, "of our sampler"),
        ("--rounds", 3, "turns of every way"),
        ("--pairs", 64, "held-out pairs for --switches"),
    )
    for flag, default, text in numbers:
        parser.add_argument(flag, type=positive(int), default=default, help=f"{text} (default: {default})")
    parser.add_argument("--guidance", type=positive(float), default=3.0, help="default: 3")
    add_boolean(parser, "--switches", help="measure what each switch does")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers as JSON")
    args = parser.parse_args()
    method = open_model(args.exp_dir, args.output_dir, args.resume)
    settings = replace(method.config.sampling, sampler="unipc", steps=args.steps, samples=args.samples)
    started = time.perf_counter()
    task = make_task(method, args.poses, args.samples, args.guidance)
    with torch.no_grad():
        lines = compare(task, settings, args.rounds, min(args.samples, args.reference_samples))
    print(f"{args.poses} poses x {args.samples} samples, guidance {args.guidance:g}; {machine()}")
    print(table(lines))
    print(f"median of {args.rounds} rounds; error: rms in [0, 1] to 1000 deterministic steps, same noise")
    switches = measure_switches(method, args.pairs) if args.switches else []
    if switches:
        print(switch_table(switches))
    if args.json is not None:
        report = {
            "machine": machine(),
            "seconds": time.perf_counter() - started,
            "sampling": [asdict(line) for line in lines],
            "switches": [asdict(switch) for switch in switches],
        }
        with replacing(args.json) as partial:
            partial.write_text(json.dumps(report, indent=2) + "\n")
        print(args.json)


if __name__ == "__main__":
    main()
