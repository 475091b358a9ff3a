"""The training loop.

accelerate gives devices, precision, data-parallel training and trackers. Order of data, checkpoints, learning
rate, non-finite steps and signals are decided here, so that a run can be killed at any time and continued as
if nothing had happened.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from pathlib import Path

from accelerate import Accelerator

from engine.checkpoint import Checkpoint
from engine.config import Experiment
from engine.launch import make_accelerator, reproducible
from engine.method import Method, Samples
from engine.run import Run, Validate
from engine.signals import StopSignals

logger = logging.getLogger(__name__)

# Exit code of a run that a signal ended, its checkpoint saved: EX_TEMPFAIL of sysexits.h, "try again".
EXIT_REQUEUE = 75


@dataclass
class Result:
    """How a run ended. stopped_by: the signal that ended it early. history: what was logged, with 'step'."""

    step: int
    stopped_by: str | None = None
    history: list[dict[str, float]] = field(default_factory=list)


def train(
    method: Method,
    samples: Samples,
    experiment: Experiment,
    folder: Path,
    start: Checkpoint | None = None,
    validate: Validate | None = None,
    accelerator: Accelerator | None = None,
) -> Result:
    """Train a method to `training.steps` and leave a checkpoint of the last step in `folder`.

    start: checkpoint to continue from (`engine.checkpoint.find_start`); None starts afresh. validate: called
    every `training.validate_every` steps on the first process, with the averaged weights where there are
    any; its scores are logged as val/NAME. A SIGTERM or SIGUSR1 ends the run once the step in hand is taken
    and saved.

    Raises UserError when the run cannot start, continue or be saved.
    """
    config = experiment.training
    accelerator = accelerator or make_accelerator(config, folder)
    run = Run(method, samples, experiment, folder, accelerator)
    run.start(start)
    history: list[dict[str, float]] = []
    rate = Rate(run.state.samples_drawn)
    with (
        reproducible(accelerator.device),
        StopSignals() as stop,
        run.batches() as batches,
        run.progress_bar() as bar,
    ):
        while run.state.step < config.steps and run.stopped_by is None:
            scalars = run.step(batches, stop)
            step = run.state.step  # counts the steps done
            last = step == config.steps or run.stopped_by is not None
            bar.update()
            if step % config.log_every == 0 or last:
                scalars["perf/samples_per_s"] = rate.measure(run.state.samples_drawn)
                history.append({"step": step, **scalars})
                bar.set_postfix(loss=f"{scalars['train/loss']:.4g}")
                run.log(scalars)
            if step % config.save_every == 0 or last:
                run.save()
            if config.preview_every and step % config.preview_every == 0 and run.stopped_by is None:
                run.preview()
            due = config.validate_every and step % config.validate_every == 0
            if validate is not None and due and run.stopped_by is None:
                run.log(run.validate(validate))
    accelerator.end_training()
    stopped_by = run.stopped_by if run.state.step < config.steps else None
    if stopped_by is not None:
        logger.info("%s: step %d is saved, continue with -r latest", stopped_by, run.state.step)
    else:
        logger.info("trained to step %d: %s", run.state.step, folder / f"iter_{run.state.step}")
    return Result(run.state.step, stopped_by, history)


class Rate:
    """Samples per second of wall-clock time since the last look."""

    def __init__(self, samples: int) -> None:
        self._samples, self._time = samples, time.perf_counter()

    def measure(self, samples: int) -> float:
        now = time.perf_counter()
        rate = (samples - self._samples) / max(now - self._time, 1e-9)
        self._samples, self._time = samples, now
        return rate
