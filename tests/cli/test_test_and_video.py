"""test.py and video_script.py from the command line, as a stranger would type them."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import Finished, Run, refusal

SMALL = ["data.max_size=64"]


@pytest.fixture
def shell(repo_root: Path) -> Run:
    """As `run`, but in a process of its own."""

    def call(*words: str | Path) -> Finished:
        command = [sys.executable, *map(str, words)]
        return subprocess.run(
            command, cwd=repo_root, capture_output=True, text=True, timeout=300, check=False
        )

    return call


def test_all_untrained_baselines_in_one_table(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "results"
    done = run(
        "test.py", "-e", "configs/baselines/photo_blend", "-s", out, "--compare", "all", "--save_data", *SMALL
    )
    assert done.returncode == 0, done.stderr
    summaries = json.loads((out / "metrics.json").read_text())
    assert {s["method"] for s in summaries} == {
        "photo_blend", "nearest_view", "mean_view", "single_plane", "depth_warp",
    }  # fmt: skip
    with (out / "per_image.csv").open() as file:
        rows = list(csv.DictReader(file))
    for summary in summaries:
        own = [float(row["psnr"]) for row in rows if row["method"] == summary["method"]]
        assert summary["n"] == len(own) == 3
        assert summary["means"]["psnr"] == pytest.approx(np.mean(own))
        assert summary["method"] in done.stdout
        assert "lpips_vgg" in summary["missing"] or "lpips_vgg" in summary["means"]
    best = max(summaries, key=lambda s: s["means"]["psnr_covered"])
    assert best["method"] == "photo_blend"
    # the scores are those of the files: recompute one from the PNGs
    render = np.asarray(Image.open(out / "generations/photo_blend/0008.png")).astype(float) / 255
    truth = np.asarray(Image.open(out / "targets/0008.png")).astype(float) / 255
    psnr = -10 * np.log10(((render - truth) ** 2).mean())
    row = next(r for r in rows if r["method"] == "photo_blend" and r["view"] == "0008")
    assert float(row["psnr"]) == pytest.approx(psnr, abs=1e-3)
    assert json.loads((out / "run.json").read_text())["config"]["data"]["max_size"] == 64
    assert Image.open(out / "sheet.png").width > 500


def test_stereo_photo_warped_into_the_second_camera(shell: Run, tmp_path: Path) -> None:
    done = shell(
        "test.py", "-e", "configs/baselines/depth_warp", "-s", tmp_path, "--save_generations", "False"
    )
    assert done.returncode == 0, done.stderr
    means = json.loads((tmp_path / "metrics.json").read_text())[0]["means"]
    assert means["psnr_covered"] >= 27
    assert means["coverage"] >= 0.78
    assert not (tmp_path / "generations").exists()


def test_video_of_paths_by_name_and_file(run: Run, tmp_path: Path) -> None:
    experiment = ["-e", "configs/baselines/depth_warp", "data.max_size=96", "--frames", "5"]
    done = run("video_script.py", *experiment, "-s", tmp_path / "a", "--path", "orbit", "spiral")
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "a/orbit.gif") as gif:
        assert (gif.n_frames, gif.size) == (5, (96, 65))
    for name in ("orbit.mp4", "spiral.gif", "spiral.mp4", "orbit.png", "run.json"):
        assert (tmp_path / "a" / name).stat().st_size > 0
    import torch

    from geometry.cameras import pinhole
    from geometry.path_files import write_camera_path

    camera = pinhole(100.0, 50, 70)
    write_camera_path(camera.with_poses(torch.eye(4).double().repeat(3, 1, 1)), tmp_path / "tour.json", 12.0)
    done = run(
        "video_script.py",
        *experiment,
        "-s",
        tmp_path / "b",
        "--path",
        tmp_path / "tour.json",
        "--format",
        "gif",
    )
    assert done.returncode == 0, done.stderr
    names = sorted(path.name for path in (tmp_path / "b").iterdir())
    assert names == ["run.json", "tour.gif", "tour.json", "tour.png"]
    before = (tmp_path / "tour.json").read_text()
    beside = ["-s", tmp_path, "--path", tmp_path / "tour.json", "--format", "gif", "--fps", "3"]
    assert run("video_script.py", *experiment, *beside).returncode == 0
    assert (tmp_path / "tour.json").read_text() == before


def test_nothing_is_made_before_every_word_is_understood(run: Run, tmp_path: Path) -> None:
    paths = ["--path", "orbit", "helix"]
    assert "helix" in refusal(
        run("video_script.py", "-e", "configs/baselines/depth_warp", "-s", tmp_path / "o", *paths)
    )
    names = ["--compare", "mean_view,median_view"]
    assert "median_view" in refusal(
        run("test.py", "-e", "configs/baselines/nearest_view", "-s", tmp_path / "o", *names)
    )
    assert not (tmp_path / "o").exists()


def test_own_photo_with_depth_file(shell: Run, tmp_path: Path) -> None:
    ramp = np.tile(np.linspace(0, 255, 60, dtype=np.uint8)[None, :, None], (40, 1, 3))
    Image.fromarray(ramp).save(tmp_path / "a.png")
    np.save(tmp_path / "a.npy", np.full((40, 60), 2.0, np.float32))
    photo = ["-e", "configs/baselines/depth_warp", "-i", tmp_path / "a.png"]
    done = shell(
        "video_script.py", *photo, "--depth", tmp_path / "a.npy", "-s", tmp_path / "o", "--path", "orbit",
        "--frames", "3", "--format", "gif",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "o/orbit.gif").exists()
    assert "--depth FILE" in refusal(shell("video_script.py", *photo, "-s", tmp_path / "o"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["test.py", "-e", "configs/baselines/nearest_view", "data.rot=x", "-s", "./x"], "data.root"),
        (["test.py", "-e", "configs/baselines/vertex_colors", "-s", "./x"], "-r latest"),
        (["test.py", "-e", "configs/none", "-s", "./x"], "config.yaml"),
        (["test.py", "-e", "configs/baselines/nearest_view", "-s", "/proc/nowhere"], "cannot write"),
        (["video_script.py", "-e", "configs/baselines/depth_warp", "-s", "/proc/nowhere"], "cannot write"),
        (["video_script.py", "-e", "configs/baselines/depth_warp", "-s", "OUT", "--path", "helix"], "orbit"),
        (
            ["video_script.py", "-e", "configs/baselines/depth_warp", "-s", "OUT", "--path", "x.json"],
            "x.json",
        ),
        (
            ["video_script.py", "-e", "configs/baselines/depth_warp", "-s", "OUT", "data.root=castle"],
            "castle",
        ),
    ],
)
def test_bad_input_is_refusal(run: Run, tmp_path: Path, words: list[str], message: str) -> None:
    assert message in refusal(run(*[tmp_path if word == "OUT" else word for word in words]))


def test_checkpoint_missing_and_truncated(run: Run, tmp_path: Path) -> None:
    base = ["-e", "configs/baselines/vertex_colors", "--output_dir", tmp_path, "-s", tmp_path / "o"]
    small = [*SMALL, "training.steps=2", "training.save_every=2", "training.tracker=none", "model.rays=64"]
    assert str(tmp_path) in refusal(run("test.py", *base, "-r", "latest", *small))
    assert run("train.py", *base[:4], *small).returncode == 0
    weights = tmp_path / "iter_2/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert "model.safetensors" in refusal(run("test.py", *base, "-r", "2", *small))


def test_mesh_out_of_view(run: Run, tmp_path: Path) -> None:
    from dataloader.formats import write_scene
    from dataloader.toy import make_scene
    from geometry.mesh_files import write_mesh
    from geometry.meshes import Mesh

    scene = make_scene(0, n_views=4, height=24, width=32)
    write_scene(scene, tmp_path / "scene", "mvsnet")
    mesh = scene.mesh()
    write_mesh(Mesh(mesh.vertices + 1e4, mesh.faces), tmp_path / "scene/far.ply")
    data = [f"data.root={tmp_path}/scene", "data.mesh=far.ply", "data.hold_out_every=2"]
    line = refusal(run("test.py", "-e", "configs/baselines/photo_blend", "-s", tmp_path / "o", *data))
    assert "mesh" in line
    assert list((tmp_path / "o").iterdir()) == []  # no black pictures
    train = ["train.py", "-e", "configs/baselines/vertex_colors", "--output_dir", tmp_path / "t"]
    assert "mesh" in refusal(run(*train, *data))
    assert list((tmp_path / "t").iterdir()) == []
    assert "no checkpoint" in refusal(run(*train[:3], "--output_dir", tmp_path / "u", "-r", "latest", *data))
    assert not (tmp_path / "u").exists()
