"""A run that is interrupted and continued ends where an uninterrupted one does, bit for bit."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dataloader import toy
from dataloader.scene import Scene
from engine.checkpoint import find_start
from engine.config import DataConfig, Experiment, TrainingConfig
from engine.tensor_files import read_safetensors
from engine.trainer import train
from methods.hash_manifold.config import HashManifoldConfig
from methods.hash_manifold.method import HashManifold

SMALL = HashManifoldConfig(levels=4, features=2, log2_table=10, width=16, rays=256, table_learning_rate=1e-2)


@pytest.fixture(scope="module")
def room() -> Scene:
    return toy.make_scene(1, n_views=9, height=24, width=32)


def run(scene: Scene, config: HashManifoldConfig, folder: Path, resume: str | None = None) -> dict:
    """The weights after six steps."""
    training = TrainingConfig(steps=6, save_every=3, log_every=1, schedule="exponential", tracker="none")
    experiment = Experiment("hash_manifold", config, DataConfig(), training)
    torch.manual_seed(0)
    method = HashManifold.create(config, scene)
    train(method, method.samples(scene, DataConfig()), experiment, folder, start=find_start(folder, resume))
    return read_safetensors(folder / "iter_6/model.safetensors")


@pytest.mark.parametrize("change", [{}, {"sparse_optimizer": False}, {"exposure": "code", "supersample": 2}])
def test_resuming_changes_nothing(room: Scene, tmp_path: Path, change: dict) -> None:
    config = replace(SMALL, **change)
    whole = run(room, config, tmp_path / "whole")
    (tmp_path / "halves").mkdir()
    shutil.copytree(tmp_path / "whole/iter_3", tmp_path / "halves/iter_3")
    resumed = run(room, config, tmp_path / "halves", resume="latest")
    assert whole.keys() == resumed.keys()
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name
