"""Measure methods: what they cost, and how well they complete the depth of new views."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.cli import command_parser, progress, setup_logging, split_overrides
from common.errors import UserError, command
from common.files import replacing
from engine.benchmark_arguments import add_geometry, add_profile
from methods import METHODS, create_method, load_experiment, method_class, open_data, open_method

if TYPE_CHECKING:
    from dataloader.depth.hypersim_pairs import HypersimScene
    from dataloader.depth.pairs import DepthProtocol
    from engine.config import Experiment
    from engine.depth_benchmark import Unknown
    from engine.depth_predictors import AlignmentKind, Predictors
    from engine.depth_runs import TaskSource
    from engine.method import Method
    from engine.profile_reports import Profile

EXAMPLES = """
python scripts/benchmark.py profile depth_warp photo_blend configs/baselines/vertex_colors
python scripts/benchmark.py profile -e configs/warp_diffusion/toy training.precision=bf16 --json toy.json
python scripts/benchmark.py profile -e configs/EXPERIMENT --table --sources 16 --batches 1 2 4 8
python scripts/benchmark.py rooms -e configs/baselines/depth_warp --out_dir rooms/
python scripts/benchmark.py scannet-process datasets/ScanNet --input_dir datasets/ScanNet/scans
python scripts/benchmark.py scannet -e configs/EXPERIMENT -r latest --out_dir scannet/ --legacy
python scripts/benchmark.py hypersim-pairs --hypersim_dir datasets/hypersim --scene_idx 3
python scripts/benchmark.py hypersim -e configs/EXPERIMENT -r latest --out_dir hypersim/ --scene_idx 3
python scripts/benchmark.py concat hypersim/
"""


def build_parser() -> argparse.ArgumentParser:
    parser = command_parser(__doc__ or "", EXAMPLES)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    shared = {"epilog": parser.epilog, "formatter_class": parser.formatter_class, "allow_abbrev": False}
    add_profile(commands, shared)
    add_geometry(commands, shared)
    return parser


def open_named(name: str, overrides: list[str]) -> tuple[Experiment, type[Method]]:
    """The experiment in a folder, or a method with its default settings on a procedural room."""
    from engine.config import override, resolve

    if name in METHODS and not Path(name).is_dir():
        kind = method_class(name)
        raw = {"method": name, "model": {}, "data": {"root": "builtin:room"}, "training": {}}
        return resolve(override(raw, overrides), kind.Config), kind
    return load_experiment(Path(name), overrides)


def profile_one(name: str, overrides: list[str], args: argparse.Namespace) -> Profile:
    """Build a method and measure it."""
    import torch

    from engine.device import best_device
    from engine.method import Method
    from engine.profile_reports import Profile
    from engine.profile_runs import measure_once, tabulate
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


def profile(args: argparse.Namespace, overrides: list[str]) -> None:
    from engine.profile_reports import format_profile

    names = [*args.names, *args.exp_dir]
    if not names:
        raise UserError(f"name what to profile: an experiment folder, or one of {', '.join(METHODS)}")
    profiles = []
    for name in names:
        profiles.append(profile_one(name, overrides, args))
        print(format_profile(profiles[-1]), flush=True)
    if args.json is not None:
        with replacing(args.json) as path:
            path.write_text(json.dumps([found.as_dict() for found in profiles], indent=2) + "\n")


def scannet_process(args: argparse.Namespace, overrides: list[str]) -> None:
    from dataloader.depth.scannet import find_sens, unpack_scan

    for path in progress(chosen(find_sens(args.input_dir), args), "scans", unit="scan"):
        done = unpack_scan(path, args.output_dir / path.stem)
        print(f"{path.stem}: {done.made} frames unpacked, {done.present} there already", flush=True)


def scannet(args: argparse.Namespace, overrides: list[str]) -> None:
    from dataloader.depth.scannet import ScannetScan, scan_folders

    if args.from_estimate and args.exp_dir is None:
        raise UserError("--from_estimate needs a method: name its experiment with -e")
    folders = chosen(scan_folders(args.scannet_path, args.scenes), args)  # before networks are loaded
    predictors, protocol = build_predictors(args, overrides), protocol_of(args)
    estimate = predictors.estimate if args.from_estimate else None
    score([ScannetScan(path, protocol, estimate) for path in folders], predictors, args, "no_error")


def hypersim_pairs(args: argparse.Namespace, overrides: list[str]) -> None:
    from dataloader.depth.hypersim_pairs import find_pairs, write_pairs
    from engine.device import best_device

    for scene in hypersim_scenes(args, ""):
        found = [
            pair for camera in scene.cameras() for pair in find_pairs(camera, scene.protocol, best_device())
        ]
        accepted = [pair for pair in found if pair.accepted]
        write_pairs(scene.name, accepted, scene.table)
        print(f"{scene.table}: {len(accepted)} of {len(found)} pairs", flush=True)


def hypersim(args: argparse.Namespace, overrides: list[str]) -> None:
    scenes = hypersim_scenes(args, "_pairs.csv")
    if scenes:
        score(scenes, build_predictors(args, overrides), args, "zero_depth")


def rooms(args: argparse.Namespace, overrides: list[str]) -> None:
    from dataloader.depth.room_tasks import FIRST_UNSEEN, RoomTasks

    first = FIRST_UNSEEN if args.first_seed is None else args.first_seed
    height, width = args.size
    made = [RoomTasks(first + i, height, width, protocol_of(args), args.pairs) for i in range(args.rooms)]
    score(chosen(made, args), build_predictors(args, overrides), args, "zero_depth")


def concat(args: argparse.Namespace, overrides: list[str]) -> None:
    from engine.depth_reports import concat_results, format_summary

    print(format_summary(concat_results(args.dir)))


def chosen(items: Sequence[Any], args: argparse.Namespace) -> list[Any]:
    """All, or the one that --scene_idx names."""
    if args.scene_idx == "all":
        return list(items)
    if args.scene_idx >= len(items):
        raise UserError(f"--scene_idx {args.scene_idx}: there are {len(items)}, counted from 0")
    return [items[args.scene_idx]]


def hypersim_scenes(args: argparse.Namespace, needed: str) -> list[HypersimScene]:
    """The scenes to work on; of all, those that are there: a path named as they are, with this ending."""
    from dataloader.depth.hypersim import read_camera_parameters
    from dataloader.depth.hypersim_pairs import HypersimScene

    table = read_camera_parameters(args.metadata_camera_parameters_csv_file)
    found = [HypersimScene(args.hypersim_dir, row, protocol_of(args)) for row in chosen(table, args)]
    pinholes = [scene for scene in found if not scene.parameters.physical]
    if args.scene_idx != "all":
        if not pinholes:
            print(f"{found[0].name} was not rendered by a pinhole camera: it is no part of the benchmark")
        return pinholes
    there = [scene for scene in pinholes if (args.hypersim_dir / f"{scene.name}{needed}").exists()]
    if not there:
        raise UserError(f"{args.hypersim_dir} holds no SCENE{needed} of the {len(pinholes)} scenes")
    print(f"{len(there)} of {len(pinholes)} scenes are in {args.hypersim_dir}", flush=True)
    return there


def protocol_of(args: argparse.Namespace) -> DepthProtocol:
    """How points are drawn."""
    from dataloader.depth.pairs import DepthProtocol, legacy_protocol

    if args.legacy:
        # the original blends 10 points where it looks for pairs, 16 where it scores them
        return legacy_protocol(args.radius or 0.01, 10 if args.command == "hypersim-pairs" else 16)
    return DepthProtocol(args.radius or 1.0)


def build_predictors(args: argparse.Namespace, overrides: list[str]) -> Predictors:
    """The models, with their weights, on the device."""
    from dataloader.depth_models import load_depth_model
    from engine.config import to_dict
    from engine.depth_predictors import MODELS, OF_METHOD, Alignment, Predictors, monocular
    from engine.device import best_device

    unknown = [name for name in args.models if name not in MODELS]
    if unknown:
        raise UserError(f"--models {unknown[0]}: choose from {', '.join(MODELS)}")
    method = None
    if args.exp_dir is not None:
        experiment, kind = load_experiment(args.exp_dir, overrides)
        args.experiment = to_dict(experiment)  # for run.json
        method = open_method(args, experiment, kind).to(best_device()).eval()
    elif set(args.models) & set(OF_METHOD):
        raise UserError("-e names the experiment folder of the method, or take --models nearest zoedepth")
    plain = None
    if any(name.startswith("zoedepth") for name in args.models):
        plain = monocular(load_depth_model(args.depth_model, best_device()))
    fit: AlignmentKind = "descent" if args.legacy else args.alignment
    return Predictors(method, plain, Alignment(fit, args.initial_offset, args.seed), best_device())


def score(
    scenes: Sequence[TaskSource], predictors: Predictors, args: argparse.Namespace, unknown: Unknown
) -> None:
    """Run the models on the scenes and leave reports. unknown: what the original does there."""
    from engine.depth_benchmark import Scoring
    from engine.depth_reports import format_summary, summary, write_depth_reports
    from engine.depth_runs import run_scenes
    from engine.outputs import prepare_folder, write_provenance

    scoring = Scoring(unknown if args.legacy else None, pictures=4 if len(scenes) == 1 else 1)
    out_dir = prepare_folder(args.out_dir)
    # jobs of an array share the folder: what is not named after its scene gets a folder of its own
    folder = out_dir if args.scene_idx == "all" else prepare_folder(out_dir / scenes[0].name)
    results = run_scenes(scenes, predictors, args.models, scoring, out_dir)
    skip_nan = not (args.legacy and unknown == "no_error")
    write_provenance(folder, vars(args), args.seed)
    files = write_depth_reports(results, folder, args.seed, skip_nan)
    means = summary(results, args.seed, skip_nan)["models"]
    print(format_summary({name: {**values, **values["mae"]} for name, values in means.items()}))
    if results.skipped:
        print(f"{len(results.skipped)} pairs left out (see {files[0]})")


@command
def main() -> None:
    setup_logging()
    overrides, words = split_overrides(sys.argv[1:])
    args = build_parser().parse_args(words)
    if overrides and args.command != "profile" and getattr(args, "exp_dir", None) is None:
        raise UserError(f"{overrides[0]} changes an experiment: name it with -e")
    commands = (profile, scannet_process, scannet, hypersim_pairs, hypersim, rooms, concat)
    run = {function.__name__: function for function in commands}
    run[args.command.replace("-", "_")](args, overrides)


if __name__ == "__main__":
    main()
