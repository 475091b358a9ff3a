"""Starting a run: the Accelerator, and checks that what was launched is what was asked for.

accelerate (1.15) turns some requests into something smaller without a word: `MULTI_CPU` with two processes
starts one, a GPU file on a machine without GPU trains on the CPU, and `use_cpu: true` is not passed on to
processes that torchrun starts. So the request is read from where it was made, the launcher's command line and
file, and compared with what came of it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from common.errors import UserError
from engine import sharding

if TYPE_CHECKING:
    from accelerate import Accelerator

    from engine.config import TrainingConfig

_WORLD_SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
_TIMEOUT = timedelta(hours=1)  # how long processes wait for one that validates or saves


@dataclass(frozen=True)
class Launch:
    """How this process was started.

    processes: as many as were asked for, on all machines; None if unknown (more than one). started: as many
    as the launcher started. local: as many of them as share this machine. cpu: whether the CPU was asked for;
    None if nobody said.
    """

    processes: int | None = 1
    started: int = 1
    local: int = 1
    cpu: bool | None = None
    by_accelerate: bool = False


def read_launch(environment: Mapping[str, str], command: Sequence[str]) -> Launch:
    """What was asked for. command: the launcher's command line (empty if there is no launcher to be seen)."""
    by_accelerate = "ACCELERATE_MIXED_PRECISION" in environment
    started = next((int(environment[name]) for name in _WORLD_SIZES if name in environment), 1)
    file = _launch_file(command) if by_accelerate else {}
    asked = _option(command, "--num_processes") or file.get("num_processes")
    processes: int | None = int(asked) if asked else started
    if by_accelerate and not asked and started == 1 and "MASTER_ADDR" in environment:
        processes = None  # accelerate's simple launcher sets it for several processes, and starts one
    cpu: bool | None = None
    if environment.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes") or "--cpu" in command:
        cpu = True
    elif "use_cpu" in file or "distributed_type" in file:
        cpu = bool(file.get("use_cpu"))
    local = int(environment.get("LOCAL_WORLD_SIZE", 1))
    return Launch(processes, started, local, cpu, by_accelerate)


def launcher_command() -> list[str]:
    """The command line of the process that started this one."""
    import psutil

    try:
        return psutil.Process(os.getppid()).cmdline()
    except psutil.Error:
        return []


def _launch_file(command: Sequence[str]) -> dict[str, Any]:
    """The accelerate file that the launcher read: --config_file, else the user's default file."""
    import yaml
    from accelerate.commands.config.config_args import default_config_file

    path = Path(_option(command, "--config_file") or default_config_file)
    try:
        return yaml.safe_load(path.read_text()) or {}
    except (OSError, yaml.YAMLError):
        return {}  # the launcher started from another folder, or without a file


def _option(command: Sequence[str], name: str) -> str | None:
    for i, word in enumerate(command):
        if word == name and i + 1 < len(command):
            return command[i + 1]
        if word.startswith(name + "="):
            return word.partition("=")[2]
    return None


def check_launch(launch: Launch, devices: int) -> None:
    """Raise UserError if a launch cannot become what was asked for. devices: GPUs that this process sees."""
    if launch.processes != launch.started:
        asked = "several" if launch.processes is None else launch.processes
        raise UserError(
            f"the launch asks for {asked} processes, but {launch.started} started: "
            "use distributed_type MULTI_GPU (with use_cpu: true for processes on the CPU)"
        )
    if launch.cpu:
        return
    if devices == 0 and (launch.cpu is False or launch.started > 1):
        raise UserError(
            "the launch asks for a GPU, but this machine shows none: use acc_configs/cpu.yaml "
            "(or an accelerate file with use_cpu: true)"
        )
    if launch.local > devices and launch.started > 1:
        raise UserError(
            f"the launch asks for {launch.local} GPU processes on a machine that shows {devices} GPU(s): "
            f"use acc_configs/{devices}.yaml"
        )


def make_accelerator(config: TrainingConfig, folder: Path) -> Accelerator:
    """The Accelerator of this process. folder: where logs go.

    Raises UserError when the launch is not what was asked for.
    """
    from accelerate import Accelerator, InitProcessGroupKwargs

    launch = read_launch(os.environ, launcher_command())
    devices = torch.accelerator.device_count() if torch.accelerator.is_available() else 0
    check_launch(launch, devices)
    _check_tracker(config.tracker)
    _set_threads(launch)
    try:
        accelerator = Accelerator(
            cpu=bool(launch.cpu),
            mixed_precision=None if config.precision == "launch" else config.precision,
            log_with=None if config.tracker == "none" else config.tracker,
            project_dir=folder,
            kwargs_handlers=[InitProcessGroupKwargs(timeout=_TIMEOUT)],
        )
    except ValueError as error:  # accelerate's word for settings that do not fit
        raise UserError(" ".join(str(error).split())) from None
    _check_result(launch, accelerator)
    return accelerator


def _check_result(launch: Launch, accelerator: Accelerator) -> None:
    kind = str(accelerator.distributed_type).rpartition(".")[2]
    if kind not in ("NO", "MULTI_CPU", "MULTI_GPU", "FSDP"):
        raise UserError(f"distributed_type {kind} is not supported: use MULTI_GPU, FSDP or NO")
    if accelerator.num_processes != launch.started:
        raise UserError(
            f"{launch.started} processes were started, but they form groups of {accelerator.num_processes}: "
            "is a GPU missing? (for processes on the CPU say use_cpu: true)"
        )
    if sharding.wanted():
        check_sharding(os.environ, kind, accelerator.device.type)


def check_sharding(environment: Mapping[str, str], kind: str, device: str) -> None:
    """Raise UserError if a launch with distributed_type FSDP has become something else.

    kind: accelerate's distributed type. On the CPU it has no such type: there the processes are enough.
    """
    if environment.get("FSDP_VERSION") != "2":
        raise UserError(
            "the launch asks for another version of FSDP: set fsdp_version: 2 (acc_configs/fsdp2.yaml)"
        )
    if kind != ("FSDP" if device == "cuda" else "MULTI_CPU"):
        raise UserError(
            f"the launch asks for FSDP, but distributed_type is {kind}: start it with accelerate launch and "
            "acc_configs/fsdp2.yaml on a machine with GPUs"
        )


def _check_tracker(tracker: str) -> None:
    from importlib.util import find_spec

    if tracker == "wandb" and find_spec("wandb") is None:
        raise UserError(
            "training.tracker is wandb, which is not installed: pip install wandb, or tensorboard"
        )


def _set_threads(launch: Launch) -> None:
    """Share the cores out: launchers set OMP_NUM_THREADS to 1, which leaves a CPU run on one core."""
    launched = launch.by_accelerate or launch.started > 1
    if launched and os.environ.get("OMP_NUM_THREADS", "1") == "1":
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        torch.set_num_threads(max(1, cores // launch.local))


@contextmanager
def reproducible(device: torch.device) -> Iterator[None]:
    """Deterministic algorithms for the time of a `with` block, on the CPU; on CUDA atomics forbid it."""
    if device.type != "cpu":
        yield
        return
    before = torch.are_deterministic_algorithms_enabled()
    settings: Any = torch.utils.deterministic  # it has no type hints
    fill = settings.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    settings.fill_uninitialized_memory = False  # costs time, and nothing reads that memory
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        settings.fill_uninitialized_memory = fill
