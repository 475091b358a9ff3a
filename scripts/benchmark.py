"""Measure what a method costs: parameters, FLOPs, time, memory, and how much of the machine it uses."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.cli import command_parser, positive, progress, setup_logging, split_overrides
from common.errors import UserError, command
from common.files import replacing
from methods import METHODS, create_method, load_experiment, method_class, open_data

if TYPE_CHECKING:
    from engine.config import Experiment
    from engine.method import Method
    from engine.workloads import Bench, Work

EXAMPLES = """
python scripts/benchmark.py profile depth_warp photo_blend configs/baselines/vertex_colors
python scripts/benchmark.py profile -e configs/warp_diffusion/toy training.precision=bf16 --json toy.json
python scripts/benchmark.py profile -e configs/EXPERIMENT --table --sources 16 --batches 1 2 4 8
"""
MEANING = """
FLOPs are those of matrix products, convolutions and attention; a training step is a forward and a backward
pass, without the optimiser. MFU: FLOP/s over what the best large matrix product of this machine reaches in
the same precision, measured here. Memory is the peak: on a GPU what is allocated and reserved, on the CPU the
growth of the process, from which memory that was already free is missing. A scene's own views are encoded and
rendered, elsewhere random ones; a method given by name works on a procedural room, unless data.root says so.
"""
BATCHES = (1, 2, 4, 8, 16, 24, 32, 40, 48, 56, 64)
COLUMNS = (
    *("work", "count", "batch", "sources", "gflop", "gflop_each", "ms", "per_s", "tokens", "tokens_per_s"),
    *("mfu", "allocated_mib", "reserved_mib", "resident_mib", "failure"),
)
_MIB = 1 << 20


@dataclass
class Profile:
    """The measurements of one method. peak: FLOP/s of the machine in this precision."""

    method: str
    parameters: int
    trained: int
    device: str
    precision: str
    peak: float
    rows: list[Work]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        rows = [row_values(row, self.peak) for row in self.rows]
        return {**vars(self), "rows": rows}


def build_parser() -> argparse.ArgumentParser:
    parser = command_parser(__doc__ or "", EXAMPLES)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    profile = commands.add_parser(
        "profile",
        help="FLOPs, seconds, memory and utilisation of training, encoding and rendering",
        description=MEANING.strip(),
        epilog=parser.epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    profile.add_argument("names", nargs="*", metavar="METHOD_OR_EXPERIMENT", help="names or folders")
    profile.add_argument("-e", "--exp_dir", action="append", default=[], help="experiment folder, likewise")
    profile.add_argument("-b", "--batch_size", type=positive(int), help="training samples at once")
    profile.add_argument("--repeats", type=positive(int), default=3, help="timed repetitions (default 3)")
    profile.add_argument(
        "--size", type=positive(int), nargs=2, metavar=("H", "W"), help="of random views (default: 256 256)"
    )
    profile.add_argument("--table", action="store_true", help="over numbers of sources and batch sizes")
    profile.add_argument(
        "--sources", type=positive(int), default=16, metavar="N", help="--table: 1 to N (default 16)"
    )
    profile.add_argument(
        "--batches", type=positive(int), nargs="+", default=BATCHES, metavar="B", help="--table: batch sizes"
    )
    profile.add_argument(
        "--views", type=positive(int), nargs=2, default=(2, 6), metavar=("S", "T"),
        help="--table: source and target views of a random training sample (default 2 6)",
    )  # fmt: skip
    profile.add_argument("--json", type=Path, metavar="FILE", help="write the numbers too")
    return parser


def open_named(name: str, overrides: list[str]) -> tuple[Experiment, type[Method]]:
    """The experiment in a folder, or a method with its default settings on a procedural room."""
    from engine.config import override, resolve

    if name in METHODS and not Path(name).is_dir():
        kind = method_class(name)
        raw = {"method": name, "model": {}, "data": {"root": "builtin:room"}, "training": {}}
        return resolve(override(raw, overrides), kind.Config), kind
    return load_experiment(Path(name), overrides)


def profile(name: str, overrides: list[str], args: argparse.Namespace) -> Profile:
    """Build a method and measure it."""
    import torch

    from engine.device import best_device
    from engine.method import Method
    from engine.profiling import matmul_peak
    from engine.sampling import key
    from engine.workloads import DTYPES, Bench, parameter_counts

    experiment, kind = open_named(name, overrides)
    precision = "no" if experiment.training.precision == "launch" else experiment.training.precision
    bench = Bench(best_device(), precision, args.repeats)
    invents = kind.random_sample is not Method.random_sample and not kind.needs_scene
    scene = None if args.table and invents else open_data(experiment, kind)
    torch.manual_seed(key(experiment.training.seed, "weights"))
    method = create_method(experiment, scene)
    if kind.trains:
        method.initialise()
    method.to(bench.device)
    parameters, trained = parameter_counts(method)
    work = tabulate if args.table else measure_once
    before = matmul_peak(bench.device, DTYPES[precision])
    rows = work(method, experiment, scene, bench, args)
    peak = max(before, matmul_peak(bench.device, DTYPES[precision]))  # the machine may be busy at times
    return Profile(experiment.method, parameters, trained, str(bench.device), precision, peak, rows)


def measure_once(
    method: Method, experiment: Experiment, scene: Any, bench: Bench, args: argparse.Namespace
) -> list[Work]:
    """A training step where the method trains, encoding the sources, rendering one view."""
    from engine.workloads import inference, scene_views, training_step

    rows = []
    if method.trains:
        batch = args.batch_size or experiment.training.batch_size
        sample = drawing(method, experiment, scene, None)(batch)
        rows.append(training_step(method, sample.to(bench.device), batch, bench))
    method.eval().prepare_inference()
    size = tuple(args.size) if args.size else method.view_size() or (256, 256)
    views, cameras = scene_views(scene, experiment.data, size, method.reads_sources)
    return rows + inference(method, views, cameras, bench)


def tabulate(
    method: Method, experiment: Experiment, scene: Any, bench: Bench, args: argparse.Namespace
) -> list[Work]:
    """Training steps over batch sizes, inference over numbers of sources."""
    from engine.workloads import inference_table, training_table

    rows = []
    if method.trains:
        draw = drawing(method, experiment, scene, tuple(args.views))
        rows += training_table(method, progress(args.batches, "training steps", leave=False), draw, bench)
    method.eval().prepare_inference()
    size = tuple(args.size) if args.size else method.view_size() or (256, 256)
    counts = progress(range(1, args.sources + 1), "inference", leave=False)
    return rows + inference_table(method, size, counts, bench)


def drawing(
    method: Method, experiment: Experiment, scene: Any, views: tuple[int, int] | None
) -> Callable[[int], Any]:
    """How a training batch of a size is made: of random content with so many views, else from the data."""
    from engine.sampling import Stream

    def draw(batch: int) -> Any:
        random = method.random_sample(batch, *views) if views else None
        if random is not None:
            return random
        samples = method.samples(scene, experiment.data)
        stream = Stream(samples.size, experiment.training.seed)
        return samples.collate([samples.draw(*stream.item(i)) for i in range(batch)])

    return draw


def row_values(row: Work, peak: float) -> dict[str, Any]:
    """A row of a table by column, of those that apply."""
    values: dict[str, Any] = {"work": row.what, **(row.settings or {"count": row.count})}
    if row.measured is None:
        return values | {"failure": row.failure}
    values |= {
        "gflop": row.measured.flops / 1e9,
        "gflop_each": row.measured.flops / 1e9 / row.count,
        "ms": row.measured.seconds * 1e3,
        "per_s": row.per_second,
    }
    if row.tokens:
        values |= {"tokens": row.tokens, "tokens_per_s": row.tokens * row.per_second}
    if row.measured.flops:
        values["mfu"] = row.utilisation(peak)
    return values | {f"{kind}_mib": size / _MIB for kind, size in row.measured.memory.items()}


def format_profile(found: Profile) -> str:
    """The measurements as text."""
    head = (
        f"{found.method}: {found.parameters:,} parameters, {found.trained:,} trained\n"
        f"{found.device}, precision {found.precision}: matrix products reach {found.peak / 1e9:,.1f} GFLOP/s"
    )
    rows = [row_values(row, found.peak) for row in found.rows]
    present = {name for row in rows for name in row}
    columns = [name for name in COLUMNS if name in present]
    cells = [columns] + [[_cell(row.get(name, "-")) for name in columns] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    lines = ["  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)) for line in cells]
    return "\n".join([head, *lines])


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@command
def main() -> None:
    setup_logging()
    overrides, words = split_overrides(sys.argv[1:])
    args = build_parser().parse_args(words)
    names = [*args.names, *args.exp_dir]
    if not names:
        raise UserError(f"name what to profile: an experiment folder, or one of {', '.join(METHODS)}")
    profiles = []
    for name in names:
        profiles.append(profile(name, overrides, args))
        print(format_profile(profiles[-1]), flush=True)
    if args.json is not None:
        with replacing(args.json) as path:
            path.write_text(json.dumps([found.as_dict() for found in profiles], indent=2) + "\n")


if __name__ == "__main__":
    main()
