"""scripts/generate_scene.py, with networks of a few thousand random weights."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from geometry.gaussian_files import read_gaussians
from geometry.path_files import write_camera_path
from geometry.scene_paths import circle_cameras
from tests.cli.conftest import CallMain
from tests.methods.scene_lifting.stand_ins import photo_camera
from tests.methods.scene_lifting.tiny import tiny_config, tiny_network_config
from tests.methods.scene_lifting.tiny_inpainter import write_pipeline

SCRIPT = "scripts/generate_scene.py"
Generate = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment with a checkpoint and an inpainter."""
    from engine.pretrained import save
    from methods.scene_lifting.method import SceneLifting

    folder = tmp_path_factory.mktemp("experiment")
    network = {**dataclasses.asdict(tiny_network_config())}
    network = {name: list(value) if isinstance(value, tuple) else value for name, value in network.items()}
    inpainter = {"name": str(write_pipeline(folder / "inpainter")), "decoder": "", "steps": 1, "guidance": 0}
    model = {"start": "", "network": network, "inpainter": inpainter}
    (folder / "config.yaml").write_text(yaml.safe_dump({"method": "scene_lifting", "model": model}))
    torch.manual_seed(0)
    method = SceneLifting.create(tiny_config())
    method.initialise()
    save(method, folder / "iter_7")
    return folder


@pytest.fixture
def generate(
    experiment: Path, tmp_path: Path, call_main: CallMain, monkeypatch: pytest.MonkeyPatch
) -> Generate:
    """Run the script on a small photo in an empty folder."""
    monkeypatch.chdir(tmp_path)
    Image.effect_noise((67, 50), 60).convert("RGB").save("photo.png")

    def run(*words: str | Path) -> tuple[int, str, str]:
        return call_main(SCRIPT, "-e", experiment, "--image", "photo.png", "--film", "0", *words)

    return run


def test_a_stage_is_written_and_a_second_run_paints_nothing(generate: Generate, tmp_path: Path) -> None:
    code, printed, errors = generate("--prompt", "abc", "--film", "2")
    assert code == 0, errors
    views = ["photo", "view_001", "view_002"]
    assert all((tmp_path / "output" / "images" / f"{name}.png").is_file() for name in views)
    assert all((tmp_path / "output" / f"fly_through.{kind}").stat().st_size > 0 for kind in ("mp4", "gif"))
    assert "output.ply" in printed
    record = json.loads((tmp_path / "output" / "run.json").read_text())
    assert record["config"]["model"]["generation"]["prompt"] == "abc"
    first = read_gaussians(tmp_path / "output.ply")
    assert len(first) > 64 * 48
    steps = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "output" / "steps").iterdir()}
    assert set(steps) == {f"view_00{i}.{kind}" for i in (1, 2) for kind in ("npz", "png")}
    code, _, errors = generate("--prompt", "abc")
    assert code == 0, errors
    assert "view_002: kept from an earlier run" in errors
    assert steps == {path.name: path.stat().st_mtime_ns for path in (tmp_path / "output" / "steps").iterdir()}
    assert torch.equal(read_gaussians(tmp_path / "output.ply").means, first.means)


def test_modes_and_paths(generate: Generate, tmp_path: Path) -> None:
    code, _, errors = generate("--output_path", "sub/one.ply", "model.generation.mode=single")
    assert code == 0, errors
    assert len(read_gaussians(tmp_path / "sub" / "one.ply")) == 64 * 48
    path = circle_cameras(photo_camera(), [(0.0, 0.0), (15.0, 5.0)])
    write_camera_path(path, tmp_path / "path.json", 10)
    words = ["--path", "path.json", "--prompt", "a", "--output_path", "two.ply"]
    code, _, errors = generate(*words, "model.generation.max_size=32")
    assert code == 2
    assert "too narrow to be reduced" in errors
    code, _, errors = generate(*words)
    assert code == 0, errors
    assert len(list((tmp_path / "two" / "images").iterdir())) == 2


def test_known_depth_without_networks(generate: Generate, tmp_path: Path) -> None:
    depth = np.full((50, 67), 2.0, np.float32)
    depth[:20] = 0
    np.save("depth.npy", depth)
    words = ["--depth", "depth.npy", "--focal", "70", "--inpainter", "none", "--checkpoint_dir", tmp_path]
    code, _, errors = generate(*words)
    assert code == 0, errors
    gaussians = read_gaussians(tmp_path / "output.ply")
    assert len(gaussians) == 64 * 29  # one of fifty rows is cropped at the top
    assert torch.equal(gaussians.means[:, 2], torch.full((64 * 29,), 2.0))


def test_videos_are_made_of_a_painted_scene(
    generate: Generate, experiment: Path, call_main: CallMain, tmp_path: Path
) -> None:
    words = ["-i", "photo.png", "--prompt", "abc", "-s", "film", "--path", "spiral", "--frames", "2"]
    code, printed, errors = call_main("video_script.py", "-e", experiment, "-r", "latest", *words)
    assert code == 0, errors
    assert all((tmp_path / "film" / f"spiral.{kind}").stat().st_size > 0 for kind in ("mp4", "gif", "png"))
    assert len(read_gaussians(tmp_path / "film" / "scene" / "gaussians.ply")) > 64 * 48
    assert "mesh.glb" in printed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "there is no prompt: "),
        (["--prompt", " "], "there is no prompt: "),
        (["--prompt", "a", "--output_path", "out.obj"], "out.obj: name a file that ends in .ply"),
        (["--prompt", "a", "--output_path", "photo.png/out.ply"], "photo.png/out"),
        (["--prompt", "a", "-r", "3"], "iter_3"),
        (
            ["--prompt", "a", "--checkpoint_dir", "nowhere"],
            "scripts/download.py weights scene_lifting/default",
        ),
        (["--prompt", "a", "--inpainter", "nobody/none"], "scripts/download.py hub nobody/none"),
        (["--prompt", "a", "--path", "none.json"], "none.json does not exist"),
        (["--prompt", "a", "--depth", "none.npy"], "none.npy does not exist"),
        (["--prompt", "a", "--image", "none.png"], "none.png does not exist"),
        (["-e", "configs/baselines/depth_warp"], "scene_lifting is needed here"),
        (["--prompt", "a", "model.generation.prompts=[a,b,c]"], "3 entries, and 2 views are made"),
        (["--prompt", "a", "model.generation.promt=b"], "did you mean"),
        (["--prompt", "a", "model.generation.mode=180"], "mode"),
        (["--prompt", "a", "--mode", "ring"], "invalid choice: 'ring'"),
    ],
)
def test_bad_input(
    generate: Generate, repo_root: Path, tmp_path: Path, words: list[str], message: str
) -> None:
    code, _, errors = generate(*(str(repo_root / w) if w.startswith("configs/") else w for w in words))
    assert code == 2
    assert message in errors
    assert "Traceback" not in errors
    assert not (tmp_path / "output.ply").exists()
