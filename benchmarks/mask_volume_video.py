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
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from functools import partial
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
from methods.mask_volume.config import MaskVolumeConfig, RenderConfig
from methods.mask_volume.method import MaskVolume
from methods.mask_volume.model import Frame
from methods.mask_volume.replay import Replay, Ways

EXAMPLES = """
python benchmarks/mask_volume_video.py
python benchmarks/mask_volume_video.py --large 0 0 --rounds 5 --json outputs/mask_volume_video.json
python benchmarks/mask_volume_video.py --quick
"""
AGREEMENT = 1e-4  # largest difference of the frames
CAMERAS, SOURCES = 6, [2, 3]
VIEWS = 5  # of the planes, while memory is watched
DTYPES = ("float32", "bfloat16", "float16")


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
    megabytes: float = 0.0
    view_megabytes: float = 0.0


@dataclass
class Line:
    """Both ways. faster: how many times ours is. memory, view_memory: ours as a fraction of the original's.
    extrapolated: whether the time is that of `frames` frames, extrapolated.
    """

    size: str
    poses: int
    moments: int
    frames: int
    extrapolated: bool
    ours: Video
    original: Video
    faster: float
    memory: float
    view_memory: float
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


@dataclass
class Rate:
    """On a GPU: frames per second, each of another moment, and of the same. difference: from float32."""

    size: str
    dtype: str
    moments_per_second: float
    views_per_second: float
    megabytes: float
    difference: float


@torch.no_grad()
def make_method(planes: int, dtype: Any = "float32") -> MaskVolume:
    """Published weights' settings, and random weights whose opacities, mixtures and masks spread."""
    torch.manual_seed(0)
    config = MaskVolumeConfig(
        planes=planes,
        sampling="original",
        premultiplied=False,
        own_colours=False,
        backdrop=False,
        render=RenderConfig(dtype=dtype),
    )
    method = MaskVolume.create(config)
    for parameter in method.parameters():
        parameter += 0.02 * torch.randn_like(parameter)
    mask_net = method.model.mask_net
    assert mask_net is not None
    for net, factor in ((method.model.mpi_net, 4), (mask_net, 6)):
        for parameter in net.conv7_3.parameters():
            parameter *= factor
    method.to(best_device()).prepare_inference()
    return method


def make_scene(method: MaskVolume, job: Job) -> tuple[list[Views], Cameras, list[int]]:
    """The source views of the moments that are seen, poses [N], and the moment of each."""
    clip = open_rig(ToyFilm(0, job.moments, job.height, job.width, CAMERAS))
    path = circle(stack_cameras(clip.cameras), clip.plane_bounds(), -(-job.poses // 2))[: job.poses]
    moments = moments_of(path, job.moments)
    views = [method.views(clip.scene(t), SOURCES, DataConfig()) for t in sorted(set(moments[: job.frames]))]
    return [one.to(best_device()) for one in views], path.to(best_device()), moments


def film_ours(job: Job) -> tuple[Video, Tensor]:
    """The video as video_script.py makes it, and its frames [N, 3, H, W]."""
    method = make_method(job.planes)
    views, path, moments = make_scene(method, job)
    clocks = [clock(best_device())]

    def tick() -> float:
        clocks.append(clock(best_device()))
        return clocks[-1] - clocks[-2]

    if not job.extrapolated:
        frames = dict(clip_views(method, views.__getitem__, path, moments))
        return Video(tick()), torch.cat([frames[i].image for i in range(job.poses)]).cpu()
    state, images, encoding, rendering = None, [], [], []
    for pose in range(job.frames):
        state = method.encode(views[moments[pose]], state)
        encoding.append(tick())
        images.append(method.render(state, path[pose : pose + 1]).image)
        rendering.append(tick())
    later = sum(encoding[1:]) / (job.frames - 1)
    seconds = encoding[0] + (job.moments - 1) * later + job.poses * min(rendering)
    return Video(seconds), torch.cat(images).cpu()


def film_original(job: Job) -> tuple[Video, Tensor]:
    """The video by the original's schedule, and its frames [N, 3, H, W]."""
    method = make_method(job.planes)
    views, path, moments = make_scene(method, job)
    replay, started = Replay(method.model), clock(best_device())
    frames = dict(replay.film(views.__getitem__, path[: job.frames], moments[: job.frames]))
    seconds = (clock(best_device()) - started) * job.poses / job.frames
    return Video(seconds), torch.cat([frames[i].color for i in range(job.frames)]).clamp(0, 1).cpu()


def view_megabytes(job: Job, see: Callable[[Tensor, Frame, Cameras], Any]) -> float:
    """What seeing random planes once takes above them."""
    device, used = best_device(), 0.0
    for height, width in ((8, 16), (job.height, job.width)):  # the first time kernels are compiled
        camera = pinhole(float(width), height, width).to(device, torch.float64)
        aside = camera.c2w.clone()
        aside[0, 3] = 0.1
        frame = Frame(camera.reshape(1), plane_depths(1.0, 100.0, job.planes).to(device)[None])
        layers = torch.rand(job.planes, height, width, 4, device=device)
        layers[..., 3] *= 4 / job.planes  # so that all of them are seen
        before = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
        with torch.no_grad(), peak_memory(device) as memory:
            for _ in range(VIEWS):
                see(layers, frame, camera.with_poses(aside).reshape(1))
        used = max(memory.get("allocated", memory.get("resident", 0)) - before, 0) / 2**20
    return used


def see_ours(layers: Tensor, frame: Frame, camera: Cameras) -> Tensor:
    return render_planes(PlaneImage(layers, frame.depths[0], frame.reference[0]), camera).color


def work(way: str, job: Job) -> tuple[Video, Tensor]:
    """Make a video one way, and measure it."""
    device = best_device()
    see = see_ours if way == "ours" else Replay(make_method(job.planes).model).view
    of_view = view_megabytes(job, see)
    film = film_ours if way == "ours" else film_original
    film(Job(32, 16, 8, 2, 2, 2))  # compiles, and warms up
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    video, frames = film(job)
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    video.megabytes = (torch.cuda.max_memory_allocated(device) if device.type == "cuda" else held) / 2**20
    video.view_megabytes = of_view
    return video, frames


def in_process(way: str, job: Job, folder: Path) -> tuple[Video, Tensor]:
    """`work` in a process of its own."""
    file = folder / f"{way}.npz"
    words = ["--worker", way, json.dumps(asdict(job)), str(file)]
    subprocess.run([sys.executable, __file__, *words], check=True)
    with np.load(file) as made:
        return Video(*made["video"].tolist()), torch.from_numpy(made["frames"])


def be_worker(way: str, job: str, file: str) -> None:
    """What such a process does."""
    video, frames = work(way, Job(**json.loads(job)))
    np.savez(file, video=list(asdict(video).values()), frames=frames.numpy())


def compare(job: Job, apart: bool) -> Line:
    """A video both ways. apart: each in a process of its own."""
    with TemporaryDirectory() as folder:
        run = partial(in_process, folder=Path(folder)) if apart else work
        (ours, made), (original, wanted) = run("ours", job), run("original", job)
    difference = float((made - wanted).abs().max())
    if difference > AGREEMENT:
        raise RuntimeError(f"{job}: the frames differ by {difference:.1e}")
    return Line(
        str(job),
        job.poses,
        job.moments,
        job.frames,
        job.extrapolated,
        ours,
        original,
        faster=original.seconds / ours.seconds,
        memory=ours.megabytes / original.megabytes,
        view_memory=ours.view_megabytes / max(original.view_megabytes, 1e-9),
        difference=difference,
    )


SPEEDUPS = {
    "none: the original's schedule": Ways(),
    "planes of the plates kept for the clip": Ways(plates_once=True),
    "planes kept for the poses of a moment": Ways(moments_once=True),
    "plates' half of the mask network's first convolution kept": Ways(half_kept=True),
    "equal slices convolved in two dimensions": Ways(constant=True),
    "upsampling and convolution on the coarse grid": Ways(subpixel=True),
    "all convolutions by oneDNN": Ways(one_dnn=True),
    "channels last": Ways(channels_last=True),
    "ReLU and norms in place": Ways(norms=True),
    "compiled plane sweep": Ways(sweep=True),
    "compiled compositor": Ways(composite=True),
    "all of them": Ways(**{field.name: True for field in fields(Ways)}),
}


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
    plain, lines = next(iter(SPEEDUPS)), []
    for name, ways in SPEEDUPS.items():
        once, planes, view = best[name]
        seconds = once + planes * (job.moments if ways.moments_once else job.poses) + job.poses * view
        difference = float((seen[name] - seen[plain]).abs().max())
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
    return [after - before for before, after in zip(clocks, clocks[1:], strict=False)], seen


@torch.no_grad()
def measure_rates(job: Job, rounds: int) -> list[Rate]:
    """Frames per second of our way in every precision, on a GPU."""
    rates: list[Rate] = []
    device, exact = best_device(), torch.zeros(())
    for dtype in DTYPES:
        method = make_method(job.planes, dtype)
        views, path, moments = make_scene(method, job)
        state, encoding, rendering = None, [], []
        torch.cuda.reset_peak_memory_stats(device)
        for pose in [pose for _ in range(rounds + 1) for pose in range(job.moments)]:
            started = clock(device)
            state = method.encode(views[moments[pose]], state)
            encoded = clock(device)
            seen = method.render(state, path[pose : pose + 1]).image
            encoding.append(encoded - started)
            rendering.append(clock(device) - encoded)
        exact = exact if rates else seen
        rates.append(
            Rate(
                str(job),
                dtype,
                1 / (min(encoding) + min(rendering)),
                1 / min(rendering),
                torch.cuda.max_memory_allocated(device) / 2**20,
                float((seen - exact).abs().max()),
            )
        )
    return rates


def video_table(lines: list[Line]) -> str:
    """The videos as text."""
    rows = [
        f"{'size':>10} {'poses':>5} {'moments':>7} | {'ours: s':>8} {'MB':>6} {'view: MB':>8} |"
        f" {'original: s':>11} {'MB':>6} {'view: MB':>8} | {'faster':>7} {'memory':>6} {'of view':>7}"
        f" {'differ by':>9}"
    ]
    for line in lines:
        ours, original = line.ours, line.original
        rows.append(
            f"{line.size:>10} {line.poses:5d} {line.moments:7d} | {ours.seconds:8.2f} {ours.megabytes:6.0f}"
            f" {ours.view_megabytes:8.1f} | {original.seconds:11.1f} {original.megabytes:6.0f}"
            f" {original.view_megabytes:8.1f} | {line.faster:6.1f}x {line.memory:6.0%}"
            f" {line.view_memory:7.0%} {line.difference:9.1e}"
            + (f"  (times of {line.frames} frames, extrapolated)" if line.extrapolated else "")
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


def rate_table(lines: list[Rate]) -> str:
    """A GPU's rates as text."""
    return "\n".join(
        f"{line.size} {line.dtype:8}: {line.moments_per_second:7.1f} frames/s, each of another moment; "
        f"{line.views_per_second:7.1f} of one; {line.megabytes:.0f} MB; {line.difference:.1e} off float32"
        for line in lines
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
        return [Job(40, 24, 8, 4, 2, 4), Job(48, 32, 8, 4, 2, 2)]
    if not 2 <= args.frames <= args.moments <= args.poses:
        raise UserError("need 2 <= --frames <= --moments <= --poses")
    jobs = [Job(*args.size, args.planes, args.poses, args.moments, args.poses)]
    if all(args.large):
        jobs.append(Job(*args.large, args.planes, args.poses, args.moments, args.frames))
    return jobs


@command
def main() -> None:
    args = arguments().parse_args()
    if args.worker:
        be_worker(*args.worker)
        return
    started, jobs = time.perf_counter(), jobs_of(args)
    lines = [compare(job, not args.quick) for job in jobs]
    print(video_table(lines), end="\n\n")
    speedups = measure_speedups(jobs[0], args.rounds)
    print(speedup_table(speedups), end="\n\n")
    on_gpu = best_device().type == "cuda"
    rates = measure_rates(jobs[-1], args.rounds) if on_gpu else []
    machine = torch.cuda.get_device_name() if on_gpu else f"{torch.get_num_threads()} threads"
    print(*([rate_table(rates)] if rates else []), sep="\n", end="")
    print(f"{machine} of {os.cpu_count()} logical CPUs; {time.perf_counter() - started:.0f} s in all")
    if args.json is not None:
        parts = {"videos": lines, "speedups": speedups, "gpu": rates}
        report = {"machine": machine, **{k: [asdict(line) for line in v] for k, v in parts.items()}}
        with replacing(args.json) as partial_file:
            partial_file.write_text(json.dumps(report, indent=2) + "\n")
        print(args.json)


if __name__ == "__main__":
    main()
