"""A real SLURM, of one node: trainings of two processes, jobs that are stopped and requeued, arrays."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine import checkpoint
from engine.tensor_files import read_safetensors

HERE = Path(__file__).resolve().parent
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
EXPERIMENT = "configs/baselines/vertex_colors"
SMALL = ("data.max_size=32", "model.rays=2000", "training.log_every=1", "training.tracker=none")


@pytest.fixture(scope="module", autouse=True)
def _cluster() -> None:
    """A cluster that answers; skips, saying why, where there is none and none can be installed."""
    if shutil.which("sinfo") and _call("sinfo", check=False).returncode == 0:
        return
    if os.getuid() != 0 or shutil.which("apt-get") is None:
        pytest.skip("no SLURM answers here, and installing it takes root and apt-get")
    made = _call(str(HERE / "install_slurm.sh"), check=False, timeout=300)
    if made.returncode:
        pytest.skip(f"SLURM cannot be installed here: {made.stderr.strip().splitlines()[-1:]}")


_JOBS: list[str] = []  # submitted by the test that runs


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    """Cancel the jobs of a test that failed."""
    _JOBS.clear()
    yield
    if _JOBS:
        _call("scancel", *_JOBS, check=False)  # it complains of those that are done


def _call(*words: str, check: bool = True, timeout: float = 60, **options: object):
    return subprocess.run(words, check=check, capture_output=True, text=True, timeout=timeout, **options)


def _environment(repo_root: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SBATCH_"))}
    return kept | {
        "PYTHON": sys.executable,
        "PYTHONPATH": str(repo_root),
        "ACC_CONFIG": str(HERE / "cpu.yaml"),
        "OMP_NUM_THREADS": "1",
    }


def _submit(repo_root: Path, log: Path, *words: str) -> str:
    """Start the template as two launchers on this node; returns the job's number."""
    made = _call(
        *("sbatch", "--parsable", "--nodes=1", "--ntasks-per-node=2", f"--output={log}"),
        *("acc_configs/multinode.sbatch", *words),
        cwd=repo_root,
        env=_environment(repo_root),
    )
    _JOBS.append(made.stdout.strip())
    return _JOBS[-1]


def _said(log: Path) -> str:
    """A log so far; its last character may be cut."""
    return log.read_text(errors="replace")


def _state(job: str) -> str:
    shown = _call("scontrol", "show", "job", job, check=False).stdout
    found = re.search(r"JobState=(\w+)", shown)
    assert found is not None, f"job {job} is unknown: {shown}"
    return found[1]


def _wait(condition: Callable[[], bool], what: str, log: Path, seconds: float = 240) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        said = _said(log)[-3000:] if log.exists() else "(nothing)"
        assert time.monotonic() < ends, f"{what} does not happen; the log says\n{said}"
        time.sleep(0.3)


def _finish(job: str, log: Path) -> None:
    _wait(lambda: _state(job) not in ("PENDING", "RUNNING", "COMPLETING"), f"the end of job {job}", log)
    assert _state(job) == "COMPLETED", _said(log)[-3000:]


def test_two_launchers_train_as_one_process_with_twice_the_batch(repo_root: Path, tmp_path: Path) -> None:
    log = tmp_path / "job.log"
    words = ("-e", EXPERIMENT, "-r", "auto", *SMALL, "training.steps=8")
    job = _submit(repo_root, log, "train.py", "--output_dir", str(tmp_path / "two"), *words)
    _finish(job, log)
    assert "2 launchers with 1 processes" in _said(log)
    assert checkpoint.read_state(tmp_path / "two" / "iter_8").world_size == 2
    _call(
        *(sys.executable, "train.py", "--output_dir", str(tmp_path / "one"), "-b", "2", *words),
        cwd=repo_root,
        env=_environment(repo_root),
        timeout=300,
    )
    one, two = (read_safetensors(tmp_path / run / "iter_8" / "model.safetensors") for run in ("one", "two"))
    assert (one["colors"] - two["colors"]).abs().max() < 1e-5
    states = [checkpoint.read_state(tmp_path / run / "iter_8").samples_drawn for run in ("one", "two")]
    assert states == [16, 16]


def test_a_stopped_training_saves_is_requeued_and_finishes(repo_root: Path, tmp_path: Path) -> None:
    log, run = tmp_path / "job.log", tmp_path / "run"
    words = ("-e", EXPERIMENT, "--output_dir", str(run), "-r", "auto", *SMALL)
    steps = 60
    job = _submit(repo_root, log, "train.py", *words, f"training.steps={steps}", "training.save_every=100000")
    _wait(lambda: log.exists() and "step/s" in _said(log), "a first step", log)
    time.sleep(1)
    _call("scancel", "--batch", "--signal=TERM", job)
    _wait(lambda: "saved; queued again" in _said(log), "the requeue", log)
    saved = checkpoint.find(run, "latest")
    assert saved is not None
    assert 0 < saved.step < steps
    # SLURM lets two minutes pass, until the node has forgotten the first start
    _wait(lambda: "restart 1:" in _said(log), "the second start", log, seconds=400)
    _finish(job, log)
    assert f"continuing from {saved.path}" in _said(log)
    assert checkpoint.read_state(run / f"iter_{steps}").samples_drawn == 2 * steps


def test_a_cancelled_training_is_not_requeued(repo_root: Path, tmp_path: Path) -> None:
    log, run = tmp_path / "job.log", tmp_path / "run"
    words = ("-e", EXPERIMENT, "--output_dir", str(run), "-r", "auto", *SMALL, "training.steps=100000")
    job = _submit(repo_root, log, "train.py", *words)
    _wait(lambda: log.exists() and "step/s" in _said(log), "a first step", log)
    _call("scancel", job)
    _wait(lambda: _state(job) not in ("RUNNING", "COMPLETING"), "the end", log)
    time.sleep(2)
    assert _state(job) == "CANCELLED"
    assert "queued again" not in _said(log)


def test_a_training_that_fails_is_not_requeued(repo_root: Path, tmp_path: Path) -> None:
    log = tmp_path / "job.log"
    job = _submit(repo_root, log, "train.py", "-e", EXPERIMENT, "-r", "auto", "training.no_such_key=1")
    _wait(lambda: _state(job) not in ("PENDING", "RUNNING", "COMPLETING"), "the end", log)
    assert _state(job) == "FAILED"
    assert "unknown config key 'training.no_such_key'" in _said(log)
    assert "queued again" not in _said(log)


def test_submit_hands_a_training_to_slurm(repo_root: Path, tmp_path: Path) -> None:
    made = _call(
        *(sys.executable, "scripts/submit.py", "--nodes", "1", "--time", "9", "--logs", str(tmp_path)),
        *("--acc_config", str(HERE.parents[1] / "acc_configs" / "cpu.yaml")),
        *("--", "train.py", "-e", EXPERIMENT, "--output_dir", str(tmp_path / "run"), *SMALL),
        *("-r", "auto", "training.steps=3"),
        cwd=repo_root,
        env=_environment(repo_root),
    )
    job, log = re.findall(r"job (\d+): log in (.*)", made.stdout)[0]
    _JOBS.append(job)
    _finish(job, Path(log))
    assert (tmp_path / "run" / "iter_3" / "manifest.json").exists()


def test_submit_runs_an_array_of_shards(repo_root: Path, tmp_path: Path) -> None:
    code = (
        "import json, os, pathlib, sys; shard = sys.argv[-1];"
        "pathlib.Path('made-' + shard.replace('/', '-')).write_text("
        "json.dumps([os.environ['SLURM_ARRAY_JOB_ID'], os.environ['SLURM_ARRAY_TASK_ID']]))"
    )
    made = _call(
        *(sys.executable, str(repo_root / "scripts" / "submit.py"), "--shards", "3", "--wait"),
        *("--time", "5", "--logs", str(tmp_path / "logs"), "--", sys.executable, "-c", code),
        cwd=tmp_path,
        env=_environment(repo_root),
        timeout=300,
    )
    assert "all 3 jobs are done" in made.stdout
    written = {path.name: json.loads(path.read_text()) for path in tmp_path.glob("made-*")}
    assert sorted(written) == ["made-0-3", "made-1-3", "made-2-3"]
    assert len({array for array, _ in written.values()}) == 1
    assert sorted(task for _, task in written.values()) == ["0", "1", "2"]
