"""LVSM from the command line: train, resume, evaluate, film, load originals; bad input is one line."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from engine.tensor_files import read_safetensors
from tests.dataloader.re10k.makers import damage, make_example, make_root
from tests.methods.lvsm.tiny import original_names, tiny_config

TINY = [
    *(f"model.transformer.{word}" for word in ("width=24", "layers=2", "heads=2", "head_dim=8", "mlp=32")),
    "data.rooms.seeds=0:6",
    "data.rooms.test_seeds=50:52",
    "data.rooms.size=16",
    "model.images.height=16",
    "model.images.width=16",
]
QUICK = ["training.steps=4", "training.batch_size=2", "training.workers=0", "training.save_every=2"]
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(call_main: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repo_root: Path) -> Run:
    """Call a script in tmp_path, where the presets are: exit code, stdout, error lines."""
    for name in ("toy", "unofficial", "official"):
        shutil.copytree(repo_root / "configs/lvsm" / name, tmp_path / "configs/lvsm" / name)
    monkeypatch.chdir(tmp_path)

    def call(script: str, *words: str | Path) -> tuple[int, str, str]:
        code, printed, errors = call_main(script, *words)
        return code, printed, "\n".join(line for line in errors.splitlines() if line.startswith("error:"))

    return call


def test_the_toy_is_trained_resumed_scored_and_filmed(run: Run, tmp_path: Path) -> None:
    words = ["-e", "configs/lvsm/toy", *TINY]
    short = [*QUICK, "training.preview_every=2", "training.tracker=none"]
    assert run("train.py", *words, *short, "--output_dir", "whole")[0] == 0
    assert run("train.py", *words, *short, "--output_dir", "parts", "training.steps=2")[0] == 0
    code, _, errors = run("train.py", *words, *short, "--output_dir", "parts", "-r", "latest")
    assert code == 0, errors
    # the schedule knows its length, so compare with a run whose every step had the same rate
    assert (tmp_path / "whole/previews/0000002.png").is_file()
    evaluated = ["--output_dir", "whole", "-r", "latest", "-s", "./scores", "-b", "2", "--compare", "all"]
    code, printed, errors = run("test.py", *words, *evaluated)
    assert code == 0, errors
    names = [line.split()[0] for line in printed.splitlines() if line]
    assert names[:4] == ["method", "lvsm", "nearest_view", "mean_view"]
    with (tmp_path / "scores/per_image.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["scene"] for row in rows} == {"room50", "room51"}
    assert len(rows) == 3 * 2 * 2
    filmed = ["--output_dir", "whole", "-r", "latest", "-s", "film", "--scenes", "room51"]
    code, _, errors = run(
        "video_script.py", *words, *filmed, "--path", "frames", "pivot", "--frames", "3", "--format", "mp4"
    )
    assert code == 0, errors
    assert sorted(path.name for path in (tmp_path / "film/room51").glob("*.mp4")) == [
        "frames.mp4",
        "pivot.mp4",
    ]


def test_resuming_equals_an_uninterrupted_run(run: Run, tmp_path: Path) -> None:
    words = ["-e", "configs/lvsm/toy", *TINY, *QUICK, "training.schedule=constant", "training.tracker=none"]
    words += ["training.warmup_steps=0", "training.precision=no"]
    assert run("train.py", *words, "--output_dir", "whole")[0] == 0
    assert run("train.py", *words, "--output_dir", "parts", "training.steps=2")[0] == 0
    assert run("train.py", *words, "--output_dir", "parts", "-r", "latest")[0] == 0
    whole, parts = (
        read_safetensors(tmp_path / name / "iter_4/model.safetensors") for name in ("whole", "parts")
    )
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


@pytest.fixture
def chunks(tmp_path: Path) -> Path:
    """Chunks of two scenes and an evaluation index."""
    root = tmp_path / "re10k"
    make_root(root, [[make_example(0), make_example(1)]], size=(24, 40))
    index = {"room0000": {"context": [0, 2, 4], "target": [1, 3]}, "room0001": None}
    (tmp_path / "index.json").write_text(json.dumps(index))
    return root


def write_unofficial(folder: Path) -> None:
    """A Lightning file of a small model, as a compiled run writes it."""
    config = tiny_config(two_norms=True, qk_norm="layer")
    config.signed_images = False
    folder.mkdir(parents=True)
    weights = {f"model._orig_mod.{name}": value for name, value in original_names(config).items()}
    torch.save({"state_dict": weights, "epoch": 1, "global_step": 7}, folder / "lvsm_base.ckpt")


SMALL = [
    *(f"model.transformer.{word}" for word in ("width=24", "layers=2", "heads=2", "head_dim=8", "mlp=32")),
    "model.transformer.patch=4",
    "model.images.height=16",
    "model.images.width=16",
]


def test_an_original_checkpoint_and_its_index_are_scored_with_more_sources(
    run: Run, chunks: Path, tmp_path: Path
) -> None:
    write_unofficial(tmp_path / "configs/lvsm/unofficial/iter_7")
    words = ["-e", "configs/lvsm/unofficial", "-r", "7", *SMALL, "data.root=re10k", "data.index=index.json"]
    code, printed, errors = run("test.py", *words, "-s", "./scores", "--sources", "2", "3", "--save_data")
    assert code == 0, errors
    counts = [line.split()[1] for line in printed.splitlines() if line.startswith("lvsm")]
    assert counts == ["2", "3"]
    report = json.loads((tmp_path / "scores/metrics.json").read_text())
    assert report[0]["means"].keys() >= {"psnr", "ssim", "psnr_lvsm"}
    assert list((tmp_path / "scores/targets/room0000").glob("*.png"))


def test_the_other_code_line_is_recognised_and_named(run: Run, chunks: Path, tmp_path: Path) -> None:
    write_unofficial(tmp_path / "configs/lvsm/official/iter_7")
    words = ["-e", "configs/lvsm/official", "-r", "7", "data.root=re10k", "data.index=index.json"]
    code, _, errors = run("test.py", *words, "-s", "./scores")
    assert code == 2
    assert "is a checkpoint of the unofficial LVSM code (masked)" in errors
    assert "use -e configs/lvsm/unofficial" in errors


@pytest.mark.parametrize(
    ("index", "words", "message"),
    [
        ({"nowhere": {"context": [0, 4], "target": [1]}}, [], "nowhere"),
        ({"room0000": {"context": [0, 9], "target": [1]}}, [], "room0000"),
        ({"room0000": {"context": [0, 4], "target": [1]}}, ["--sources", "3"], "2"),
    ],
)
def test_an_index_that_asks_too_much_is_one_line(
    run: Run, chunks: Path, tmp_path: Path, index: object, words: list[str], message: str
) -> None:
    write_unofficial(tmp_path / "configs/lvsm/unofficial/iter_7")
    (tmp_path / "index.json").write_text(json.dumps(index))
    given = ["-e", "configs/lvsm/unofficial", "-r", "7", *SMALL, "data.root=re10k", "data.index=index.json"]
    code, _, errors = run("test.py", *given, "-s", "./scores", *words)
    assert code == 2
    assert message in errors
    assert len(errors.splitlines()) == 1
    assert not (tmp_path / "scores/metrics.json").exists()


def test_a_damaged_photo_is_named(run: Run, tmp_path: Path) -> None:
    example = make_example(0)
    damage(example, 2)
    make_root(tmp_path / "re10k", [[example]], size=(24, 40))
    (tmp_path / "index.json").write_text(json.dumps({"room0000": {"context": [0, 2], "target": [1]}}))
    write_unofficial(tmp_path / "configs/lvsm/unofficial/iter_7")
    words = ["-e", "configs/lvsm/unofficial", "-r", "7", *SMALL, "data.root=re10k", "data.index=index.json"]
    code, _, errors = run("test.py", *words, "-s", "./scores")
    assert code == 2
    assert "000000.torch" in errors
    assert "frame 2" in errors


def test_memory_that_runs_out_names_the_setting(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from methods.lvsm.method import Lvsm

    def greedy(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(Lvsm, "forward", greedy)
    words = ["-e", "configs/lvsm/toy", *TINY, *QUICK, "--output_dir", "run"]
    code, _, errors = run("train.py", *words)
    assert code == 2
    assert "training.batch_size" in errors
