"""Sharded training (FSDP2): the same run and the same checkpoints as without."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from common.errors import UserError
from engine import sharding
from engine.ema import Ema
from methods.baselines.photos import NearestView
from tests.engine.toy_method import ToyMethod, contents, differences, toy_experiment, train_toy

CHANGES = {"training.batch_size": 2, "training.accumulation": 2, "training.steps": 10, "model.payload": 3}


def _train(repo_root: Path, folder: Path, changes: dict[str, Any], processes: int = 2) -> list[dict]:
    """Two processes on the CPU that share the weights; returns what was logged."""
    words = [f"{key}={value}" for key, value in changes.items()]
    history = folder.with_suffix(".json")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={processes}"),
            *("--standalone", str(repo_root / "tests" / "engine" / "toy_method.py")),
            *(str(folder), str(history), *words),
        ],
        cwd=repo_root,
        env={
            **os.environ,
            "PYTHONPATH": str(repo_root),
            "ACCELERATE_USE_CPU": "true",
            "ACCELERATE_USE_FSDP": "true",
            "FSDP_VERSION": "2",
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(history.read_text())


def _close(first: Path, second: Path) -> None:
    """Two checkpoints hold the same names, shapes and, up to the order of sums, values."""
    a, b = contents(first), contents(second)
    assert a.keys() == b.keys()
    for name, value in a.items():
        if isinstance(value, Tensor) and not name.endswith(":seen"):  # a buffer counts what its process saw
            torch.testing.assert_close(
                value, b[name], rtol=1e-4, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}"
            )


def test_two_processes_follow_one_and_continue_each_other(repo_root: Path, tmp_path: Path) -> None:
    """Losses, clipping, moving average and checkpoints; then resumed by two processes, and by one."""
    one = train_toy(tmp_path / "one", CHANGES | {"training.batch_size": 4})
    two = _train(repo_root, tmp_path / "two", CHANGES | {"model.signal_at": 5})
    assert len(two) == 6
    again = _train(repo_root, tmp_path / "two", {**CHANGES, "resume": "latest"})
    for name in ("train/loss", "train/grad_norm", "train/lr"):
        expected = [record[name] for record in one.history]
        assert [record[name] for record in two + again] == pytest.approx(expected, rel=1e-4), name
    _close(tmp_path / "two" / "iter_10", tmp_path / "one" / "iter_10")
    (tmp_path / "two" / "iter_10").rename(tmp_path / "iter_10")
    train_toy(tmp_path / "two", CHANGES | {"training.batch_size": 4}, "8")  # the checkpoint knows no shards
    _close(tmp_path / "two" / "iter_10", tmp_path / "iter_10")


@pytest.mark.slow
def test_a_resumed_sharded_run_is_bit_equal(repo_root: Path, tmp_path: Path) -> None:
    _train(repo_root, tmp_path / "whole", CHANGES)
    _train(repo_root, tmp_path / "parts", CHANGES | {"model.signal_at": 3})
    _train(repo_root, tmp_path / "parts", {**CHANGES, "resume": "latest"})
    assert differences(tmp_path / "whole" / "iter_10", tmp_path / "parts" / "iter_10") == []


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[None]:
    """This process as a group of its own."""
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("alone")
def test_what_is_split_comes_together_again() -> None:
    method = ToyMethod.create(toy_experiment({"model.payload": 5}).model)
    before = {name: value.detach().clone() for name, value in method.state_dict().items()}
    sharding.shard(method, torch.device("cpu"), "no")
    assert sharding.is_sharded(method)
    assert method.method_name == "toy"
    assert all(isinstance(parameter, DTensor) for parameter in method.parameters())
    after = sharding.whole(method.state_dict(), keep=True)
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    dropped = sharding.whole({"a": [method.payload, 3]}, keep=False)
    assert dropped == {"a": [None, 3]}
    split = sharding.split_like(torch.arange(5.0), method.payload)
    assert isinstance(split, DTensor)
    assert torch.equal(split.full_tensor(), torch.arange(5.0))
    assert not isinstance(sharding.split_like(torch.ones(()), method.payload), DTensor)  # the step count


@pytest.mark.usefixtures("alone")
def test_averages_are_split_and_applied_for_a_while() -> None:
    method = ToyMethod.create(toy_experiment({"model.payload": 5}).model)
    sharding.shard(method, torch.device("cpu"), "no")
    ema = Ema(method, 0.9)
    ema.load({name: torch.full(value.shape, 7.0) for name, value in ema.weights.items()})
    with ema.applied(method):
        assert torch.equal(sharding.whole(method.payload, keep=True), torch.full((5,), 7.0))
    assert torch.equal(sharding.whole(method.payload, keep=True), torch.zeros(5))


@pytest.mark.usefixtures("alone")
def test_gradients_have_one_norm() -> None:
    method = ToyMethod.create(toy_experiment({"model.payload": 4}).model)
    sharding.shard(method, torch.device("cpu"), "no")
    method.payload.grad = sharding.split_like(torch.tensor([3.0, 0, 4, 0]), method.payload)
    assert sharding.total_norm([method.payload.grad]) == 5


def test_what_cannot_be_sharded_is_refused() -> None:
    with pytest.raises(UserError, match="nearest_view cannot be sharded"):
        sharding.shard(NearestView(), torch.device("cpu"), "no")
    method = ToyMethod.create(toy_experiment().model)
    with pytest.raises(UserError, match=r"training\.precision=bf16"):
        sharding.shard(method, torch.device("cpu"), "fp16")
    assert isinstance(method.network, nn.Sequential)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_accelerate_file_shards_on_gpus(repo_root: Path, tmp_path: Path) -> None:
    count = torch.cuda.device_count()
    done = subprocess.run(
        [
            *(sys.executable, "-m", "accelerate.commands.launch", "--num_processes", str(count)),
            *("--config_file", str(repo_root / "acc_configs" / "fsdp2.yaml")),
            *(str(repo_root / "tests" / "engine" / "toy_method.py"), str(tmp_path / "run")),
            *(str(tmp_path / "h.json"), "model.payload=3", "training.steps=4"),
        ],
        cwd=repo_root,
        env={**os.environ, "PYTHONPATH": str(repo_root)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert contents(tmp_path / "run" / "iter_4")["model.safetensors:payload"].shape == (3,)
