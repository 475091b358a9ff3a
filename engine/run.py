"""What a training run carries from step to step, and how it takes a step, saves and continues."""

from __future__ import annotations

import logging
import math
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from common.cli import progress
from common.errors import UserError
from engine import checkpoint, sharding
from engine.checkpoint import Checkpoint, Snapshot, State
from engine.config import Experiment, to_dict
from engine.ema import Ema
from engine.loader import Fetched, open_loader
from engine.memory import TRAINING, out_of_memory
from engine.method import Method, Samples
from engine.sampling import Batches, Stream, key
from engine.sheets import contact_sheet, write_sheet
from engine.signals import StopSignals

logger = logging.getLogger(__name__)

Validate = Callable[[Method, int], dict[str, float]]


@dataclass
class Micro:
    """One micro-batch after its backward pass."""

    losses: dict[str, Tensor]
    names: list[str]
    failures: list[str]


class Run:
    """What a run carries from step to step (its checkpoints hold it) and how it takes one."""

    def __init__(
        self,
        method: Method,
        samples: Samples,
        experiment: Experiment,
        folder: Path,
        accelerator: Accelerator,
    ) -> None:
        self.method = method
        self.samples, self.experiment, self.folder = samples, experiment, folder
        self.accelerator = accelerator
        self.config = experiment.training
        self.state = State(seed=self.config.seed, world_size=accelerator.num_processes)
        self.global_batch = self.config.batch_size * self.config.accumulation * accelerator.num_processes
        self.stopped_by: str | None = None

    # Start

    def start(self, found: Checkpoint | None) -> None:
        """Load weights and state, build the optimiser, wrap the model, open the log."""
        checkpoint.refuse_rewind(self.folder, 0 if found is None else found.step)
        if self.accelerator.is_main_process:
            checkpoint.remove_leftovers(self.folder)
        if found is not None:
            checkpoint.load_weights(self.method, found.path)
            logger.info("continuing from %s", found.path)
        elif self.config.init_from:
            checkpoint.load_weights(self.method, Path(self.config.init_from))
            logger.info("starting from the weights in %s", self.config.init_from)
        else:
            torch.manual_seed(key(self.config.seed, "weights"))
            self.method.initialise()
        self.method.to(self.accelerator.device).train()
        self._prepare()
        if found is not None and found.original:
            self.state.step, self.state.samples_drawn = found.step, found.step * self.global_batch
            logger.info("%s holds weights alone: the optimiser starts afresh", found.path)
        elif found is not None:
            self._restore(found.path)
        if self.config.tracker != "none":
            self._start_tracker(self.config.tracker)

    def _prepare(self) -> None:
        self.state.frozen = checkpoint.frozen_hashes(self.method)
        self.model = sharding.wrap(self.method, self.accelerator)
        optimization = self.method.optimization(self.config)
        self.schedule, self.momentum = optimization.schedule, optimization.momentum
        self.base_rates = [group["lr"] for group in optimization.optimizer.param_groups]
        self.ema = Ema(self.method, self.config.ema_decay) if self.config.ema_decay else None
        self.optimizer = self.accelerator.prepare_optimizer(optimization.optimizer)

    def _restore(self, saved: Path) -> None:
        """Continue from one of our checkpoints, whose weights are loaded already."""
        self.state = replace(checkpoint.read_state(saved), world_size=self.state.world_size)
        if self.state.seed != self.config.seed:
            logger.warning("training.seed differs from that of %s: from here on the data do too", saved)
            self.state.seed = self.config.seed
        values = checkpoint.read_optimizer(saved)
        # The moments are the run's; settings such as betas and weight decay are the experiment's.
        settings = self.optimizer.state_dict()["param_groups"]
        if values["groups"] != [group["params"] for group in settings]:
            raise UserError(f"{saved / 'optimizer.pt'} has other parameter groups than this experiment")
        state = sharding.split_state(values["state"], self._parameters())
        self.optimizer.load_state_dict({"state": state, "param_groups": settings})
        if self.accelerator.scaler is not None and values["scaler"] is not None:
            self.accelerator.scaler.load_state_dict(values["scaler"])
        average = checkpoint.read_ema(saved)
        if self.ema is not None and average is not None:
            self.ema.load(average)

    def _start_tracker(self, tracker: str) -> None:
        if tracker == "tensorboard":  # forget what a killed run logged after its last save
            self.accelerator.init_trackers("logs", init_kwargs={tracker: {"purge_step": self.state.step + 1}})
            return
        options = {"dir": str(self.folder / "logs"), "name": self.folder.resolve().name, "resume": "allow"}
        if self.accelerator.is_main_process:
            options["id"] = _run_id(self.folder)
        self.accelerator.init_trackers("parallax", init_kwargs={tracker: options})

    def batches(self) -> AbstractContextManager[Iterator[Fetched]]:
        """Micro-batches of this process, from the run's position to its end."""
        positions = Batches(
            first=self.state.samples_drawn,
            steps=max(0, self.config.steps - self.state.step),
            batch=self.config.batch_size,
            accumulation=self.config.accumulation,
            rank=self.accelerator.process_index,
            world=self.accelerator.num_processes,
            first_step=self.state.step,
        )
        return open_loader(self.samples, self.config.seed, positions, self.config.workers)

    def progress_bar(self) -> Any:
        """A bar over the steps, with rate and time left, on the first process."""
        return progress(
            (),
            "training",
            total=self.config.steps,
            initial=self.state.step,
            unit="step",
            disable=not self.accelerator.is_main_process,
        )

    # One step

    def step(self, batches: Iterator[Fetched], stop: StopSignals) -> dict[str, float]:
        """Take one optimiser step; returns what is logged, averaged over micro-batches and processes."""
        learning_rate = self._set_learning_rate()
        micros = [self._backward(batches, i) for i in range(self.config.accumulation)]
        scalars, bad, stopping = self._reduce(micros, stop)
        self.state.samples_drawn += self.global_batch
        self._count_bad(bad, micros)
        norm = self._gradient_norm()
        # With fp16 the loss scaler deals with infinite gradients: it drops the step and scales down.
        scaled = self.accelerator.scaler is not None
        finite = math.isfinite(scalars["train/loss"]) and (math.isfinite(norm) or scaled)
        wild = self.config.skip_norm > 0 and math.isfinite(norm) and norm > self.config.skip_norm
        if (finite or scaled) and not wild:
            self.optimizer.step()
        if wild:
            self._leave_out(norm)
        elif finite:
            self.state.skipped_in_row = 0
            if self.ema is not None:
                self.ema.update(self.method, self.state.step)
        else:
            self._skip(micros)
        self.optimizer.zero_grad()
        self.state.step += 1
        if stopping:
            self.stopped_by = stop.received or "another process was told to stop"
        return {
            **scalars,
            "train/lr": learning_rate,
            "train/grad_norm": norm,
            "train/skipped_steps": self.state.skipped_steps,
        }

    def _set_learning_rate(self) -> float:
        factor = self.schedule(self.state.step)
        for group, base in zip(self.optimizer.param_groups, self.base_rates, strict=True):
            group["lr"] = base * factor
            if self.momentum is not None:
                group["betas"] = (self.momentum(self.state.step), *group["betas"][1:])
        return self.optimizer.param_groups[0]["lr"]

    def _backward(self, batches: Iterator[Fetched], index: int) -> Micro:
        fetched = next(batches)
        if fetched.sample is None:
            raise UserError(
                f"too many unreadable training samples in a row; the last: {fetched.failures[-1]}"
            )
        # Draws from torch's own generator (dropout) must not depend on what ran before a checkpoint.
        torch.manual_seed(
            key(self.config.seed, "step", self.state.step, index, self.accelerator.process_index)
        )
        last = index == self.config.accumulation - 1
        synchronised = sharding.synchronising(self.model, self.accelerator, last)
        with synchronised, out_of_memory(TRAINING):
            losses = self.model(fetched.sample.to(self.accelerator.device), self.state.step)
            self.accelerator.backward(losses["loss"] / self.config.accumulation)
        losses = {name: value.detach().float() for name, value in losses.items()}
        return Micro(losses, fetched.names, fetched.failures)

    def _reduce(self, micros: list[Micro], stop: StopSignals) -> tuple[dict[str, float], int, bool]:
        """Over all processes: mean losses, unreadable samples, and whether any process was told to stop."""
        names = sorted(micros[0].losses)
        means = [torch.stack([micro.losses[name] for micro in micros]).mean() for name in names]
        counts = [sum(len(micro.failures) for micro in micros), int(stop.received is not None)]
        total = torch.cat([torch.stack(means), means[0].new_tensor(counts)])
        *values, bad, stopping = self.accelerator.reduce(total, "sum").tolist()
        world = self.accelerator.num_processes
        scalars = {f"train/{name}": value / world for name, value in zip(names, values, strict=True)}
        return scalars, round(bad), stopping > 0

    def _gradient_norm(self) -> float:
        """Global norm of the gradients, which are clipped to `training.clip_norm`."""
        parameters = self._parameters()
        if self.config.clip_norm and not sharding.is_sharded(self.method):
            return float(self.accelerator.clip_grad_norm_(parameters, self.config.clip_norm))
        self.accelerator.unscale_gradients()
        gradients = [p.grad for p in parameters if p.grad is not None]
        values = [grad.coalesce().values() if grad.is_sparse else grad for grad in gradients]
        norm = sharding.total_norm(values)
        if self.config.clip_norm:
            torch.nn.utils.clip_grads_with_norm_(parameters, self.config.clip_norm, norm)
        return float(norm)

    def _parameters(self) -> list[Tensor]:
        """What the optimiser moves, in the order of its groups."""
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def _count_bad(self, bad: int, micros: list[Micro]) -> None:
        """Name unreadable samples, and end the run when there are too many of them."""
        failures = [failure for micro in micros for failure in micro.failures]
        for failure in failures:
            logger.warning("unreadable training sample, replaced: %s", failure)
        self.state.bad_samples += bad
        planned = self.samples.size or self.config.steps * self.global_batch
        fraction = self.experiment.data.max_bad_fraction
        if bad and self.state.bad_samples > fraction * max(self.state.samples_drawn, planned):
            last = f"; the last: {failures[-1]}" if failures else ""
            raise UserError(
                f"{self.state.bad_samples} of {self.state.samples_drawn} training samples were unreadable, "
                f"more than data.max_bad_fraction ({fraction:g}) allows{last}"
            )

    def _skip(self, micros: list[Micro]) -> None:
        """Leave out a step whose loss or gradient is not finite, or end the run, as `on_nan` says."""
        self.state.skipped_steps += 1
        self.state.skipped_in_row += 1
        found = [(bool(micro.losses["loss"].isfinite()), micro.names) for micro in micros]
        found = gather_object(found)
        guilty = [names for finite, names in found if not finite] or [names for _, names in found]
        batch = _shorten([name for names in guilty for name in names])
        if self.state.skipped_in_row >= self.config.nan_limit:
            raise UserError(
                f"loss or gradient is not finite at step {self.state.step}, {self.state.skipped_in_row} in a "
                f"row (training.on_nan is {self.config.on_nan}); samples: {batch}"
            )
        logger.warning("step %d is skipped, it is not finite; samples: %s", self.state.step, batch)

    def _leave_out(self, norm: float) -> None:
        """Count a step that is not taken because its gradient is far longer than usual."""
        self.state.skipped_steps += 1
        logger.warning(
            "step %d is left out: its gradient norm %.4g exceeds training.skip_norm", self.state.step, norm
        )

    # Between steps

    def log(self, scalars: dict[str, float]) -> None:
        """Send scalars to the tracker."""
        try:
            self.accelerator.log(scalars, step=self.state.step)
        except OSError as error:
            raise UserError(f"cannot write the log below {self.folder} ({error.strerror})") from None

    def save(self) -> None:
        """Write a checkpoint, and rename it once every process has come this far.

        Raises UserError in every process when the first cannot write it.
        """
        error: UserError | None = None
        snapshot = self._snapshot()
        if self.accelerator.is_main_process:
            try:
                temporary = checkpoint.write(self.folder, snapshot)
            except UserError as caught:
                error = caught
        failed = torch.tensor(float(error is not None), device=self.accelerator.device)
        if self.accelerator.reduce(failed, "sum") > 0:  # waits for every process
            raise error or UserError("the first process could not write a checkpoint")
        if self.accelerator.is_main_process:
            checkpoint.publish(temporary, self.config.keep)
        self.accelerator.wait_for_everyone()

    def _snapshot(self) -> Snapshot:
        """What a checkpoint holds; whole on the first process, which alone writes it."""
        values, scaler = self.optimizer.state_dict(), self.accelerator.scaler
        first = self.accelerator.is_main_process
        return Snapshot(
            method=self.experiment.method,
            state=self.state,
            weights=sharding.whole(checkpoint.saved_tensors(self.method), first),
            ema=sharding.whole(self.ema.weights, first) if self.ema is not None else None,
            optimizer={
                "state": sharding.whole(values["state"], first),
                "groups": [group["params"] for group in values["param_groups"]],
                "scaler": None if scaler is None else scaler.state_dict(),
            },
            config=to_dict(self.experiment),
        )

    def preview(self) -> None:
        """Write pictures of what the method makes of the run's first batch, with the averaged weights."""
        if self._looks():
            stream = Stream(self.samples.size, self.config.seed)
            drawn = [stream.item(i) for i in range(self.config.batch_size)]
            batch = self.samples.collate([self.samples.draw(*item) for item in drawn])
            with self._averaged(), torch.no_grad():
                rows = self.method.eval().preview(batch.to(self.accelerator.device))
            self.method.train()
            if rows and self.accelerator.is_main_process:
                sheet = contact_sheet(rows, height=128)
                write_sheet(sheet, self.folder / "previews" / f"{self.state.step:07d}.png")
        self.accelerator.wait_for_everyone()

    def _looks(self) -> bool:
        """Whether this process renders in previews and validations: the first, or all that share weights."""
        return self.accelerator.is_main_process or sharding.is_sharded(self.method)

    def _averaged(self) -> AbstractContextManager[None]:
        return self.ema.applied(self.method) if self.ema is not None else nullcontext()

    def validate(self, validate: Validate) -> dict[str, float]:
        """The scores of the weights as they would be used, on the first process."""
        scores: dict[str, float] = {}
        if self._looks():
            with self._averaged():
                scores = validate(self.method.eval(), self.state.step)
            self.method.train()
        self.accelerator.wait_for_everyone()
        listed = ", ".join(f"{name} {value:.4g}" for name, value in scores.items())
        logger.info("step %d: %s", self.state.step, listed)
        return {f"val/{name}": value for name, value in scores.items()}


def _run_id(folder: Path) -> str:
    """The name under which W&B knows this folder's run, so that a continued run extends its curves."""
    path = folder / "logs" / "wandb_id"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(uuid.uuid4().hex)
    return path.read_text()


def _shorten(names: list[str], limit: int = 8) -> str:
    rest = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + rest
