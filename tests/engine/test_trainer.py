"""The training loop: it may be stopped, killed and continued anywhere, and never loses what it saved."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from common.errors import UserError
from engine import checkpoint
from engine.trainer import train
from tests.engine.toy_method import ToyMethod, contents, differences, toy_experiment, train_toy

TWO_CPU_PROCESSES = """
compute_environment: LOCAL_MACHINE
distributed_type: MULTI_GPU
use_cpu: true
num_machines: 1
num_processes: 2
machine_rank: 0
main_process_port: 0
mixed_precision: 'no'
"""


def _message(folder: Path, changes: dict[str, Any], resume: str | None = None) -> str:
    with pytest.raises(UserError) as caught:
        train_toy(folder, changes, resume)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def _losses(history: list[dict[str, float]]) -> list[float]:
    return [record["train/loss"] for record in history]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[float]]:
    """A whole run with dropout: its folder and its losses."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, _losses(train_toy(folder, {"model.dropout": 0.3}).history)


def test_it_learns_and_leaves_a_checkpoint_of_the_last_step(uninterrupted: tuple[Path, list[float]]) -> None:
    folder, losses = uninterrupted
    assert len(losses) == 12
    assert losses[-1] < 0.3 * losses[0]
    assert sorted(path.name for path in folder.iterdir()) == ["iter_12", "iter_8"]
    state = checkpoint.read_state(folder / "iter_12")
    assert (state.step, state.samples_drawn, state.bad_samples, state.world_size) == (12, 48, 0, 1)
    assert contents(folder / "iter_12")["model.safetensors:seen"] == 48


# train/loss of the first 20 steps of the toy method: a change here changes every training run.
GOLDEN = [
    1.668222,
    2.154814,
    1.391754,
    1.403566,
    1.080509,
    0.730546,
    0.547831,
    0.239293,
    0.23441,
    0.263707,
    0.066048,
    0.053901,
    0.057334,
    0.005559,
    0.033208,
    0.029378,
    0.09562,
    0.018611,
    0.054012,
    0.091255,
]


def test_golden_losses(tmp_path: Path) -> None:
    history = train_toy(tmp_path, {"training.steps": 20, "training.save_every": 20}).history
    assert _losses(history) == pytest.approx(GOLDEN, rel=1e-4)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_run_is_bit_equal(
    tmp_path: Path, uninterrupted: tuple[Path, list[float]], workers: int
) -> None:
    """Stopped by SIGTERM in the middle of a step: it finishes the step, saves, and goes on from there."""
    folder, losses = uninterrupted
    changes = {"model.dropout": 0.3, "training.workers": workers}
    stopped = train_toy(tmp_path, changes | {"model.signal_at": 5})
    assert (stopped.step, stopped.stopped_by) == (6, "SIGTERM")
    assert checkpoint.damage(tmp_path / "iter_6") is None
    resumed = train_toy(tmp_path, changes, "latest")
    assert (resumed.step, resumed.stopped_by) == (12, None)
    assert _losses(stopped.history + resumed.history) == losses
    assert differences(folder / "iter_12", tmp_path / "iter_12") == []


def test_accumulated_micro_batches_are_the_batch(tmp_path: Path) -> None:
    """4 samples at once, or 2 x 2: the same samples, the same losses up to rounding."""
    once = train_toy(tmp_path / "once")
    twice = train_toy(tmp_path / "twice", {"training.batch_size": 2, "training.accumulation": 2})
    assert _losses(once.history) == pytest.approx(_losses(twice.history), rel=1e-5)


def test_resume_needs_a_checkpoint_and_a_fresh_start_overwrites_none(
    tmp_path: Path, uninterrupted: tuple[Path, list[float]]
) -> None:
    folder, _ = uninterrupted
    assert "holds no checkpoint" in _message(tmp_path, {}, "latest")
    assert "-r latest" in _message(folder, {"model.dropout": 0.3})
    assert "iter_12" in _message(folder, {"model.dropout": 0.3}, "8")
    done = train_toy(folder, {"model.dropout": 0.3}, "auto")
    assert (done.step, done.history) == (12, [])


def test_auto_starts_fresh_where_there_is_nothing(tmp_path: Path) -> None:
    assert train_toy(tmp_path, {"training.steps": 2}, "auto").step == 2


def test_initial_weights_come_without_the_rest(
    tmp_path: Path, uninterrupted: tuple[Path, list[float]]
) -> None:
    folder, losses = uninterrupted
    changes = {"training.init_from": str(folder / "iter_12"), "training.warmup_steps": 0}
    result = train_toy(tmp_path, changes)
    assert result.step == 12
    assert _losses(result.history)[0] < 0.3 * losses[0]
    assert checkpoint.read_state(tmp_path / "iter_12").samples_drawn == 48
    message = _message(tmp_path / "wider", changes | {"model.width": 9})
    assert "network.1.weight ([16, 8] there, [16, 9] here)" in message


def test_a_published_checkpoint_is_continued_with_a_fresh_optimiser(tmp_path: Path) -> None:
    train_toy(tmp_path / "whole")
    (tmp_path / "iter_10").mkdir()
    published = tmp_path / "iter_10" / "published.safetensors"
    (tmp_path / "whole" / "iter_8" / "model.safetensors").rename(published)
    result = train_toy(tmp_path, {}, "latest")
    assert [record["step"] for record in result.history] == [11, 12]
    assert checkpoint.read_state(tmp_path / "iter_12").samples_drawn == 48
    assert published.exists()


def test_scalars_go_to_tensorboard_and_a_continued_run_extends_them(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    changes = {"training.tracker": "tensorboard", "training.validate_every": 4}
    train_toy(tmp_path, changes | {"model.signal_at": 5})
    seen: list[tuple[int, bool, float]] = []

    def validate(method: Any, step: int) -> dict[str, float]:
        seen.append((step, method.training, float(method.network[3].bias.detach()[0])))
        return {"psnr": 30.0 + step}

    experiment = toy_experiment(changes)
    method = ToyMethod.create(experiment.model)
    start = checkpoint.find_start(tmp_path, "latest")
    train(method, method.samples(None, None), experiment, tmp_path, start, validate)

    events = EventAccumulator(str(tmp_path / "logs"))
    events.Reload()
    names = {"train/loss", "train/error", "train/lr", "train/grad_norm", "perf/samples_per_s", "val/psnr"}
    assert names <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Scalars("train/loss")] == list(range(1, 13))
    assert [(event.step, event.value) for event in events.Scalars("val/psnr")] == [(8, 38.0), (12, 42.0)]
    assert [(step, training) for step, training, _ in seen] == [(8, False), (12, False)]
    average = contents(tmp_path / "iter_12")["ema.safetensors:network.3.bias"]
    assert seen[1][2] == float(average[0])
    assert method.training


def test_learning_rates_keep_the_ratio_of_the_groups(tmp_path: Path) -> None:
    history = train_toy(tmp_path, {"model.payload": 2}).history
    rates = [record["train/lr"] for record in history]
    assert rates[:3] == pytest.approx([0.0, 0.005, 0.01])
    assert rates[-1] == pytest.approx(0.001)


# Samples that cannot be read, losses that are not finite


def test_unreadable_samples_are_named_replaced_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    changes = {"model.bad": (7, 11), "data.max_bad_fraction": 0.2, "training.steps": 20}
    with caplog.at_level(logging.WARNING):
        train_toy(tmp_path, changes | {"training.workers": 1, "model.signal_at": 12})
        result = train_toy(tmp_path, changes, "latest")
    state = checkpoint.read_state(tmp_path / "iter_20")
    named = [record.getMessage() for record in caplog.records if "unreadable" in record.getMessage()]
    assert state.samples_drawn == 80
    assert state.bad_samples == len(named) >= 4  # 80 draws of 37 items: at least two whole epochs
    assert all("photo_7.jpg" in line or "photo_11.jpg" in line for line in named)
    assert result.step == 20
    train_toy(tmp_path / "whole", changes)
    assert differences(tmp_path / "iter_20", tmp_path / "whole" / "iter_20") == []


def test_too_many_unreadable_samples_end_the_run(tmp_path: Path) -> None:
    message = _message(tmp_path, {"model.bad": (7,)})
    assert "data.max_bad_fraction (0.001)" in message
    assert "photo_7.jpg" in message
    message = _message(tmp_path, {"model.bad": tuple(range(37)), "data.max_bad_fraction": 1.0})
    assert "too many unreadable training samples in a row" in message


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_samples(tmp_path: Path) -> None:
    changes = {"model.infinite": (7,), "training.batch_size": 2, "training.accumulation": 2}
    message = _message(tmp_path, changes | {"training.steps": 40})
    assert "not finite at step" in message
    named = message.partition("samples: ")[2].split(", ")
    assert "photo_7.jpg" in named
    assert len(named) == 2  # the micro-batch it was in, not the other one
    assert all(
        torch.isfinite(value).all()
        for path in tmp_path.glob("iter_*")
        for value in contents(path).values()
        if isinstance(value, torch.Tensor)
    )


def test_steps_that_are_not_finite_can_be_skipped_and_are_counted(tmp_path: Path) -> None:
    changes = {"model.infinite": (7, 9), "training.steps": 30, "training.on_nan": "skip(3)"}
    history = train_toy(tmp_path, changes).history
    state = checkpoint.read_state(tmp_path / "iter_30")
    assert state.skipped_steps == history[-1]["train/skipped_steps"] > 2
    assert state.step == 30
    weights = contents(tmp_path / "iter_30")
    assert all(torch.isfinite(value).all() for value in weights.values() if isinstance(value, torch.Tensor))


def test_skipping_ends_after_k_in_a_row(tmp_path: Path) -> None:
    changes = {"model.infinite": tuple(range(37)), "training.on_nan": "skip(3)"}
    message = _message(tmp_path, changes)
    assert "3 in a row" in message
    assert "at step 2" in message


# Disks


def test_a_full_disk_ends_the_run_and_leaves_the_last_checkpoint(tmp_path: Path) -> None:
    changes = {"model.payload": 50_000, "training.steps": 8}
    train_toy(tmp_path, changes | {"model.signal_at": 3})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        message = _message(tmp_path, changes, "latest")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "iter_8.tmp" in message
    assert "File too large" in message
    assert [path.name for path in tmp_path.iterdir()] == ["iter_4"]
    train_toy(tmp_path, changes, "latest")
    train_toy(tmp_path / "whole", changes)
    assert differences(tmp_path / "iter_8", tmp_path / "whole" / "iter_8") == []


# Kills

KILLED = {
    "training.steps": 80,
    "training.save_every": 1,
    "training.log_every": 80,
    "model.payload": 200_000,
    "model.dropout": 0.3,
}


def _child(folder: str, changes: dict[str, Any], resume: str) -> None:
    torch.set_num_threads(2)  # as in tests/conftest.py: sums depend on it
    multiprocessing.set_start_method("fork", force=True)  # for the data workers, as in a run of train.py
    logging.disable(logging.INFO)
    train_toy(Path(folder), changes, resume)


def _kill_once(folder: Path, changes: dict[str, Any], chance: random.Random, context: Any) -> str | None:
    """Start or continue a run and kill it at a random time, half of the times while it saves.

    Returns when it was hit; None if it ended first.
    """
    process = context.Process(target=_child, args=(str(folder), changes, "auto"))
    before = set(folder.glob("iter_*"))
    process.start()
    saving = chance.random() < 0.5
    while process.is_alive() and not set(folder.glob("iter_*")) - before:
        time.sleep(0.002)
    time.sleep(chance.uniform(0, 0.15))
    while saving and process.is_alive() and not list(folder.glob("*.tmp")):
        pass
    if saving:
        time.sleep(chance.uniform(0, 0.02))
    alive = process.is_alive()
    os.kill(process.pid, signal.SIGKILL) if alive else None
    process.join()
    if process.exitcode == 0:
        return None
    assert process.exitcode == -signal.SIGKILL
    return "saving" if list(folder.glob("*.tmp")) else "training"


def _kill_campaign(folder: Path, kills: int, workers: int) -> dict[str, int]:
    """Kill a run again and again; check that no step once saved is ever lost, and how it ends."""
    seed = int.from_bytes(os.urandom(4), "big")
    print(f"kill campaign with seed {seed}")
    chance = random.Random(seed)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch._dynamo", "accelerate", "engine.trainer"])
    changes = KILLED | {"training.workers": workers, "training.steps": max(80, 12 * kills)}
    run, reached, hits = folder / "killed", 0, {"saving": 0, "training": 0}
    run.mkdir()
    while sum(hits.values()) < kills:
        hit = _kill_once(run, changes, chance, context)
        assert hit is not None, f"the run ended after {hits}: make it longer"
        hits[hit] += 1
        found = checkpoint.find(run, "auto")
        step = 0 if found is None else found.step
        assert step >= reached, f"step {reached} was saved, {step} is left"
        if found is not None:
            checkpoint.verify(found.path)
        reached = step
    train_toy(run, changes, "auto")
    train_toy(folder / "whole", changes | {"training.workers": 0, "training.save_every": 10_000})
    last = f"iter_{changes['training.steps']}"
    assert differences(run / last, folder / "whole" / last) == []
    assert not list(run.glob("*.tmp"))
    print(f"{kills} kills: {hits}")
    return hits


def test_two_kills_lose_no_checkpoint_and_no_bit(tmp_path: Path) -> None:
    _kill_campaign(tmp_path, kills=2, workers=1)


@pytest.mark.slow
def test_twenty_kills_lose_no_checkpoint_and_no_bit(tmp_path: Path) -> None:
    hits = _kill_campaign(tmp_path, kills=20, workers=0)
    assert hits["saving"] >= 5


# Several processes


def test_two_processes_follow_one_with_twice_the_batch(tmp_path: Path, repo_root: Path) -> None:
    """`accelerate launch`, gloo, DDP, accumulation and a data worker each: losses equal to 1e-5."""
    changes = {"training.steps": 20, "training.accumulation": 2, "training.save_every": 20}
    (tmp_path / "two.yaml").write_text(TWO_CPU_PROCESSES)
    words = [f"{key}={value}" for key, value in changes.items()]
    subprocess.run(
        [
            *(
                sys.executable,
                "-m",
                "accelerate.commands.launch",
                "--config_file",
                str(tmp_path / "two.yaml"),
            ),
            *(
                str(repo_root / "tests/engine/toy_method.py"),
                str(tmp_path / "two"),
                str(tmp_path / "two.json"),
            ),
            *(*words, "training.batch_size=3", "training.workers=1"),
        ],
        check=True,
        cwd=repo_root,
        env={**os.environ, "PYTHONPATH": str(repo_root)},
        timeout=300,
        capture_output=True,
    )
    one = train_toy(tmp_path / "one", changes | {"training.batch_size": 6})
    two = json.loads((tmp_path / "two.json").read_text())
    assert len(two) == 20
    for name in ("train/loss", "train/error", "train/grad_norm", "train/lr"):
        expected = [record[name] for record in one.history]
        assert [record[name] for record in two] == pytest.approx(expected, rel=1e-5), name
    assert checkpoint.read_state(tmp_path / "two" / "iter_20").world_size == 2
