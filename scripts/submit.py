"""Run a command as an array of jobs, on SLURM or on this machine, or train on several machines."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from common.cli import command_parser, positive, setup_logging
from common.errors import UserError, command

EXAMPLES = """
python scripts/submit.py --shards 16 --partition cpu --cpus 8 --time 720 -- python scripts/megascenes.py \
prepare-warps pairs.safetensors photos/ depths/ warps/ --workers 8
python scripts/submit.py --gpus 4 --cpus 32 --mem 200 --time 2880 -- accelerate launch --config_file \
acc_configs/4.yaml train.py -e configs/warp_plus_pose -r auto
python scripts/submit.py --nodes 2 --gpus 8 --cpus 64 -- train.py -e configs/warp_plus_pose -r auto
python scripts/submit.py --cluster local --shards 2 --cpus 4 -- python scripts/megascenes.py prepare-warps \
pairs.safetensors photos/ depths/ warps/ --shard {shard}/{shards} --workers 4
"""
MEANING = """
Everything after -- is the command, which runs in the current folder. In it {shard} stands for the number of
the job, from 0, and {shards} for how many there are; where neither occurs and there are several jobs,
'--shard I/N' is added. A job that is preempted or runs out of time gets SIGTERM and is queued again, so
commands must continue where they were.

With --nodes the command is a script and its words (train.py ...), which acc_configs/multinode.sbatch starts
on each of the machines, in one process per GPU; --gpus, --cpus and --mem then count per machine. A training
that is told to stop saves and is queued again, so give it -r auto.
"""
ROOT = Path(__file__).resolve().parent.parent  # of the repository
TEMPLATE = ROOT / "acc_configs" / "multinode.sbatch"
_GRACE = 80  # seconds that a preempted command has to finish its step and save: SLURM gives 90


class ShardCommand:
    """A command line that a job runs; asked to stop, it is passed on, and the job starts again later."""

    def __init__(self, words: list[str], folder: str) -> None:
        self.words, self.folder = words, folder
        self.process: subprocess.Popen[bytes] | None = None

    def __call__(self) -> None:
        """Run it. Raises RuntimeError when it fails, which marks the job as failed."""
        print("$", shlex.join(self.words), flush=True)
        path = [str(ROOT), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
        try:
            self.process = subprocess.Popen(self.words, cwd=self.folder, env=environment)
        except OSError as error:
            raise RuntimeError(f"{self.words[0]} cannot be run ({error.strerror})") from None
        code = None
        while code is None:  # in short waits: a signal that comes during a long one could not wait itself
            with suppress(subprocess.TimeoutExpired):
                code = self.process.wait(1)
        if code:
            raise RuntimeError(f"{shlex.join(self.words)} ended with exit code {code}")

    def checkpoint(self) -> Any:
        """What submitit calls before a preempted or timed-out job is requeued: SIGTERM, and again later."""
        from submitit.helpers import DelayedSubmission

        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(_GRACE)
            except subprocess.TimeoutExpired:
                self.process.kill()
        return DelayedSubmission(ShardCommand(self.words, self.folder))


def shard_words(words: list[str], shard: int, shards: int) -> list[str]:
    """The command of one shard: {shard} and {shards} replaced; without them '--shard I/N' at its end, if
    there are several shards.
    """
    if not any("{shard}" in word or "{shards}" in word for word in words):
        return [*words, "--shard", f"{shard}/{shards}"] if shards > 1 else list(words)
    return [word.replace("{shard}", str(shard)).replace("{shards}", str(shards)) for word in words]


def parse() -> argparse.Namespace:
    parser = command_parser(
        f"{__doc__}\n\n{MEANING.strip()}",
        EXAMPLES,
    )
    parser.add_argument("--shards", type=positive(int), default=1, metavar="N", help="jobs (default: 1)")
    parser.add_argument("--nodes", type=positive(int), metavar="N", help="machines of one training")
    parser.add_argument(
        "--acc_config",
        type=Path,
        default=ROOT / "acc_configs" / "multinode.yaml",
        metavar="FILE",
        help="accelerate file of a training with --nodes (default: acc_configs/multinode.yaml)",
    )
    parser.add_argument(
        "--cluster", choices=("slurm", "local"), default="slurm", help="where (default: slurm)"
    )
    parser.add_argument("--name", default="parallax", help="name of the jobs (default: %(default)s)")
    parser.add_argument(
        "--logs", type=Path, default=ROOT / "outputs" / "submit", metavar="DIR", help="folder of the logs"
    )
    parser.add_argument("--partition", default="", help="SLURM partition (default: the cluster's)")
    parser.add_argument("--account", default="", help="SLURM account (default: yours)")
    parser.add_argument(
        "--time", type=positive(int), default=60, metavar="MIN", help="minutes per job (default: 60)"
    )
    parser.add_argument(
        "--cpus", type=positive(int), default=1, metavar="N", help="cores per job (default: 1)"
    )
    parser.add_argument("--gpus", type=int, default=0, metavar="N", help="GPUs per job (default: 0)")
    parser.add_argument(
        "--mem", type=positive(int), metavar="GB", help="memory per job (default: the cluster's)"
    )
    parser.add_argument("--at_once", type=positive(int), metavar="N", help="jobs that run at the same time")
    parser.add_argument(
        "--requeues", type=int, default=100, metavar="N", help="how often a timed-out job is queued again"
    )
    parser.add_argument("--wait", action="store_true", help="wait for the jobs (always with --cluster local)")
    parser.add_argument("words", nargs=argparse.REMAINDER, metavar="-- COMMAND")
    args = parser.parse_args()
    args.words = args.words[1:] if args.words[:1] == ["--"] else args.words
    if not args.words:
        raise UserError("no command: write it after --, e.g. -- python train.py -e configs/NAME")
    if args.nodes and (args.shards > 1 or args.cluster == "local" or args.wait or args.at_once):
        raise UserError(
            "--nodes is for one training on SLURM: leave out --shards, --at_once, --wait and local"
        )
    if args.nodes and not args.acc_config.is_file():
        raise UserError(f"--acc_config {args.acc_config} does not exist: give an accelerate file")
    return args


def training_command(args: argparse.Namespace) -> list[str]:
    """The sbatch command of a training on `--nodes` machines."""
    options = {
        "job-name": re.sub(r"\W", "_", args.name),
        "nodes": args.nodes,
        "gpus-per-node": args.gpus or None,
        "cpus-per-task": args.cpus,
        "mem": f"{args.mem}GB" if args.mem else None,
        "time": args.time,
        "partition": args.partition or None,
        "account": args.account or None,
        "output": args.logs.resolve() / "%j.log",
        "chdir": os.getcwd(),
    }
    given = [f"--{name}={value}" for name, value in options.items() if value is not None]
    return ["sbatch", "--parsable", *given, str(TEMPLATE), *args.words]


def submit_training(args: argparse.Namespace) -> str:
    """Hand a training to SLURM; returns the job's number. Raises UserError when it is not taken."""
    args.logs.mkdir(parents=True, exist_ok=True)
    environment = {
        **os.environ,
        "PYTHON": sys.executable,
        "ACC_CONFIG": str(args.acc_config.resolve()),
        "MAX_RESTARTS": str(args.requeues),
    }
    try:
        done = subprocess.run(
            training_command(args), env=environment, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        raise UserError("no jobs can be submitted here (there is no sbatch): use accelerate launch") from None
    if done.returncode:
        raise UserError(f"SLURM does not take the job: {' '.join(done.stderr.split())}")
    return done.stdout.strip().partition(";")[0]


def executor(args: argparse.Namespace) -> Any:
    """A submitit executor. Raises UserError when there is no SLURM here."""
    import submitit

    options = {"slurm_max_num_timeout": args.requeues} if args.cluster == "slurm" else {}
    try:
        made = submitit.AutoExecutor(folder=args.logs.resolve() / "%j", cluster=args.cluster, **options)
    except RuntimeError as error:
        raise UserError(f"no jobs can be submitted here ({error}): use --cluster local") from None
    parameters: dict[str, Any] = {
        "name": re.sub(r"\W", "_", args.name),
        "timeout_min": args.time,
        "cpus_per_task": args.cpus,
        "gpus_per_node": args.gpus or None,
        "mem_gb": args.mem,
        "slurm_partition": args.partition or None,
        "slurm_account": args.account or None,
        "slurm_array_parallelism": args.at_once or args.shards,
        "slurm_additional_parameters": {"requeue": True},
    }
    made.update_parameters(**{key: value for key, value in parameters.items() if value is not None})
    return made


def wait(jobs: list[Any]) -> None:
    """Wait for jobs. Raises UserError naming those that failed."""
    failed = []
    for shard, job in enumerate(jobs):
        if job.exception() is not None:
            failed.append(f"{shard} ({job.paths.stderr})")
    if failed:
        raise UserError(f"{len(failed)} of {len(jobs)} jobs failed, their logs say why: {', '.join(failed)}")
    print(f"all {len(jobs)} jobs are done")


@command
def main() -> None:
    args = parse()
    setup_logging()
    if args.nodes:
        number = submit_training(args)
        print(f"job {number}: log in {args.logs.resolve() / f'{number}.log'}")
        return
    made = executor(args)
    with made.batch():
        jobs = [
            made.submit(ShardCommand(shard_words(args.words, shard, args.shards), os.getcwd()))
            for shard in range(args.shards)
        ]
    for job in jobs:
        print(f"job {job.job_id}: log in {job.paths.stdout}")
    if args.wait or args.cluster == "local":
        wait(jobs)


if __name__ == "__main__":
    main()
