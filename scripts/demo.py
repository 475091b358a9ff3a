"""The whole project in a few minutes, on built-in input: videos of a real photo; train, test, video of a
scene; views of unseen scenes by a trained transformer; a rig's video from a moving camera.

Runs the same commands that a user types, shows each one, and ends with the metrics and the paths of what was
made.
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

from PIL import Image

from common.cli import command_parser
from common.errors import UserError, command
from engine.outputs import prepare_folder

EXAMPLES = "python scripts/demo.py"

ROOT = Path(__file__).resolve().parents[1]
OUT = Path("outputs/demo")  # emptied by every run


def commands() -> list[str]:
    """The demo's commands, in order."""
    lift, colors = "-e configs/baselines/depth_warp", "-e configs/baselines/vertex_colors"
    surface = "-e configs/hash_manifold/demo"
    transformer = "-e configs/lvsm/toy -r assets/lvsm_toy"
    scene = "-e configs/scene_lifting/motorcycle"
    completion = "-e configs/scene_lifting/toy -r assets/scene_lifting_toy"
    rig = "-e configs/mask_volume/toy_mask -r assets/mask_volume_toy data.rig.test_seeds=100000:100001"
    launch = f"{sys.executable} -m accelerate.commands.launch --config_file acc_configs/cpu.yaml"
    baseline, checkpoint = f"--output_dir {OUT}/room/vertex_colors", f"--output_dir {OUT}/room/hash_manifold"
    return [
        # a real photo lifted by its true depth, then warped to the camera of a second photo
        f"python video_script.py {lift} -s {OUT}/motorcycle --path orbit spiral",
        f"python test.py {lift} -s ./{OUT}/motorcycle/test",
        # the same photo as a 3D scene: points, Gaussians, mesh and cameras as files, and a flight through it
        f"python test.py {scene} -s ./{OUT}/scene/test",
        f"python video_script.py {scene} -s {OUT}/scene --path spiral",
        # a procedural scene: train a baseline and the surface renderer, compare with every baseline on
        # held-out views, fly through it
        f"{launch} train.py {colors} {baseline}",
        f"{launch} train.py {surface} {checkpoint}",
        f"python test.py {surface} -r latest {checkpoint} -s ./{OUT}/room/test"
        f" --compare all,{OUT}/room/vertex_colors",
        f"python video_script.py {surface} -r latest {checkpoint} -s {OUT}/room --path interpolate",
        # two views of rooms never seen before, and those between them by a transformer with shipped weights
        f"python test.py {transformer} -s ./{OUT}/rooms/test -b 2 --compare all",
        f"python video_script.py {transformer} -s {OUT}/rooms --path pivot",
        # depth of such rooms, completed from what another view knows of it, by shipped weights
        f"python scripts/benchmark.py rooms {completion} --out_dir {OUT}/depth"
        " --models inpainted zero_aligned nearest",
        # a moving scene filmed by cameras that stand still: cameras held out, and a flight while time runs
        f"python test.py {rig} -s ./{OUT}/rig/test --compare nearest_view,single_plane",
        f"python video_script.py {rig} -s {OUT}/rig --path spiral --frames 48",
    ]


def run(line: str) -> None:
    """Show a command as it would be typed, and run it. Raises UserError when it fails."""
    shown = line.replace(f"{sys.executable} -m accelerate.commands.launch", "accelerate launch")
    print(f"\n$ {shown}", flush=True)
    words = [sys.executable if word == "python" else word for word in shlex.split(line)]
    finished = subprocess.run(words, cwd=ROOT, check=False)
    if finished.returncode:
        raise UserError(f"the demo stopped: '{shown}' ended with exit code {finished.returncode}")


def summary() -> str:
    """The metrics of the evaluations and the files worth opening."""
    lines = [
        f"{'scene':12} {'method':14} {'n':>3} {'PSNR':>7} {'SSIM':>7} {'PSNR covered':>13} {'covered':>8}"
    ]
    for scene in ("motorcycle", "scene", "room", "rooms", "rig"):
        for report in json.loads((ROOT / OUT / scene / "test" / "metrics.json").read_text()):
            means = report["means"]
            lines.append(
                f"{scene:12} {report['method']:14} {report['n']:3d} {means['psnr']:7.2f} {means['ssim']:7.4f}"
                f" {means['psnr_covered']:13.2f} {means['coverage']:8.1%}"
            )
    depth = json.loads((ROOT / OUT / "depth" / "metrics.json").read_text())["models"]
    lines += ["", f"{'hidden depth':14} {'n':>3} {'MAE, m':>7}"]
    lines += [
        f"{name:14} {scores['mae']['n']:3d} {scores['mae']['mean']:7.3f}" for name, scores in depth.items()
    ]
    files = sorted(path for path in (ROOT / OUT).rglob("*") if path.suffix in (".gif", ".mp4"))
    files += [*sorted((ROOT / OUT).glob("*/test/sheet.png")), ROOT / OUT / "depth" / "sheet.png"]
    files += [*sorted((ROOT / OUT / "scene" / "scene").glob("*.*")), ROOT / OUT / "rig" / "planes.html"]
    return "\n".join([*lines, "", *(str(path.relative_to(ROOT)) for path in files)])


def write_overview() -> Path:
    """One picture of it all: the photo from new cameras above, a held-out view by every method below."""
    orbit = Image.open(ROOT / OUT / "motorcycle/orbit.png")
    sheet = Image.open(ROOT / OUT / "room/test/sheet.png")
    titles = 24  # pixels above the first of the three views
    first_view = sheet.crop((0, 0, sheet.width, titles + (sheet.height - titles) // 3))
    height = round(orbit.height * first_view.width / orbit.width)
    overview = Image.new("RGB", (first_view.width, height + first_view.height), (255, 255, 255))
    overview.paste(orbit.resize((first_view.width, height)), (0, 0))
    overview.paste(first_view, (0, height))
    overview.save(ROOT / OUT / "overview.jpg", quality=85)
    return OUT / "overview.jpg"


@command
def main() -> None:
    command_parser(__doc__ or "", EXAMPLES).parse_args()
    started = time.monotonic()
    shutil.rmtree(ROOT / OUT, ignore_errors=True)
    prepare_folder(ROOT / OUT)
    for line in commands():
        run(line)
    overview = write_overview()
    print(f"\n{summary()}\n{overview}\n\ndemo finished in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
