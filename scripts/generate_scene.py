"""Make a 3D scene of one photo: lift it by its depth, paint what lies around it, fit Gaussians, film it.

Interrupted runs continue: finished views are kept in the folder beside the .ply file, and are made anew only
where what they depend on has changed (photo, prompt, seed, cameras, settings, models).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from common.cli import add_boolean, command_parser, setup_logging
from common.errors import UserError, command
from methods import open_experiment, parse_experiment

if TYPE_CHECKING:
    from engine.config import Experiment
    from methods.scene_lifting.method import SceneLifting
    from methods.scene_lifting.state import LiftedScene

EXAMPLES = """
python scripts/generate_scene.py --image photo.jpg --prompt "a quiet alley" --output_path alley.ply
python scripts/generate_scene.py --image photo.jpg --prompt "a quiet alley" --mode 360 --seed 3
python scripts/generate_scene.py --image a.jpg --prompt alley --inpainter OWNER/NAME model.inpainter.steps=4
python scripts/generate_scene.py --image photo.jpg --depth depth.npy --focal 800 --inpainter none
python scripts/generate_scene.py --image photo.jpg --prompt "an alley" --path camera_path.json
python scripts/generate_scene.py -e configs/scene_lifting/original --image photo.jpg --prompt "an alley"
"""

EXPERIMENT = "configs/scene_lifting/default"
FILMS = ("fly_through.mp4", "fly_through.gif")
STEPS = "steps"  # folder of the finished views


def build_parser() -> argparse.ArgumentParser:
    """The script's own flags; the method adds --prompt, --mode, --seed and others."""
    parser = command_parser(__doc__ or "", EXAMPLES)
    parser.add_argument(
        "-i", "--image", dest="inputimg", type=Path, required=True, metavar="FILE", help="the photo"
    )
    parser.add_argument(
        "--output_path",
        type=Path,
        default=Path("./output.ply"),
        help="the 3D Gaussians; everything else goes to the folder of that name beside it (default: "
        "%(default)s)",
    )
    parser.add_argument(
        "--path", type=Path, metavar="FILE", help="camera_path.json whose views are made in place of --mode's"
    )
    parser.add_argument(
        "--film", type=int, default=60, metavar="N", help="frames of the fly-through, 0 for none (60)"
    )
    add_boolean(parser, "--original_axes", help="write the .ply with the original's mixed axes")
    parser.add_argument(
        "-e", "--exp_dir", type=Path, metavar="EXPERIMENT", help=f"experiment folder (default: {EXPERIMENT})"
    )
    parser.add_argument(
        "-r", "--resume", default="latest", metavar="CHECKPOINT", help="N, latest or -1 (default: latest)"
    )
    parser.add_argument(
        "--checkpoint_dir", dest="output_dir", type=Path, help="where the iter_N folders are (default: -e)"
    )
    return parser


def parse() -> tuple[argparse.Namespace, Experiment, type[SceneLifting]]:
    """The command line. Raises UserError for what cannot work, before anything is loaded."""
    from methods.scene_lifting.method import SceneLifting

    words = ["-e", EXPERIMENT, *sys.argv[1:]]  # of two experiments, the last one counts
    args, experiment, kind = parse_experiment(build_parser(), "video", words)
    if not issubclass(kind, SceneLifting):
        raise UserError(f"{args.exp_dir} is of the method {experiment.method}: scene_lifting is needed here")
    if args.output_path.suffix.lower() != ".ply":
        raise UserError(f"--output_path {args.output_path}: name a file that ends in .ply")
    args.savepath = args.output_path.with_suffix("")  # also tells the method that this is no training
    if args.savepath.exists() and not args.savepath.is_dir():
        raise UserError(f"{args.savepath} is in the way, as the folder beside --output_path: move it")
    settings = experiment.model.generation
    settings.path = settings.path if args.path is None else str(args.path)
    settings.folder = settings.folder or str(args.savepath / STEPS)
    return args, experiment, kind


def make(
    args: argparse.Namespace, experiment: Experiment, kind: type[SceneLifting]
) -> tuple[SceneLifting, LiftedScene]:
    """The method and the scene. Raises UserError where weights are missing that are needed."""
    from engine.device import best_device
    from engine.memory import out_of_memory
    from engine.outputs import prepare_folder
    from methods.scene_lifting.method import SceneLifting

    scene, method = open_experiment(args, experiment, kind, partly=True)
    assert isinstance(method, SceneLifting)
    if method.missing and (args.depth is None or experiment.model.inpainter.name != "none"):
        raise UserError(method.missing)
    prepare_folder(args.savepath)
    method = method.to(best_device()).eval()
    with out_of_memory("lower model.generation.max_size"):
        return method, method.encode(method.views(scene, [0], experiment.data).to(best_device()))


def write(lifted: LiftedScene, args: argparse.Namespace, experiment: Experiment) -> None:
    """Write the scene and how it was made."""
    from engine.config import to_dict
    from engine.outputs import write_provenance
    from methods.scene_lifting.outputs import write_scene

    for file in write_scene(lifted, args.savepath, args.original_axes, args.output_path):
        print(file)
    write_provenance(args.savepath, to_dict(experiment), experiment.model.generation.seed)


def write_flight(lifted: LiftedScene, method: SceneLifting, args: argparse.Namespace) -> None:
    """Write a film of a flight over the views, there and back."""
    import torch

    from engine.device import best_device
    from geometry.cameras import Cameras
    from geometry.views import Rendering
    from methods.scene_lifting.outputs import fly_through, write_film

    @torch.no_grad()
    def render(camera: Cameras) -> Rendering:
        return Rendering(method.render(lifted, camera.reshape(1).to(best_device())).image[0])

    files = [args.savepath / name for name in FILMS]
    write_film(fly_through(lifted, args.film), render, files)
    print(*files, sep="\n")


@command
def main() -> None:
    setup_logging()
    args, experiment, kind = parse()
    method, lifted = make(args, experiment, kind)
    write(lifted, args, experiment)
    if args.film > 0:
        write_flight(lifted, method, args)


if __name__ == "__main__":
    main()
