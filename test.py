"""Evaluate a method on the held-out views of a scene: metrics, renders, error maps, one table."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from common.cli import add_boolean, command_parser, positive, setup_logging
from common.errors import UserError, command
from dataloader.scene import Scene
from engine.config import build, to_dict
from engine.device import best_device
from engine.evaluator import Evaluator, format_table, write_reports
from engine.method import Method
from engine.metrics import load_image_metrics
from engine.outputs import prepare_folder, write_provenance
from methods import BASELINES, METHODS, method_class, open_experiment, open_trained, parse_experiment

EXAMPLES = """
python test.py -e configs/baselines/depth_warp -s motorcycle
python test.py -e configs/baselines/photo_blend -s fox data.root=scenes/fox
python test.py -e configs/baselines/vertex_colors -r latest -s fox --compare all data.root=scenes/fox
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
        "--compare",
        default="",
        metavar="NAMES",
        help="score these too: names, 'all' untrained baselines, folders of trained methods; comma-separated",
    )
    parser.add_argument("--weights_dir", type=Path, help="folder with LPIPS' VGG-16 and AlexNet weights")
    return parser


def compared(words: str, own: str, scene: Scene) -> Iterator[tuple[str, Method]]:
    """The further methods that `--compare` names, with their weights."""
    for word in filter(None, words.split(",")):
        if word == "all":
            names = [name for name in BASELINES if name != own and not method_class(name).trains]
            yield from ((name, untrained(name, scene)) for name in names)
        elif word not in METHODS and Path(word).is_dir():
            yield open_trained(Path(word), scene)
        else:
            yield word, untrained(word, scene)


def untrained(name: str, scene: Scene) -> Method:
    """A method that needs no checkpoint, with its default settings. Raises UserError for others."""
    kind = method_class(name)
    if kind.trains:
        raise UserError(f"--compare {name}: it is trained, so name the folder that holds its iter_N")
    return kind.create(build(kind.Config, {}), scene)


@command
def main() -> None:
    setup_logging()
    args, experiment, kind = parse_experiment(build_parser())
    experiment.data.threads = args.workers
    scene, method = open_experiment(args, experiment, kind)
    others = list(compared(args.compare, experiment.method, scene))
    folder = args.savepath if args.savepath.startswith(("./", "/")) else f"quant_eval/{args.savepath}"
    folder = prepare_folder(Path(folder))
    metrics = load_image_metrics(args.weights_dir, best_device())
    evaluator = Evaluator(
        scene=scene,
        data=experiment.data,
        metrics=metrics,
        device=best_device(),
        batch_size=args.batch_size,
        folder=folder,
        save_generations=args.save_generations,
        save_data=args.save_data,
    )
    reports = [evaluator.evaluate(experiment.method, method)]
    for name, other in others:
        reports.append(evaluator.evaluate(name, other))
    files = write_reports(reports, metrics, folder)
    write_provenance(folder, to_dict(experiment), experiment.training.seed)
    print(format_table(reports))
    print("\n".join(str(file) for file in files))


if __name__ == "__main__":
    main()
