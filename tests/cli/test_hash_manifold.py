"""The surface renderer from the command line: train, resume, test, video; bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from dataloader import toy
from dataloader.formats import write_scene
from dataloader.scene import Scene
from engine.tensor_files import read_safetensors
from geometry.mesh_files import write_mesh
from geometry.meshes import Mesh
from tests.cli.conftest import Run, refusal

SMALL = [
    "model.levels=4", "model.features=2", "model.log2_table=10", "model.width=16", "model.rays=512",
    "model.finest_resolution=64", "data.max_size=48", "training.steps=6", "training.save_every=3",
    "training.tracker=none",
]  # fmt: skip


@pytest.fixture(scope="module")
def room() -> Scene:
    return toy.make_scene(5, n_views=9, height=36, width=48)


@pytest.fixture(scope="module")
def folder(room: Scene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scene on disk in the original's layout: images/, cams/ and a mesh."""
    root = tmp_path_factory.mktemp("scene") / "room"
    write_scene(room, root, "mvsnet")
    return root


def test_train_resume_test_video(run: Run, folder: Path, tmp_path: Path) -> None:
    experiment = ["-e", "configs/hash_manifold/demo", f"data.root={folder}", *SMALL]
    output = tmp_path / "trained"
    for words in (["training.steps=3"], ["-r", "latest"]):
        done = run("train.py", *experiment, "--output_dir", output, *words)
        assert done.returncode == 0, done.stderr
    results = tmp_path / "results"
    scored = run(
        "test.py", *experiment, "--output_dir", output, "-r", "latest", "-s", results, "--save_data",
        "--compare", f"photo_blend,{output}",
    )  # fmt: skip
    assert scored.returncode == 0, scored.stderr
    summaries = json.loads((results / "metrics.json").read_text())
    assert [s["method"] for s in summaries] == ["hash_manifold", "photo_blend", "hash_manifold"]
    assert summaries[0]["frames_per_second"] > 0
    assert (results / "generations/hash_manifold/0000.png").is_file()
    assert (results / "targets/0000.png").is_file()

    video = run(
        "video_script.py", *experiment, "--output_dir", output, "-r", "6", "-s", tmp_path / "video",
        "--path", "ellipse", "--frames", "3", "--format", "gif",
    )  # fmt: skip
    assert video.returncode == 0, video.stderr
    with Image.open(tmp_path / "video/ellipse.gif") as gif:
        assert (gif.n_frames, gif.size) == (3, (48, 36))


def test_a_ray_cache_trains_as_casting_does(run: Run, folder: Path, tmp_path: Path) -> None:
    """Every pixel of a room sees its walls, so both offer the same rows and draw the same pixels."""
    made = run("scripts/scene.py", "cache-rays", folder, tmp_path / "rays")
    assert made.returncode == 0, made.stderr
    experiment = ["-e", "configs/hash_manifold/demo", f"data.root={folder}", *SMALL, "data.max_size=0"]
    for name, words in (("cast", []), ("cached", [f"data.ray_cache={tmp_path / 'rays'}"])):
        done = run("train.py", *experiment, "--output_dir", tmp_path / name, *words)
        assert done.returncode == 0, done.stderr
    cast, cached = (
        read_safetensors(tmp_path / name / "iter_6/model.safetensors") for name in ("cast", "cached")
    )
    for name, value in cast.items():
        torch.testing.assert_close(value, cached[name], atol=2e-3, rtol=0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data.test_views=1,30"], "data.test_views names photo 30: the scene has 9"),
        (["data.ray_cache=nowhere"], "cache-rays"),
        (["model.exposur=gain"], "did you mean 'model.exposure'"),
    ],
)
def test_bad_settings_are_one_line(
    run: Run, folder: Path, tmp_path: Path, words: list[str], message: str
) -> None:
    experiment = ["-e", "configs/hash_manifold/demo", f"data.root={folder}", *SMALL]
    done = run("train.py", *experiment, "--output_dir", tmp_path / "out", *words)
    assert message in refusal(done)
    assert not list((tmp_path / "out").glob("iter_*"))


def test_a_mesh_of_another_scale_is_named(run: Run, room: Scene, tmp_path: Path) -> None:
    write_scene(room, tmp_path / "scene", "mvsnet")
    mesh = room.mesh()
    write_mesh(Mesh(mesh.vertices * 1e-7 + 1e4, mesh.faces), tmp_path / "scene/mesh.ply")
    words = ["-e", "configs/hash_manifold/demo", f"data.root={tmp_path / 'scene'}", *SMALL]
    done = run("train.py", *words, "--output_dir", tmp_path / "out")
    line = refusal(done)
    assert "mesh" in line
    assert "frame" in line
    assert not list((tmp_path / "out").glob("iter_*"))


def test_an_original_checkpoint_renders(run: Run, folder: Path, tmp_path: Path) -> None:
    """A file as XScale-NVS saves it, dropped into iter_N, with the settings it was trained with."""
    from methods.hash_manifold.config import HashManifoldConfig
    from methods.hash_manifold.method import HashManifold

    config = HashManifoldConfig(levels=4, features=2, log2_table=10, width=16, exposure="code", box="mesh")
    method = HashManifold(config, toy.make_scene(5, n_views=9, height=36, width=48).mesh(), 7)
    state = method.state_dict()
    saved = {
        "epoch": 200,
        "lr": 2e-4,
        "iteration": 3,
        "spatial_encoding_dict": {"spatial_enc.params": state["field.grid.params"].reshape(-1)},
        "l_embeddings_list": {"0.weight": state["field.lighting.weight"]},
        "x_embeddings_list": {"0.weight": state["field.exposure.weight"]},
        "shading_machine_dict": {
            "render_net_c." + name.removeprefix("field.decoder."): value
            for name, value in state.items()
            if name.startswith("field.decoder.")
        },
    }
    (tmp_path / "iter_200").mkdir()
    torch.save(saved, tmp_path / "iter_200/epoch:00200.pth.tar")
    settings = [
        "model.levels=4", "model.features=2", "model.log2_table=10", "model.width=16", "data.max_size=48",
    ]  # fmt: skip
    words = ["-e", "configs/hash_manifold/xscale", f"data.root={folder}", "--output_dir", tmp_path]
    scored = run("test.py", *words, "-r", "200", "-s", tmp_path / "s", *settings)
    assert scored.returncode == 0, scored.stderr
    wrong = run("test.py", *words, "-r", "200", "-s", tmp_path / "w", *settings, "model.width=32")
    assert "do not fit this model" in refusal(wrong)
