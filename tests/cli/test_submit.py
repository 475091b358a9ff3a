"""scripts/submit.py: jobs on this machine, and what they run."""

from __future__ import annotations

import importlib.util
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def script(repo_root: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("submit_script", repo_root / "scripts" / "submit.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def submit(
    repo_root: Path, folder: Path, *words: str, path: str = "/usr/bin:/bin"
) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        str(repo_root / "scripts" / "submit.py"),
        "--logs",
        str(folder / "logs"),
        *words,
    ]
    environment = {"PATH": path, "PYTHONPATH": str(repo_root), "HOME": str(folder)}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def test_every_shard_runs_once(repo_root: Path, tmp_path: Path) -> None:
    code = "import sys, pathlib; pathlib.Path('made-' + sys.argv[-1].replace('/', '-')).touch(exist_ok=False)"
    words = ("--cluster", "local", "--shards", "3", "--", sys.executable, "-c", code)
    result = submit(repo_root, tmp_path, *words)
    assert result.returncode == 0, result.stderr
    assert "all 3 jobs are done" in result.stdout
    assert sorted(p.name for p in tmp_path.glob("made-*")) == ["made-0-3", "made-1-3", "made-2-3"]
    assert result.stdout.count("log in") == 3


def test_jobs_find_the_repository(repo_root: Path, tmp_path: Path) -> None:
    code = "import common.errors, sys; open('found', 'w').write(common.errors.__file__)"
    result = submit(repo_root, tmp_path, "--cluster", "local", "--", sys.executable, "-c", code)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "found").read_text() == str(repo_root / "common" / "errors.py")


def test_failed_jobs_are_named(repo_root: Path, tmp_path: Path) -> None:
    code = "import sys; sys.exit(3 if '1/2' in sys.argv else 0)"
    result = submit(
        repo_root, tmp_path, "--cluster", "local", "--shards", "2", "--", sys.executable, "-c", code
    )
    assert result.returncode == 2
    assert "error: 1 of 2 jobs failed" in result.stderr
    assert "Traceback" not in result.stderr


def test_without_slurm_one_line_says_so(repo_root: Path, tmp_path: Path) -> None:
    result = submit(repo_root, tmp_path, "--", "true", path=str(tmp_path))
    assert result.returncode == 2
    assert "use --cluster local" in result.stderr
    result = submit(repo_root, tmp_path, "--nodes", "2", "--", "train.py", path=str(tmp_path))
    assert result.returncode == 2
    assert "there is no sbatch" in result.stderr
    result = submit(repo_root, tmp_path, "--cluster", "local")
    assert result.returncode == 2
    assert "error: no command" in result.stderr


@pytest.mark.parametrize("shards", [1, 3])
def test_slurm_is_asked_for_what_was_asked(repo_root: Path, tmp_path: Path, shards: int) -> None:
    """With an sbatch that keeps the batch file instead of submitting it."""
    tools = tmp_path / "tools"
    tools.mkdir()
    keep = f'#!/bin/sh\ncp "$1" {tmp_path}/batch.sh\necho Submitted batch job 4242\n'
    for name, text in (("sbatch", keep), ("srun", "#!/bin/sh\n")):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    words = ["--shards", str(shards), "--partition", "night", "--time", "90", "--cpus", "8", "--gpus", "2"]
    words += ["--mem", "32", "--at_once", "2", "--account", "me", "--name", "my warps", "--", "true"]
    result = submit(repo_root, tmp_path, *words, path=f"{tools}:/usr/bin:/bin")
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("job 4242") == shards
    batch = (tmp_path / "batch.sh").read_text().splitlines()
    wanted = {"partition=night", "time=90", "cpus-per-task=8", "gpus-per-node=2", "mem=32GB", "account=me"}
    wanted |= {"requeue", "job-name=my_warps", "open-mode=append"}
    assert {f"#SBATCH --{option}" for option in wanted} <= set(batch)
    assert ("#SBATCH --array=0-2%2" in batch) == (shards == 3)


def test_a_training_on_several_machines_is_handed_over(repo_root: Path, tmp_path: Path) -> None:
    """With an sbatch that notes what it is given."""
    tools = tmp_path / "tools"
    tools.mkdir()
    note = f'#!/bin/sh\nprintf "%s\\n" "$@" >{tmp_path}/words\nenv >{tmp_path}/env\necho "4242;cluster"\n'
    (tools / "sbatch").write_text(note)
    (tools / "sbatch").chmod(0o755)
    words = ["--nodes", "2", "--gpus", "8", "--cpus", "64", "--mem", "200", "--time", "90", "--account", "me"]
    words += ["--requeues", "7", "--", "train.py", "-e", "configs/x", "-r", "auto"]
    result = submit(repo_root, tmp_path, *words, path=f"{tools}:/usr/bin:/bin")
    assert result.returncode == 0, result.stderr
    assert f"job 4242: log in {tmp_path / 'logs' / '4242.log'}" in result.stdout
    given = (tmp_path / "words").read_text().splitlines()
    assert {"--nodes=2", "--gpus-per-node=8", "--cpus-per-task=64", "--mem=200GB", "--time=90"} <= set(given)
    assert given[-6:] == [str(repo_root / "acc_configs" / "multinode.sbatch"), *words[-5:]]
    environment = dict(
        line.split("=", 1) for line in (tmp_path / "env").read_text().splitlines() if "=" in line
    )
    assert environment["PYTHON"] == sys.executable
    assert environment["MAX_RESTARTS"] == "7"
    assert environment["ACC_CONFIG"] == str(repo_root / "acc_configs" / "multinode.yaml")


def test_what_does_not_go_with_several_machines(repo_root: Path, tmp_path: Path) -> None:
    for words, message in (
        (("--shards", "2"), "leave out --shards"),
        (("--acc_config", "nowhere.yaml"), "nowhere.yaml does not exist"),
    ):
        result = submit(repo_root, tmp_path, "--nodes", "2", *words, "--", "train.py")
        assert result.returncode == 2
        assert message in result.stderr


def test_the_template_is_a_script_that_bash_reads(repo_root: Path) -> None:
    subprocess.run(["bash", "-n", str(repo_root / "acc_configs" / "multinode.sbatch")], check=True)


def test_shards_are_named_in_the_command(script: ModuleType) -> None:
    assert script.shard_words(["a", "-s", "x{shard}", "{shard}/{shards}"], 2, 5) == ["a", "-s", "x2", "2/5"]
    assert script.shard_words(["a", "b"], 2, 5) == ["a", "b", "--shard", "2/5"]
    assert script.shard_words(["a", "b"], 0, 1) == ["a", "b"]


CHILD = """
import pathlib, signal, sys, time
def stop(*_):
    pathlib.Path('saved').touch()
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
pathlib.Path('started').touch()
time.sleep(60)
"""


class _RequeuedError(Exception):
    pass


def test_a_preempted_command_is_told_and_queued_again(script: ModuleType, tmp_path: Path) -> None:
    job = script.ShardCommand([sys.executable, "-c", CHILD], str(tmp_path))
    again = []

    def preempt(*_: object) -> None:
        if not (tmp_path / "started").exists():
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            return
        again.append(job.checkpoint())
        raise _RequeuedError

    previous = signal.signal(signal.SIGALRM, preempt)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    begun = time.monotonic()
    try:
        with pytest.raises(_RequeuedError):
            job()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert time.monotonic() - begun < 20  # it did not wait for the whole grace period
    assert (tmp_path / "saved").exists()
    assert again[0].function.words == job.words
    assert again[0].function.process is None


def test_a_command_that_is_not_there_fails(script: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="nowhere cannot be run"):
        script.ShardCommand(["nowhere"], str(tmp_path))()
    with pytest.raises(RuntimeError, match="ended with exit code 1"):
        script.ShardCommand(["false"], str(tmp_path))()
