"""LVSM's training recipes, run through our trainer, against the recorded steps (specs/lvsm 5)."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.config import DataConfig, Experiment, TrainingConfig
from engine.schedule import learning_rate_schedule
from engine.trainer import train
from geometry.cameras import Cameras
from geometry.views import Views
from methods.lvsm.config import LossConfig, LvsmConfig, OptimizerConfig, TransformerConfig
from methods.lvsm.data import ViewSample, scene_frame
from methods.lvsm.method import Lvsm
from methods.lvsm.originals import convert, infer_config
from tests.parity.cases import Case
from tests.parity.lvsm_model import official_cameras, pixel_cameras, unofficial_config, weights


@dataclass
class Recorded:
    """The recorded micro-batches, in their order."""

    samples: list[ViewSample]
    size: None = None

    def draw(self, index: int, seed: int) -> ViewSample:
        return self.samples[index]

    def collate(self, items: list[Any]) -> ViewSample:
        (item,) = items
        return item

    def name(self, index: int) -> str:
        return f"micro-batch {index}"


class Watched(Lvsm):
    """Keeps the loss of every micro-batch."""

    def forward(self, sample: ViewSample, step: int) -> dict[str, Tensor]:
        losses = super().forward(sample, step)
        self.seen.append(float(losses["loss"].detach()))
        return losses


def sample_of(
    images: Tensor, cameras: Cameras, config: LvsmConfig | None, given: int = 2, made: int = 2
) -> ViewSample:
    """The first views are given, the last to make; config: None leaves the cameras as they are."""
    source, target = cameras[:given], cameras[-made:]
    if config is not None:
        frame = scene_frame(config, source.to(torch.float64))
        source, target = (frame(c.to(torch.float64)).to(torch.float32) for c in (source, target))
    return ViewSample(Views(images[None, :given], source[None]), Views(images[None, -made:], target[None]))


def run(
    case: Case, base: LvsmConfig, training: TrainingConfig, samples: Callable[[LvsmConfig], list[ViewSample]]
) -> tuple[Watched, list[dict[str, float]]]:
    """Train the recorded model on the recorded batches; returns it and what was logged."""
    config = infer_config(convert(start_weights(case), str(case.path)), base)
    method = Watched.create(config)
    method.seen = []
    with tempfile.TemporaryDirectory() as folder:
        start = Path(folder) / "start"
        start.mkdir()
        torch.save({"model": start_weights(case)}, start / "weights.pt")
        training.init_from = str(start)
        experiment = Experiment("lvsm", config, DataConfig(root="recorded"), training)
        result = train(method, Recorded(samples(config)), experiment, Path(folder) / "run")
    return method, result.history


def start_weights(case: Case) -> dict[str, Tensor]:
    return {name.removeprefix("model."): value for name, value in weights(case).items()}


def close_weights(case: Case, method: Lvsm) -> None:
    """The weights after the last step, which the case holds under the original's names."""
    recorded = {
        name.removeprefix("final_weights."): case.output(name)
        for name in case.outputs()
        if name.startswith("final_weights.")
    }
    recorded = {name.removeprefix("model."): value for name, value in recorded.items()}
    expected = convert(recorded, str(case.path)).weights
    own = method.model.state_dict()
    assert own.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(own[name], value, rtol=0, atol=2e-5, msg=lambda t, n=name: f"{n}: {t}")


def check_kh_train_steps(case: Case) -> None:
    settings, images = case.config["optimizer"], case.input("images")
    rate = settings["lr"]
    training = TrainingConfig(
        steps=case.config["max_steps"],
        accumulation=case.config["accumulate_grad_batches"],
        learning_rate=rate,
        warmup_steps=settings["warm_up_steps"] - 1,
        initial_lr_factor=settings["initial_lr"] / rate,
        final_lr_factor=settings["min_lr"] / rate,
        schedule="cosine",
        clip_norm=case.config["gradient_clip_val"],
        log_every=1,
        tracker="none",
    )
    base = unofficial_config(case)
    base.loss = LossConfig(perceptual=0.0, network="none")
    base.optimizer = OptimizerConfig(settings["beta_1"], settings["beta_2"], settings["weight_decay"])

    def samples(config: LvsmConfig) -> list[ViewSample]:
        K = case.input("intrinsics").expand(images.shape[1], 3, 3)
        return [
            sample_of(images[i], pixel_cameras(K, case.input("c2w")[i], *images.shape[-2:]), config)
            for i in range(len(images))
        ]

    method, history = run(case, base, training, samples)
    case.close("micro_losses", method.seen, rtol=1e-4)
    case.close("lr", [row["train/lr"] for row in history], rtol=1e-6)
    case.close("grad_norm", [row["train/grad_norm"] for row in history], rtol=1e-3)
    close_weights(case, method)


def check_off_train_steps(case: Case) -> None:
    """The official loop's rate falls to 0 at a step after the recorded ones, which changes nothing."""
    settings, images = case.config, case.input("image")
    total = settings["total"]
    training = TrainingConfig(
        steps=total + 1,
        learning_rate=settings["lr"],
        warmup_steps=settings["warmup"],
        final_lr_factor=0.0,
        schedule="cosine",
        clip_norm=settings["grad_clip_norm"],
        skip_norm=settings["grad_clip_norm"] * settings["allowed_gradnorm_factor"],
        log_every=1,
        tracker="none",
    )
    head = settings["model"]["transformer"]["d_head"]
    base = LvsmConfig(
        transformer=TransformerConfig(head_dim=head),
        loss=LossConfig(perceptual=0.0, network="none"),
        optimizer=OptimizerConfig(*settings["betas"], settings["weight_decay"]),
    )

    def samples(config: LvsmConfig) -> list[ViewSample]:
        cameras = official_cameras(case.input("fxfycxcy"), case.input("c2w"), *images.shape[-2:])
        counts = settings["training"]["num_input_views"], settings["training"]["num_target_views"]
        recorded = [sample_of(images[i], cameras[i], None, *counts) for i in range(total)]
        return [*recorded, recorded[-1]]

    method, history = run(case, base, training, samples)
    assert history.pop()["train/lr"] == 0
    case.close("loss", method.seen[:total], rtol=1e-4)
    case.close("lr", [row["train/lr"] for row in history], rtol=1e-6)
    case.close("grad_norm", [row["train/grad_norm"] for row in history], rtol=1e-3)
    counts = [0.0] + [row["train/skipped_steps"] for row in history]
    case.close("skipped", [after - before for before, after in pairwise(counts)])
    close_weights(case, method)


def factors(config: TrainingConfig, steps: list[int]) -> list[float]:
    schedule = learning_rate_schedule(config)
    return [config.learning_rate * schedule(step) for step in steps]


def check_kh_lr_schedule(case: Case) -> None:
    for name, s in case.config.items():
        if not isinstance(s, dict):
            continue
        config = TrainingConfig(
            steps=s["max_steps"],
            learning_rate=s["lr"],
            warmup_steps=s["warmup"] - 1,
            initial_lr_factor=s["initial_lr"] / s["lr"],
            final_lr_factor=s["min_lr"] / s["lr"],
            schedule="cosine",
        )
        if f"{name}_steps" in case.outputs():
            steps = case.output(f"{name}_steps").tolist()
            case.close(f"{name}_lr", factors(config, steps), rtol=1e-6)
        else:
            case.close(name, factors(config, list(range(s["max_steps"]))), rtol=1e-6)


def check_off_lr_schedule(case: Case) -> None:
    """The official loop runs one step more than `train_steps`: the rate falls to 0 at that one."""
    rate, full = case.config["lr"], case.config["full"]
    for name in case.outputs():
        if name.startswith(("cosine", "linear", "constant")):
            kind, warmup, total = name.split("_")
            recorded = case.output(name)
            config = TrainingConfig(
                steps=int(total[1:]) + 1,
                learning_rate=rate,
                warmup_steps=int(warmup[1:]),
                schedule=kind,  # type: ignore[arg-type]
                final_lr_factor=0.0,
            )
            case.close(name, factors(config, list(range(len(recorded)))), rtol=1e-6)
    config = TrainingConfig(
        steps=full["total"] + 1,
        learning_rate=rate,
        warmup_steps=full["warmup"],
        schedule="cosine",
        final_lr_factor=0.0,
    )
    case.close("full_lr", factors(config, case.output("full_steps").tolist()), rtol=1e-6, atol=1e-12)


CHECKS: Mapping[str, Callable[[Case], None]] = {
    "kh_train_steps": check_kh_train_steps,
    "off_train_steps": check_off_train_steps,
    "kh_lr_schedule": check_kh_lr_schedule,
    "off_lr_schedule": check_off_lr_schedule,
}
