"""A launch that becomes something smaller than what was asked for is refused, in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from common.errors import UserError
from engine.config import TrainingConfig
from engine.launch import Launch, check_launch, check_sharding, make_accelerator, read_launch, reproducible

ACC_CONFIGS = Path(__file__).parents[2] / "acc_configs"
SIMPLE = {"ACCELERATE_MIXED_PRECISION": "no", "ACCELERATE_USE_CPU": "False"}  # one process per launcher
ELASTIC = {"ACCELERATE_MIXED_PRECISION": "no", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "LOCAL_RANK": "0"}


def _file(folder: Path, **settings: object) -> list[str]:
    """The command line of `accelerate launch` with a file of these settings."""
    base = {"distributed_type": "NO", "num_processes": 1, "num_machines": 1}
    (folder / "acc.yaml").write_text(yaml.safe_dump(base | settings))
    return ["python", "accelerate", "launch", "--config_file", str(folder / "acc.yaml"), "train.py"]


def _refusal(launch: Launch, devices: int) -> str:
    with pytest.raises(UserError) as caught:
        check_launch(launch, devices)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_plain_start_is_one_process_wherever_it_is() -> None:
    launch = read_launch({}, ["bash"])
    assert launch == Launch(processes=1, started=1, local=1, cpu=None, by_accelerate=False)
    check_launch(launch, devices=0)
    check_launch(launch, devices=4)


def test_the_cpu_file_runs_anywhere() -> None:
    command = ["accelerate", "launch", f"--config_file={ACC_CONFIGS / 'cpu.yaml'}", "train.py"]
    launch = read_launch(SIMPLE | {"ACCELERATE_USE_CPU": "True"}, command)
    assert (launch.cpu, launch.processes) == (True, 1)
    check_launch(launch, devices=0)
    check_launch(launch, devices=1)


@pytest.mark.parametrize("kind", ["MULTI_CPU", "NO"])
def test_several_processes_of_which_one_starts_are_refused(tmp_path: Path, kind: str) -> None:
    """accelerate's simple launcher: it sets MASTER_ADDR, starts one process, and says nothing."""
    environment = SIMPLE | {"ACCELERATE_USE_CPU": "True", "MASTER_ADDR": "127.0.0.1"}
    command = _file(tmp_path, distributed_type=kind, num_processes=2, use_cpu=True)
    message = _refusal(read_launch(environment, command), devices=0)
    assert "asks for 2 processes, but 1 started" in message
    assert "MULTI_GPU" in message
    hidden = read_launch(environment, [])  # the launcher is in another process space
    assert "several processes, but 1 started" in _refusal(hidden, devices=0)
    flags = read_launch(environment, ["accelerate", "launch", "--num_processes", "3", "train.py"])
    assert "asks for 3 processes" in _refusal(flags, devices=0)


def test_two_processes_on_the_cpu_are_what_the_file_says(tmp_path: Path) -> None:
    launch = read_launch(
        ELASTIC, _file(tmp_path, distributed_type="MULTI_GPU", num_processes=2, use_cpu=True)
    )
    assert launch == Launch(processes=2, started=2, local=2, cpu=True, by_accelerate=True)
    check_launch(launch, devices=0)


def test_two_processes_on_the_cpu_by_environment() -> None:
    check_launch(read_launch(ELASTIC | {"ACCELERATE_USE_CPU": "true"}, ["torchrun"]), devices=0)


@pytest.mark.parametrize("name", ["1", "2", "8", "multinode"])
def test_gpu_files_are_refused_where_there_is_no_gpu(name: str) -> None:
    file = ACC_CONFIGS / f"{name}.yaml"
    count = yaml.safe_load(file.read_text())["num_processes"]
    elastic = ELASTIC | {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    command = ["accelerate", "launch", "--config_file", str(file), "train.py"]
    launch = read_launch(SIMPLE if count == 1 else elastic, command)
    assert launch.processes == count
    assert "shows none: use acc_configs/cpu.yaml" in _refusal(launch, devices=0)


def test_more_processes_than_gpus_are_refused() -> None:
    command = ["accelerate", "launch", "--config_file", str(ACC_CONFIGS / "2.yaml"), "train.py"]
    assert "use acc_configs/1.yaml" in _refusal(read_launch(ELASTIC, command), devices=1)
    check_launch(read_launch(ELASTIC, command), devices=2)


def test_torchrun_on_a_machine_without_gpu_is_refused() -> None:
    environment = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    assert "shows none" in _refusal(read_launch(environment, ["torchrun", "train.py"]), devices=0)


def test_a_launch_without_file_on_a_machine_without_gpu_is_nobody_s_mistake() -> None:
    launch = read_launch(SIMPLE, ["accelerate", "launch", "--config_file", "/does/not/exist", "train.py"])
    assert launch.cpu is None
    check_launch(launch, devices=0)


@pytest.mark.parametrize("path", sorted(ACC_CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_files_are_ones_that_accelerate_reads(path: Path) -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(str(path))
    count = {"cpu": 1, "multinode": 16, "fsdp2": 8}.get(path.stem) or int(path.stem)
    assert config.num_processes == count
    assert config.use_cpu == (path.stem == "cpu")
    kind = "FSDP" if path.stem == "fsdp2" else "MULTI_GPU" if count > 1 else "NO"
    assert str(config.distributed_type).endswith(kind)
    assert config.mixed_precision == ("bf16" if kind == "FSDP" else "no")


@pytest.mark.parametrize(
    ("version", "kind", "device", "words"),
    [
        ("1", "FSDP", "cuda", "fsdp_version: 2"),
        ("2", "MULTI_GPU", "cuda", "distributed_type is MULTI_GPU"),
        ("2", "NO", "cpu", "distributed_type is NO"),
    ],
)
def test_sharding_that_becomes_something_else_is_refused(
    version: str, kind: str, device: str, words: str
) -> None:
    with pytest.raises(UserError, match=words):
        check_sharding({"FSDP_VERSION": version}, kind, device)


def test_sharding_is_accepted_where_it_is_what_was_asked_for() -> None:
    check_sharding({"FSDP_VERSION": "2"}, "FSDP", "cuda")
    check_sharding({"FSDP_VERSION": "2"}, "MULTI_CPU", "cpu")


def test_a_tracker_that_is_not_installed_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"training\.tracker is wandb, which is not installed"):
        make_accelerator(TrainingConfig(tracker="wandb"), tmp_path)


def test_reproducible_is_for_the_cpu_and_for_the_block_alone() -> None:
    assert not torch.are_deterministic_algorithms_enabled()
    with reproducible(torch.device("cpu")):
        assert torch.are_deterministic_algorithms_enabled()
    with reproducible(torch.device("cuda")):
        assert not torch.are_deterministic_algorithms_enabled()
    assert not torch.are_deterministic_algorithms_enabled()
