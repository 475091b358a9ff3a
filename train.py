"""Train a method, in one process or (`accelerate launch --config_file acc_configs/N.yaml`) in several."""

from __future__ import annotations

import argparse
import logging
from dataclasses import replace
from pathlib import Path

import torch
import yaml

from common.cli import add_boolean, command_parser, setup_logging
from common.errors import UserError, command
from common.files import replacing
from dataloader.pairs import PairData
from dataloader.scene import Scene
from dataloader.scene_sets import SceneSets
from engine.checkpoint import find_start
from engine.config import Experiment, to_dict
from engine.evaluator import Evaluator
from engine.launch import make_accelerator
from engine.method import Method
from engine.metrics import ImageMetrics
from engine.outputs import prepare_folder, write_provenance
from engine.run import Validate
from engine.sampling import key
from engine.tasks import find_tasks
from engine.trainer import EXIT_REQUEUE, train
from methods import create_method, parse_experiment

EXAMPLES = """
python train.py -e configs/baselines/vertex_colors
accelerate launch --config_file acc_configs/2.yaml train.py -e configs/baselines/vertex_colors -b 2 -w 4
python train.py -e configs/baselines/vertex_colors -r latest training.steps=2000
python train.py -e configs/baselines/vertex_colors --output_dir outputs/fox -r auto data.root=scenes/fox
"""


def build_parser() -> argparse.ArgumentParser:
    """The script's own flags; the experiment's method adds more."""
    parser = command_parser(__doc__ or "", EXAMPLES)
    parser.add_argument("-e", "--exp_dir", type=Path, required=True, help="folder that holds config.yaml")
    parser.add_argument("-b", "--batch_size", type=int, help="samples per process (training.batch_size)")
    parser.add_argument("-w", "--workers", type=int, help="loader processes (training.workers)")
    parser.add_argument(
        "-r",
        "--resume",
        help="N or latest (-1): continue from that checkpoint; auto: from the latest, if there is one; "
        "a folder of save-pretrained: start from its weights",
    )
    add_boolean(parser, "-l", "--log", help="log to Weights & Biases (training.tracker=wandb)")
    parser.add_argument("--output_dir", type=Path, help="where iter_N and logs go (default: -e)")
    return parser


def with_flags(experiment: Experiment, args: argparse.Namespace) -> Experiment:
    """The experiment with -b, -w and -l applied."""
    given = {
        "batch_size": args.batch_size,
        "workers": args.workers,
        "tracker": "wandb" if args.log else None,
    }
    changes = {name: value for name, value in given.items() if value is not None}
    return replace(experiment, training=replace(experiment.training, **changes))


def write_record(folder: Path, experiment: Experiment, keep_config: bool) -> None:
    """Write run.json, and the resolved config.yaml unless the folder's own is to be kept."""
    write_provenance(folder, to_dict(experiment), experiment.training.seed)
    if not keep_config:
        with replacing(folder / "config.yaml") as path:
            path.write_text(yaml.safe_dump(to_dict(experiment), sort_keys=False))


def make_validation(
    scene: Scene | PairData | SceneSets, experiment: Experiment, device: torch.device
) -> Validate:
    """The method's own validation, or the image metrics on the views held out by `data.target`: of pairs, on
    the split 'val'; of many scenes, on `data.validation_scenes` of the tasks.
    """
    known = isinstance(scene, Scene | SceneSets)
    data = experiment.data if known else replace(experiment.data, target="val")
    evaluator = Evaluator(scene, data, ImageMetrics(), device, experiment.training.batch_size)

    def validate(method: Method, step: int) -> dict[str, float]:
        own = method.validate(scene, experiment.data)
        if own is not None:
            return own
        if isinstance(scene, SceneSets):
            evaluator.tasks = find_tasks(scene, data.target).spread(data.validation_scenes)
        report = evaluator.evaluate(f"step {step}", method)
        return {name: report.mean(name) for name in report.scores if report.defined(name)}

    return validate


@command
def main() -> None:
    setup_logging()
    args, experiment, kind = parse_experiment(build_parser(), "train")
    experiment = with_flags(experiment, args)
    if not kind.trains:
        raise UserError(f"{experiment.method} has nothing to train: evaluate it with test.py")
    folder = args.output_dir or args.exp_dir
    accelerator = make_accelerator(experiment.training, folder)
    if not accelerator.is_main_process:
        setup_logging(logging.WARNING)
    start = find_start(folder, args.resume)
    prepare_folder(folder)
    torch.manual_seed(key(experiment.training.seed, "weights"))
    scene = kind.open(args, experiment)
    method = create_method(experiment, scene)
    samples = method.samples(scene, experiment.data)
    if accelerator.is_main_process:
        write_record(folder, experiment, keep_config=folder.resolve() == args.exp_dir.resolve())
    result = train(
        method,
        samples,
        experiment,
        folder,
        start=start,
        validate=make_validation(scene, experiment, accelerator.device),
        accelerator=accelerator,
    )
    if result.stopped_by is not None:
        raise SystemExit(EXIT_REQUEUE)


if __name__ == "__main__":
    main()
