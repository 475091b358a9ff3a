"""Evaluate a method on the held-out views of a scene: metrics, renders, error maps, one table."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from common.cli import add_boolean, command_parser, positive, setup_logging
from common.errors import UserError, command
from dataloader.pairs import PairData
from dataloader.scene import Scene
from dataloader.scene_sets import SceneSets
from engine.config import TrainingConfig, build, to_dict
from engine.device import best_device
from engine.evaluator import Evaluator
from engine.launch import make_accelerator
from engine.method import Method
from engine.metrics import load_image_metrics
from engine.outputs import prepare_folder, write_provenance
from engine.reports import format_table, write_reports
from engine.set_scores import load_set_network, set_scores, write_original_scores
from engine.tasks import chosen_tasks
from methods import (
    BASELINES,
    METHODS,
    create_method,
    load_experiment,
    method_class,
    open_experiment,
    open_trained,
    parse_experiment,
)

if TYPE_CHECKING:
    from accelerate import Accelerator

EXAMPLES = """
python test.py -e configs/baselines/depth_warp -s motorcycle
python test.py -e configs/baselines/photo_blend -s fox data.root=scenes/fox
python test.py -e configs/baselines/vertex_colors -r latest -s fox --compare all data.root=scenes/fox
python test.py -e configs/warp_plus_pose -r 112000 -s warp_plus_pose_evaluation -b 8 -w 4 --save_data
python test.py -e configs/hash_manifold/scene_a -r latest -s fox --compare all,outputs/colors data.root=fox
"""


def build_parser() -> argparse.ArgumentParser:
    """The script's own flags; the experiment's method adds more."""
    parser = command_parser(__doc__ or "", EXAMPLES)
    parser.add_argument("-e", "--exp_dir", type=Path, required=True, help="folder that holds config.yaml")
    parser.add_argument("-s", "--savepath", required=True, help="results go to quant_eval/SAVEPATH; ./x is x")
    parser.add_argument("-r", "--resume", help="checkpoint: N, latest or -1")
    parser.add_argument("--output_dir", type=Path, help="where the iter_N folders are (default: -e)")
    parser.add_argument("-b", "--batch_size", type=positive(int), default=1, help="targets rendered at once")
    parser.add_argument("-w", "--workers", type=int, default=0, help="threads that decode photos")
    add_boolean(parser, "--save_generations", default=True, help="write the renders (default: True)")
    add_boolean(parser, "--save_data", help="write the true images too")
    parser.add_argument(
        "--savefreq", type=positive(int), help="write every n-th image (default: 1; of image pairs: 10)"
    )
    parser.add_argument(
        "--compare",
        default="",
        metavar="NAMES",
        help="score these too: names, 'all' untrained baselines, experiment folders; comma-separated",
    )
    parser.add_argument(
        "--weights_dir",
        type=Path,
        help="folder with the weights of VGG-16 and AlexNet (LPIPS), Inception (FID)",
    )
    many = parser.add_argument_group("data of many scenes")
    many.add_argument(
        "--sources",
        nargs="+",
        type=positive(int),
        default=[],
        metavar="N",
        help="give so many of each task's source views, one number after the other (default: all)",
    )
    many.add_argument(
        "--tasks",
        nargs="+",
        type=Path,
        default=[],
        metavar="FILE",
        help="evaluation index instead of the data's; several: the same targets from other sources",
    )
    return parser


Data = Scene | PairData | SceneSets


def compared(words: str, own: str, scene: Data) -> Iterator[tuple[str, Method]]:
    """The further methods that `--compare` names, with their weights."""
    for word in filter(None, words.split(",")):
        if word == "all":
            kinds = {name: method_class(name) for name in BASELINES if name != own}
            names = [name for name, kind in kinds.items() if not kind.trains and kind.serves(scene)]
            yield from ((name, untrained(name, scene)) for name in names)
        elif word not in METHODS and Path(word).is_dir():
            yield from_folder(Path(word), scene)
        else:
            yield word, untrained(word, scene)


def from_folder(folder: Path, scene: Data) -> tuple[str, Method]:
    """The method of a folder: with its newest checkpoint, or, where it needs none, by its config."""
    if (folder / "config.yaml").is_file():
        experiment, kind = load_experiment(folder)
        if not kind.needs_weights(experiment.model):
            return folder.name, create_method(experiment, scene)
    return open_trained(folder, scene)


def untrained(name: str, scene: Data) -> Method:
    """A method that needs no checkpoint, with its default settings. Raises UserError for others."""
    kind = method_class(name)
    if kind.trains:
        raise UserError(f"--compare {name}: it is trained, so name the folder that holds its iter_N")
    if not kind.serves(scene):
        raise UserError(f"--compare {name}: it is made for a single scene, and {scene.name} has many")
    return kind.create(build(kind.Config, {}), scene)


def processes(config: TrainingConfig, folder: Path) -> Accelerator | None:
    """The processes that share the work, where a launcher started several."""
    accelerator = make_accelerator(replace(config, tracker="none", precision="launch"), folder)
    return accelerator if accelerator.num_processes > 1 else None


@command
def main() -> None:
    setup_logging()
    args, experiment, kind = parse_experiment(build_parser(), "test")
    experiment.data.threads = args.workers
    accelerator = processes(experiment.training, Path(args.savepath))
    first = accelerator is None or accelerator.is_main_process
    if not first:
        setup_logging(logging.WARNING)
    scene, method = open_experiment(args, experiment, kind)
    tasks = chosen_tasks(scene, experiment.data.target, args.sources, args.tasks)
    others = list(compared(args.compare, experiment.method, scene))
    place = args.savepath if args.savepath.startswith(("./", "/")) else f"quant_eval/{args.savepath}"
    folder = prepare_folder(Path(place))
    metrics = load_image_metrics(args.weights_dir, best_device())
    pairs = not isinstance(scene, Scene | SceneSets)
    inception = load_set_network(metrics, args.weights_dir, best_device()) if pairs else None
    evaluator = Evaluator(
        scene=scene,
        data=experiment.data,
        metrics=metrics,
        device=best_device(),
        batch_size=args.batch_size,
        folder=folder,
        save_generations=args.save_generations,
        save_data=args.save_data,
        save_every=args.savefreq or (10 if pairs else 1),
        accelerator=accelerator,
        unnamed=experiment.method,
        tasks=tasks,
        framing=method,
    )
    reports = []
    for name, compared_method in [(experiment.method, method), *others]:
        sets = set_scores(scene.split(experiment.data.target), metrics, inception) if pairs else []
        reports += evaluator.evaluate_all(name, compared_method, sets)
    if not first:
        return
    files = write_reports(reports, metrics, folder)
    if pairs:
        files += write_original_scores(reports[0].pooled, folder)
    write_provenance(folder, to_dict(experiment), experiment.training.seed)
    print(format_table(reports))
    print("\n".join(str(file) for file in files))


if __name__ == "__main__":
    main()
