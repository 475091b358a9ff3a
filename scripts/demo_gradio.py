"""A web page that makes 3D scenes of photos: upload one, say what it shows, and watch the views come."""

from __future__ import annotations

import argparse
import importlib.util
import sys
import tempfile
import threading
from pathlib import Path

from common.cli import add_boolean, command_parser, positive, setup_logging
from common.errors import UserError, command
from methods import parse_experiment

EXAMPLES = """
python scripts/demo_gradio.py
python scripts/demo_gradio.py -e configs/scene_lifting/default -r latest --output_dir outputs/web_demo
python scripts/demo_gradio.py --inpainter none --port 8080
python scripts/demo_gradio.py --host 0.0.0.0 --max_upload 8 model.gaussians.steps=0
"""

EXPERIMENT = "configs/scene_lifting/default"


def build_parser() -> argparse.ArgumentParser:
    parser = command_parser(__doc__ or "", EXAMPLES)
    parser.add_argument(
        "-e", "--exp_dir", type=Path, metavar="EXPERIMENT", help=f"experiment folder (default: {EXPERIMENT})"
    )
    parser.add_argument(
        "-r", "--resume", default="latest", metavar="CHECKPOINT", help="iteration, latest, or a folder"
    )
    parser.add_argument(
        "--checkpoint_dir", type=Path, help="folder that holds the checkpoints (default: EXPERIMENT)"
    )
    parser.add_argument(
        "--inpainter", metavar="NAME", help="hub id or folder of an inpainting pipeline, or none"
    )
    parser.add_argument(
        "--film",
        type=int,
        default=60,
        metavar="N",
        help="frames of the fly-through over the views, 0 for none (default: %(default)s)",
    )
    parser.add_argument(
        "--output_dir",
        type=Path,
        default=Path("outputs/web_demo"),
        help="where scenes are kept, each in a folder with a random name (default: %(default)s)",
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen at; 0.0.0.0: all (default: this computer only)"
    )
    parser.add_argument("--port", type=positive(int), help="default: the first free one from 7860 on")
    add_boolean(parser, "--share", help="open a public address too, through gradio's servers")
    parser.add_argument(
        "--max_upload", type=positive(float), default=20.0, metavar="MB", help="size of a photo's file (20)"
    )
    return parser


@command
def main() -> None:
    setup_logging()
    words = ["-e", EXPERIMENT, *sys.argv[1:]]  # of two experiments, the last one counts
    args, experiment, kind = parse_experiment(build_parser(), "test", words)
    if importlib.util.find_spec("gradio") is None:
        raise UserError("the web demo needs gradio: run 'pip install -r requirements.txt'")

    from engine.checkpoint import MissingCheckpointError, find_trained, load_for_inference
    from engine.device import best_device
    from methods.scene_lifting.method import SceneLifting
    from methods.scene_lifting.web.demo import serving
    from methods.scene_lifting.web.jobs import Limits, Studio
    from methods.scene_lifting.web.scenes import WebScenes

    if not issubclass(kind, SceneLifting):
        raise UserError(f"{args.exp_dir} is of the method {experiment.method}: scene_lifting is needed here")
    method = kind.create(experiment.model)
    if experiment.model.completion != "none":
        try:
            load_for_inference(method, find_trained(args.checkpoint_dir or args.exp_dir, args.resume))
        except MissingCheckpointError as error:
            raise UserError(f"{error}; {kind.weights_hint}") from None
    scenes = WebScenes(method.to(best_device()).eval(), experiment.model, args.film)
    studio = Studio(scenes, args.output_dir, Limits(args.max_upload), paints=scenes.inpaint is not None)
    with tempfile.TemporaryDirectory() as folder:
        examples = write_examples(Path(folder))
        with serving(studio, examples, args.host, args.port, args.share) as address:
            print(f"open {address} in a browser; Ctrl-C ends it. Scenes are kept in {studio.output_dir}")
            wait()


def wait() -> None:
    """Until Ctrl-C: the page is served by threads."""
    threading.Event().wait()


def write_examples(folder: Path) -> list[tuple[Path, str]]:
    """Photos to begin with, and their prompts: one that scikit-image brings along, and a drawn room."""
    from dataloader.builtin import motorcycle
    from dataloader.images import write_image
    from dataloader.room_scenes import RoomScenes

    garage, room = motorcycle(), RoomScenes([0], n_views=1, size=(288, 384)).scene(0)
    photos = [(garage, "a motorcycle in a garage"), (room, "a room with colourful boxes")]
    examples = []
    for scene, prompt in photos:
        path = folder / f"{scene.name}.jpg"
        write_image(scene.records[0].load(), path)
        examples.append((path, prompt))
    return examples


if __name__ == "__main__":
    main()
