"""Short trainings; as a script, the one of two processes: `python -m ...runs FOLDER STAGE_ONE`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch

from engine import checkpoint
from engine.config import Experiment
from engine.trainer import Result, train
from methods import open_data
from methods.mask_volume.losses import LossConfig
from methods.mask_volume.method import MaskVolume
from tests.methods.mask_volume.tiny import toy_experiment


def run(folder: Path, experiment: Experiment, resume: str | None = None) -> Result:
    """Train an experiment in a folder, from the same random weights every time."""
    start = checkpoint.find_start(folder, resume)
    scene = open_data(experiment, MaskVolume)
    torch.manual_seed(0)
    method = MaskVolume.create(experiment.model)
    return train(method, method.samples(scene, experiment.data), experiment, folder, start)


def losses(result: Result) -> list[float]:
    return [row["train/loss"] for row in result.history]


def short(stage_one: Path, batch: int) -> Experiment:
    """Three steps of stage 2, of a loss that is a mean over images."""
    experiment = toy_experiment(init_from=str(stage_one), steps=3, save_every=3, batch_size=batch)
    experiment.model.loss = LossConfig("l1_ssim")
    return experiment


def main() -> None:
    folder, stage_one = map(Path, sys.argv[1:])
    result = run(folder, short(stage_one, batch=1))
    if os.environ["RANK"] == "0":
        (folder / "history.json").write_text(json.dumps(result.history))


if __name__ == "__main__":
    main()
