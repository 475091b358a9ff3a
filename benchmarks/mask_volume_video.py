"""A video of a clip: `mask_volume` as video_script.py films it, beside the original's schedule.

Poses on a circle see the moments of a procedural clip one after the other; both ways use the same random
weights and must give the same frames. Each runs in a process of its own, whose largest memory is told, and
what seeing the planes once takes above them. At the larger size a few frames are made, the rest of the time
is extrapolated. A second table takes each exact speed-up alone into the original's schedule; all take turns,
round by round, and times are the best of the rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.cli import command_parser, positive
from common.errors import UserError, command
from common.files import replacing
from dataloader.rig.toy import ToyFilm, open_rig
from engine.config import DataConfig
from engine.device import best_device, clock
from engine.film import clip_views, moments_of
from engine.profiling import peak_memory
from geometry.cameras import Cameras, pinhole, stack_cameras
from geometry.plane_render import render_planes
from geometry.planes import PlaneImage, plane_depths
from geometry.rig_paths import circle
from geometry.views import Views
from methods.mask_volume.method import MaskVolume
from methods.mask_volume.model import Frame
from methods.mask_volume.replay import SPEEDUPS, Replay, published_settings, scatter

EXAMPLES = """
python benchmarks/mask_volume_video.py --large 0 0 --rounds 5 --json outputs/mask_volume_video.json
python benchmarks/mask_volume_video.py --quick
"""
AGREEMENT = 1e-4  # largest difference of the frames
CAMERAS, SOURCES = 6, [2, 3]


@dataclass
class Job:
    """A video to make. frames: how many of the poses are really seen; time of the others is extrapolated."""

    width: int
    height: int
    planes: int
    poses: int
    moments: int
    frames: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}x{self.planes}"

    @property
    def extrapolated(self) -> bool:
        return self.frames < self.poses


@dataclass
class Video:
    """How one way makes it. seconds: of all poses. megabytes: most that the process holds, and what seeing
    the planes once takes beyond them.
    """

    seconds: float
    megabytes: float
    view_megabytes: float


@dataclass
class Line:
    """Both ways. faster: how many times ours is. memory, view_memory: ours as a fraction of the original's,
    where that is large enough to be seen.
    """

    job: Job
    ours: Video
    original: Video
    faster: float
    memory: float
    view_memory: float | None
    difference: float


@dataclass
class Speedup:
    """What one exact speed-up brings the original's schedule alone. seconds: of the video; of what is made
    once per clip, of a multi-plane image and of a view, in milliseconds.
    """

    name: str
    seconds: float
    once: float
    planes: float
    view: float
    faster: float
    difference: float


def make_method(planes: int, dtype: Any = "float32") -> MaskVolume:
    """With published weights' settings, and random weights."""
    torch.manual_seed(0)
    config = published_settings()
    config.planes, config.render.dtype = planes, dtype
    method = MaskVolume.create(config)
    scatter(method.model)
    method.to(best_device()).prepare_inference()
    return method


def make_scene(method: MaskVolume, job: Job) -> tuple[list[Views], Cameras, list[int]]:
    """The source views of the moments that are seen, poses [N], and the moment of each."""
    clip = open_rig(ToyFilm(0, job.moments, job.height, job.width, CAMERAS))
    path = circle(stack_cameras(clip.cameras), clip.plane_bounds(), -(-job.poses // 2))[: job.poses]
    moments = moments_of(path, job.moments)
    views = [method.views(clip.scene(t), SOURCES, DataConfig()) for t in sorted(set(moments[: job.frames]))]
    return [one.to(best_device()) for one in views], path.to(best_device()), moments


def film_ours(job: Job) -> tuple[float, Tensor]:
    """Seconds of the video as video_script.py makes it, and its frames [N, 3, H, W]."""
    method = make_method(job.planes)
    views, path, moments = make_scene(method, job)
    clocks = [clock(best_device())]

    def tick() -> float:
        clocks.append(clock(best_device()))
        return clocks[-1] - clocks[-2]

    if not job.extrapolated:
        frames = dict(clip_views(method, views.__getitem__, path, moments))
        return tick(), torch.cat([frames[i].image for i in range(job.poses)]).cpu()
    state, images, encoding, rendering = None, [], [], []
    for pose in range(job.frames):
        state = method.encode(views[moments[pose]], state)
        encoding.append(tick())
        images.append(method.render(state, path[pose : pose + 1]).image)
        rendering.append(tick())
    later = sum(encoding[1:]) / (job.frames - 1)
    seconds = encoding[0] + (job.moments - 1) * later + job.poses * min(rendering)
    return seconds, torch.cat(images).cpu()


def film_original(job: Job) -> tuple[float, Tensor]:
    """Seconds of the video by the original's schedule, and its frames [N, 3, H, W]."""
    method = make_method(job.planes)
    views, path, moments = make_scene(method, job)
    replay, started = Replay(method.model), clock(best_device())
    frames = dict(replay.film(views.__getitem__, path[: job.frames], moments[: job.frames]))
    seconds = (clock(best_device()) - started) * job.poses / job.frames
    return seconds, torch.cat([frames[i].color for i in range(job.frames)]).clamp(0, 1).cpu()


def view_megabytes(job: Job, original: Replay | None) -> float:
    """What seeing random planes once takes above them."""
    device, used = best_device(), 0.0
    for height, width in ((8, 16), (job.height, job.width)):  # the first time kernels are compiled
        camera = pinhole(float(width), height, width).to(device, torch.float64)
        aside = camera.c2w.clone()
        aside[0, 3] = 0.1
        target = camera.with_poses(aside).reshape(1)
        frame = Frame(camera.reshape(1), plane_depths(1.0, 100.0, job.planes).to(device)[None])
        layers = torch.rand(job.planes, height, width, 4, device=device)
        layers[..., 3] *= 4 / job.planes  # so that all of them are seen
        before = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
        with torch.no_grad(), peak_memory(device) as memory:
            for _ in range(5):
                if original is None:
                    render_planes(PlaneImage(layers, frame.depths[0], camera), target)
                else:
                    original.view(layers, frame, target)
        used = max(memory.get("allocated", memory.get("resident", 0)) - before, 0) / 2**20
    return used


def work(way: str, job: Job) -> tuple[Video, Tensor]:
    """Make a video one way, and measure it."""
    device = best_device()
    of_view = view_megabytes(job, None if way == "ours" else Replay(make_method(job.planes).model))
    film = film_ours if way == "ours" else film_original
    film(Job(32, 16, 8, 2, 2, 2))  # compiles, and warms up
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    seconds, frames = film(job)
    if device.type == "cuda":
        return Video(seconds, torch.cuda.max_memory_allocated(device) / 2**20, of_view), frames
    return Video(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10, of_view), frames


def in_process(way: str, job: Job, folder: Path) -> tuple[Video, Tensor]:
    """`work` in a process of its own."""
    file = folder / f"{way}.npz"
    words = ["--worker", way, json.dumps(asdict(job)), str(file)]
    subprocess.run([sys.executable, __file__, *words], check=True)
    with np.load(file) as made:
        return Video(*made["video"].tolist()), torch.from_numpy(made["frames"])


def compare(job: Job, apart: bool) -> Line:
    """A video both ways. apart: each in a process of its own."""
    with TemporaryDirectory() as folder:
        run = partial(in_process, folder=Path(folder)) if apart else work
        (ours, made), (original, wanted) = run("ours", job), run("original", job)
    difference = float((made - wanted).abs().max())
    if difference > AGREEMENT:
        raise RuntimeError(f"{job}: the frames differ by {difference:.1e}")
    return Line(
        job, ours, original,
        faster=original.seconds / ours.seconds,
        memory=ours.megabytes / original.megabytes,
        view_memory=ours.view_megabytes / original.view_megabytes if original.view_megabytes > 1 else None,
        difference=difference,
    )  # fmt: skip


def measure_speedups(job: Job, rounds: int) -> list[Speedup]:
    """Each alone, by turns: what is made once, for a moment and for a pose, summed up to the whole video."""
    method = make_method(job.planes)
    views, path, _ = make_scene(method, job)
    best: dict[str, list[float]] = {}
    seen: dict[str, Tensor] = {}
    for _ in range(rounds):
        for name, ways in SPEEDUPS.items():
            times, seen[name] = stages(Replay(method.model, ways), views, path[1:2])
            best[name] = [min(pair) for pair in zip(times, best.get(name, times), strict=True)]
    lines: list[Speedup] = []
    for name, ways in SPEEDUPS.items():
        once, planes, view = best[name]
        seconds = once + planes * (job.moments if ways.moments_once else job.poses) + job.poses * view
        difference = float((seen[name] - next(iter(seen.values()))).abs().max())
        if difference > AGREEMENT:
            raise RuntimeError(f"{name}: the frames differ by {difference:.1e}")
        faster = lines[0].seconds / seconds if lines else 1.0
        lines.append(Speedup(name, seconds, 1e3 * once, 1e3 * planes, 1e3 * view, faster, difference))
    return lines


@torch.no_grad()
def stages(replay: Replay, views: list[Views], camera: Cameras) -> tuple[list[float], Tensor]:
    """Seconds of what is made once, of a moment's planes and of a view; the colours that are seen."""
    device = best_device()
    clocks = [clock(device)]
    kept = replay.keep(views[0])
    clocks.append(clock(device))
    planes = replay.planes(views[-1], kept)
    clocks.append(clock(device))
    seen = replay.view(planes, replay.frame(views[-1]), camera).color
    clocks.append(clock(device))
    return [after - before for before, after in pairwise(clocks)], seen


@torch.no_grad()
def measure_rates(job: Job, rounds: int) -> list[dict[str, Any]]:
    """Our way in every precision, on a GPU: frames per second, each of another moment, and of the same one;
    how far views are off float32. The first round of the moments warms up.
    """
    rates: list[dict[str, Any]] = []
    device, exact = best_device(), None
    for dtype in ("float32", "bfloat16", "float16"):
        method, state, clocks = make_method(job.planes, dtype), None, []
        views, path, moments = make_scene(method, job)
        torch.cuda.reset_peak_memory_stats(device)
        for pose in [*range(job.frames)] * (rounds + 1):
            clocks.append(clock(device))
            state = method.encode(views[moments[pose]], state)
            clocks.append(clock(device))
            seen = method.render(state, path[pose : pose + 1]).image
            clocks.append(clock(device))
        times = [after - before for before, after in pairwise(clocks)]
        encoding, rendering = min(times[::3]), min(times[1::3])
        exact = seen if exact is None else exact
        rate = {
            "size": str(job),
            "dtype": dtype,
            "moments": 1 / (encoding + rendering),
            "views": 1 / rendering,
        }
        rate["megabytes"] = torch.cuda.max_memory_allocated(device) / 2**20
        rates.append({**rate, "difference": float((seen - exact).abs().max())})
    return rates


def video_table(lines: list[Line]) -> str:
    """The videos as text."""
    rows = [
        f"{'size':>10} {'poses':>5} {'moments':>7} | {'ours: s':>8} {'MB':>6} {'view: MB':>8} |"
        f" {'original: s':>11} {'MB':>6} {'view: MB':>8} | {'faster':>7} {'memory':>6} {'of view':>7}"
        f" {'differ by':>9}"
    ]
    for line in lines:
        job, ours, original = line.job, line.ours, line.original
        rows.append(
            f"{job!s:>10} {job.poses:5d} {job.moments:7d} | {ours.seconds:8.2f} {ours.megabytes:6.0f}"
            f" {ours.view_megabytes:8.1f} | {original.seconds:11.1f} {original.megabytes:6.0f}"
            f" {original.view_megabytes:8.1f} | {line.faster:6.1f}x {line.memory:6.0%}"
            f" {'-' if line.view_memory is None else f'{line.view_memory:.0%}':>7} {line.difference:9.1e}"
            + (f"  (times of {job.frames} frames, extrapolated)" if job.extrapolated else "")
        )
    return "\n".join(rows)


def speedup_table(lines: list[Speedup]) -> str:
    """What each speed-up brings, as text."""
    rows = [
        f"{'taken alone into the original schedule':57} | {'video: s':>8} {'faster':>7} |"
        f" {'once: ms':>8} {'planes':>8} {'view':>7} | {'differ by':>9}"
    ]
    for line in lines:
        rows.append(
            f"{line.name:57} | {line.seconds:8.1f} {line.faster:6.2f}x | {line.once:8.0f} {line.planes:8.0f}"
            f" {line.view:7.1f} | {line.difference:9.1e}"
        )
    return "\n".join(rows)


def rate_table(rates: list[dict[str, Any]]) -> str:
    """A GPU's rates as text."""
    return "\n".join(
        "{size} {dtype:8}: {moments:7.1f} frames/s, each of another moment; {views:7.1f} of one moment; "
        "{megabytes:.0f} MB; {difference:.1e} off float32".format(**rate)
        for rate in rates
    )


def arguments() -> argparse.ArgumentParser:
    parser = command_parser(__doc__ or "", EXAMPLES)
    whole = positive(int)
    parser.add_argument("--size", type=whole, nargs=2, default=(160, 90), metavar=("W", "H"))
    parser.add_argument(
        "--large", type=int, nargs=2, default=(640, 360), metavar=("W", "H"), help="0 0: not at all"
    )
    parser.add_argument("--planes", type=whole, default=32, help="default: 32")
    parser.add_argument("--poses", type=whole, default=60, help="default: 60")
    parser.add_argument("--moments", type=whole, default=6, help="default: 6")
    parser.add_argument(
        "--frames", type=whole, default=3, help="made at the larger size, 2 to --moments (default: 3)"
    )
    parser.add_argument("--rounds", type=whole, default=2, help="of the second table (default: 2)")
    parser.add_argument("--quick", action="store_true", help="small, in one process: shows only that it runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers as JSON")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    return parser


def jobs_of(args: argparse.Namespace) -> list[Job]:
    """The videos to make, the first of them whole. Raises UserError for impossible numbers."""
    if args.quick:
        return [Job(40, 24, 8, 4, 2, frames=4), Job(48, 32, 8, 4, 2, frames=2)]
    if not 2 <= args.frames <= args.moments <= args.poses:
        raise UserError("need 2 <= --frames <= --moments <= --poses")
    counts = args.planes, args.poses, args.moments
    (w, h), (wide, high) = args.size, args.large
    return [Job(w, h, *counts, args.poses), *([Job(wide, high, *counts, args.frames)] if wide else [])]


@command
def main() -> None:
    args = arguments().parse_args()
    if args.worker:
        way, words, file = args.worker
        video, frames = work(way, Job(**json.loads(words)))
        np.savez(file, video=list(asdict(video).values()), frames=frames.numpy())
        return
    started, jobs = time.perf_counter(), jobs_of(args)
    lines = [compare(job, not args.quick) for job in jobs]
    print(video_table(lines), end="\n\n")
    speedups = measure_speedups(jobs[0], args.rounds)
    print(speedup_table(speedups), end="\n\n")
    machine, rates = f"{torch.get_num_threads()} threads of {os.cpu_count()} logical CPUs", []
    if best_device().type == "cuda":
        machine, rates = torch.cuda.get_device_name(), measure_rates(jobs[-1], args.rounds)
        print(rate_table(rates), end="\n\n")
    print(f"{machine}; {time.perf_counter() - started:.0f} s in all")
    if args.json is not None:
        tables = {"videos": [*map(asdict, lines)], "speedups": [*map(asdict, speedups)], "gpu": rates}
        report = {"machine": machine, **tables}
        with replacing(args.json) as partial_file:
            partial_file.write_text(json.dumps(report, indent=2) + "\n")
        print(args.json)


if __name__ == "__main__":
    main()
