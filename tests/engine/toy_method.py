"""A method small enough to be trained thousands of steps in a test, with a part of every kind: trained and
frozen weights, a buffer, dropout, samples that cannot be read, losses that are not finite.

Run as a script, it trains one experiment: `python toy_method.py FOLDER HISTORY.json [resume=latest]
key=value ...`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from common.errors import UserError, command
from dataloader.scene import Scene
from engine.checkpoint import find_start
from engine.config import Experiment, resolve
from engine.method import Method, Optimization
from engine.sampling import generator
from engine.schedule import learning_rate_schedule
from engine.tensor_files import read_safetensors
from engine.trainer import Result, train
from geometry.cameras import Cameras
from geometry.views import Rendering


@dataclass
class ToyConfig:
    size: int = 37  # items; 0 = keyed draws
    width: int = 8
    dropout: float = 0.0
    payload: int = 0  # further trained numbers, to make checkpoints large
    bad: tuple[int, ...] = ()  # items that cannot be read
    infinite: tuple[int, ...] = ()  # items whose loss is not finite
    signal_at: int = -1  # step in whose forward pass this process is told to stop
    seconds: float = 0.0  # per step
    chunks: tuple[int, ...] = ()  # items per chunk, summing to size; none = not in chunks
    kill_at: int = -1  # step in whose forward pass the first process is killed
    trace: str = ""  # folder where every process notes the items of its micro-batches


@dataclass
class ToySample:
    x: Tensor  # [B, 3]
    y: Tensor  # [B, 1]
    index: Tensor  # [B]

    def to(self, device: torch.device) -> ToySample:
        return ToySample(self.x.to(device), self.y.to(device), self.index.to(device))


class ToySamples:
    """y = sin(sum x) + noise; x belongs to the item, the noise to the draw."""

    def __init__(self, config: ToyConfig) -> None:
        self.config = config
        self.size = config.size or None

    def draw(self, index: int, seed: int) -> ToySample:
        if index in self.config.bad:
            raise UserError(f"photo_{index}.jpg is not a readable image (truncated): replace the file")
        x = torch.rand(3, generator=generator(index, "x"))
        noise = torch.randn(1, generator=generator(seed, "noise"))
        return ToySample(x, x.sum()[None].sin() + 0.01 * noise, torch.tensor(index))

    def collate(self, items: list[ToySample]) -> ToySample:
        return ToySample(*(torch.stack([getattr(i, name) for i in items]) for name in ("x", "y", "index")))

    def name(self, index: int) -> str:
        return f"photo_{index}.jpg"


class ChunkedToySamples(ToySamples):
    """The same, stored in chunks."""

    @property
    def chunk_sizes(self) -> tuple[int, ...]:
        return self.config.chunks


class ToyMethod(Method):
    """A frozen lifting of x and a trained network on top."""

    Config = ToyConfig
    method_name = "toy"
    block_classes = (nn.Linear,)
    trains = True

    def __init__(self, config: ToyConfig) -> None:
        super().__init__()
        self.config = config
        self.lift = nn.Linear(3, config.width).requires_grad_(False)
        self.network = nn.Sequential(
            nn.Dropout(config.dropout), nn.Linear(config.width, 16), nn.Tanh(), nn.Linear(16, 1)
        )
        self.payload = nn.Parameter(torch.zeros(config.payload))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    @classmethod
    def create(cls, config: ToyConfig, scene: Scene | None = None) -> ToyMethod:
        torch.manual_seed(0)
        return cls(config)

    @classmethod
    def open(cls, args: Any, data: Any) -> Scene:
        return Scene("toy", [])

    def load_original(self, folder: Path) -> dict[str, Tensor] | None:
        file = folder / "published.safetensors"
        return read_safetensors(file) if file.exists() else None

    def samples(self, scene: Any, data: Any) -> ToySamples:
        return ChunkedToySamples(self.config) if self.config.chunks else ToySamples(self.config)

    def forward(self, sample: ToySample, step: int) -> dict[str, Tensor]:
        if step == self.config.signal_at:
            os.kill(os.getpid(), signal.SIGTERM)
        if step == self.config.kill_at and os.environ.get("RANK") == "0":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.config.trace:
            note = json.dumps([step, sample.index.tolist()])
            with open(Path(self.config.trace) / f"rank_{os.environ.get('RANK', 0)}", "a") as file:
                file.write(note + "\n")
        time.sleep(self.config.seconds)
        self.seen += len(sample.x)
        predicted = self.network(self.lift(sample.x)) + 1e-3 * self.payload.sum()
        error = ((predicted - sample.y) ** 2).mean()
        for index in self.config.infinite:
            if (sample.index == index).any():
                error = error * torch.nan
        return {"loss": error, "error": (predicted - sample.y).detach().abs().mean()}

    def render(self, state: Any, cameras: Cameras) -> Rendering:
        raise AssertionError("the toy method is trained, never looked at")

    def optimization(self, config: Any) -> Optimization:
        groups = [
            {"params": self.network.parameters(), "lr": config.learning_rate},
            {"params": [self.payload], "lr": 0.1 * config.learning_rate},
        ]
        return Optimization(torch.optim.AdamW(groups), learning_rate_schedule(config))


DEFAULTS = {
    "training.steps": 12,
    "training.batch_size": 4,
    "training.learning_rate": 0.01,
    "training.schedule": "cosine",
    "training.warmup_steps": 2,
    "training.clip_norm": 1.0,
    "training.ema_decay": 0.9,
    "training.log_every": 1,
    "training.save_every": 4,
    "training.tracker": "none",
}


def toy_experiment(changes: dict[str, Any] | None = None) -> Experiment:
    """An experiment from dotted keys."""
    raw: dict[str, Any] = {"method": "toy", "model": {}, "data": {}, "training": {}}
    for key, value in (DEFAULTS | (changes or {})).items():
        section, name = key.split(".")
        raw[section][name] = value
    return resolve(raw, ToyConfig)


def train_toy(folder: Path, changes: dict[str, Any] | None = None, resume: str | None = None) -> Result:
    """Train the toy method in this process."""
    experiment = toy_experiment(changes)
    method = ToyMethod.create(experiment.model)
    start = find_start(folder, resume)
    return train(method, method.samples(None, None), experiment, folder, start)


def contents(checkpoint: Path) -> dict[str, Any]:
    """Weights, average and optimiser state of a checkpoint, by name."""
    flat: dict[str, Any] = {}
    for file in ("model.safetensors", "ema.safetensors"):
        flat |= {f"{file}:{name}": value for name, value in read_safetensors(checkpoint / file).items()}
    optimizer = torch.load(checkpoint / "optimizer.pt", weights_only=True)
    for index, values in optimizer["state"].items():
        flat |= {f"optimizer:{index}:{name}": value for name, value in values.items()}
    flat["state"] = {**json.loads((checkpoint / "state.json").read_text()), "world_size": None}
    return flat


def differences(first: Path, second: Path) -> list[str]:
    """Names of what two checkpoints do not share to the last bit."""
    a, b = contents(first), contents(second)
    equal = {
        name: torch.equal(a[name], b[name]) if isinstance(a[name], Tensor) else a[name] == b[name]
        for name in a.keys() & b.keys()
    }
    return sorted(a.keys() ^ b.keys()) + sorted(name for name, same in equal.items() if not same)


@command
def main() -> None:
    folder, history, *words = sys.argv[1:]
    changes = {key: yaml.safe_load(value) for key, _, value in (word.partition("=") for word in words)}
    result = train_toy(Path(folder), changes, changes.pop("resume", None))
    if int(os.environ.get("RANK", 0)) == 0:
        Path(history).write_text(json.dumps(result.history))


if __name__ == "__main__":
    main()
