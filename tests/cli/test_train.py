"""train.py as one types it: what it writes, and one line and exit code 2 for what cannot be done."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

import methods
import train
from engine import checkpoint

TOY = """
method: toy
model: {width: 8}
training: {steps: 6, save_every: 3, batch_size: 2, learning_rate: 0.01, ema_decay: 0.9}
"""


@pytest.fixture
def experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An experiment folder of the toy method."""
    monkeypatch.setitem(methods.METHODS, "toy", "tests.engine.toy_method:ToyMethod")
    folder = tmp_path / "experiment"
    folder.mkdir()
    (folder / "config.yaml").write_text(TOY)
    return folder


def _train(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["train.py", *map(str, words)])
    try:
        train.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def _refusal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: object) -> str:
    capsys.readouterr()
    assert _train(monkeypatch, *words) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    return errors[0]


def test_it_trains_beside_the_config_and_keeps_how_it_was_made(
    experiment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _train(monkeypatch, "-e", experiment, "-b", 4, "training.seed=3") == 0
    assert sorted(path.name for path in experiment.iterdir()) == [
        "config.yaml",
        "iter_3",
        "iter_6",
        "logs",
        "run.json",
    ]
    assert (experiment / "config.yaml").read_text() == TOY
    record = json.loads((experiment / "run.json").read_text())
    assert (record["seed"], record["config"]["training"]["batch_size"]) == (3, 4)
    assert "training.seed=3" in record["command"]
    resolved = yaml.safe_load((experiment / "iter_6" / "config.yaml").read_text())
    assert resolved == record["config"]
    assert checkpoint.read_state(experiment / "iter_6").samples_drawn == 24


def test_resume_words_and_another_output_folder(
    experiment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "deep" / "output"
    assert _train(monkeypatch, "--exp_dir", experiment, "--output_dir", output, "-r", "auto") == 0
    assert yaml.safe_load((output / "config.yaml").read_text())["training"]["steps"] == 6
    assert not (experiment / "iter_6").exists()
    common = ("-e", experiment, "--output_dir", output)
    assert "-r latest" in _refusal(monkeypatch, capsys, *common)
    assert _train(monkeypatch, *common, "training.steps=9", "-r", "-1", "--workers", 1) == 0
    assert _train(monkeypatch, *common, "training.steps=10", "--resume", "9") == 0
    assert checkpoint.read_state(output / "iter_10").samples_drawn == 20


def test_a_signal_ends_in_a_save_and_the_exit_code_for_requeueing(
    experiment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _train(monkeypatch, "-e", experiment, "model.signal_at=3") == 75
    assert _train(monkeypatch, "-e", experiment, "-r", "auto") == 0
    assert checkpoint.read_state(experiment / "iter_6").step == 6


def test_what_cannot_be_done_is_one_line(
    experiment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refusal(*words: object) -> str:
        return _refusal(monkeypatch, capsys, "-e", experiment, *words)

    assert f"{experiment} holds no checkpoint" in refusal("-r", "latest")
    assert "'training.learnig_rate': did you mean 'training.learning_rate'" in refusal(
        "training.learnig_rate=1"
    )
    assert "'training.batch_size' is 0" in refusal("-b", 0)
    (tmp_path / "file").touch()
    assert "file/out" in refusal("--output_dir", tmp_path / "file" / "out")
    assert f"{tmp_path / 'no.pt'} is not a checkpoint folder" in refusal(
        f"training.init_from={tmp_path / 'no.pt'}"
    )

    assert _train(monkeypatch, "-e", experiment) == 0
    assert "-r latest" in refusal()
    weights = experiment / "iter_6" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:50])
    assert f"{weights} is damaged (50 bytes" in refusal("-r", 6)
    assert f"{experiment / 'iter_4'} does not exist (checkpoints there: 3, 6)" in refusal("-r", 4)
    assert _train(monkeypatch, "-e", experiment, "-r", "latest") == 0
    assert checkpoint.damage(experiment / "iter_6") is None


def test_methods_without_training_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.yaml").write_text("method: nearest_view\n")
    assert "nearest_view has nothing to train" in _refusal(monkeypatch, capsys, "-e", tmp_path)


def test_an_unwritable_folder_and_a_wrong_word_from_the_shell(repo_root: Path) -> None:
    """The real thing, in processes of their own: /proc cannot be written, not even by root."""
    for words, expected in (
        (["--output_dir", "/proc/out"], "error: cannot write to /proc/out"),
        (["training.stesp=3"], "error: unknown config key 'training.stesp'"),
    ):
        done = subprocess.run(
            [sys.executable, "train.py", "-e", "configs/baselines/vertex_colors", *words],
            cwd=repo_root,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 2, done.stderr
        assert done.stderr.startswith(expected)
        assert done.stderr.count("\n") == 1
        assert done.stdout == ""


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without GPU")
def test_a_gpu_launch_without_gpu_does_not_train_on_the_cpu(repo_root: Path, tmp_path: Path) -> None:
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file"]
    done = subprocess.run(
        [
            *launch,
            "acc_configs/1.yaml",
            "train.py",
            "-e",
            "configs/baselines/vertex_colors",
            "--output_dir",
            tmp_path,
        ],
        cwd=repo_root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "error: the launch asks for a GPU, but this machine shows none" in done.stderr
    assert "returned non-zero exit status 2" in done.stderr  # accelerate's own report of our exit code
    assert done.returncode != 0
    assert not list(tmp_path.glob("iter_*"))
