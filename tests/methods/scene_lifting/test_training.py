"""Depth completion learns, resumes bit for bit, and is validated with and without sparse depth."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from common.errors import UserError
from dataloader.depth.tasks import DepthTask
from engine import checkpoint
from engine.config import Experiment
from engine.tensor_files import read_safetensors
from engine.trainer import Result, train
from geometry.cameras import pinhole
from geometry.views import Views
from methods.scene_lifting.data import DepthData, DepthSample, held_out_sample, open_depth_data
from methods.scene_lifting.method import SceneLifting
from methods.scene_lifting.validation import align, validate
from tests.methods.scene_lifting.tiny import tiny_config, toy

# train/loss of every fourth step: a change here changes every training run.
GOLDEN = [14.2148, 15.647, 11.068, 15.8167, 18.4289]


def run(folder: Path, experiment: Experiment, resume: str | None = None) -> Result:
    start = checkpoint.find_start(folder, resume)
    scene = SceneLifting.open(argparse.Namespace(), experiment)
    method = SceneLifting.create(experiment.model)
    return train(method, method.samples(scene, experiment.data), experiment, folder, start)


def losses(result: Result) -> list[float]:
    return [row["train/loss"] for row in result.history]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    folder = tmp_path_factory.mktemp("whole")
    return folder, run(folder, toy())


def test_golden_losses(whole: tuple[Path, Result]) -> None:
    assert losses(whole[1])[::4] == pytest.approx(GOLDEN, rel=1e-3)


def test_a_resumed_run_is_bit_equal(whole: tuple[Path, Result], tmp_path: Path) -> None:
    shutil.copytree(whole[0] / "iter_12", tmp_path / "iter_12")
    assert losses(run(tmp_path, toy(), "latest")) == losses(whole[1])[12:]
    for name in ("model.safetensors", "ema.safetensors"):
        a, b = (read_safetensors(folder / "iter_20" / name) for folder in (whole[0], tmp_path))
        assert a.keys() == b.keys()
        assert all(torch.equal(a[key], b[key]) for key in a)


def test_momentum_follows_the_cycle(whole: tuple[Path, Result]) -> None:
    saved = checkpoint.find(whole[0], "latest")
    assert saved is not None
    experiment = toy(steps=21)
    method = SceneLifting.create(experiment.model)
    method.initialise()
    optimization = method.optimization(experiment.training)
    assert optimization.momentum is not None
    assert optimization.momentum(0) == pytest.approx(0.95)
    assert min(optimization.momentum(step) for step in range(21)) == pytest.approx(0.85, abs=5e-3)
    assert {group["betas"] for group in optimization.optimizer.param_groups} == {(0.95, 0.999)}


def test_the_run_hands_momentum_to_the_optimiser(tmp_path: Path) -> None:
    from engine.launch import make_accelerator
    from engine.run import Run

    experiment = toy(steps=10)
    method = SceneLifting.create(experiment.model)
    samples = method.samples(open_depth_data(experiment), experiment.data)
    taken = Run(method, samples, experiment, tmp_path, make_accelerator(experiment.training, tmp_path))
    taken.start(None)
    taken.state.step = 6
    taken._set_learning_rate()
    assert {group["betas"][0] for group in taken.optimizer.param_groups} == {0.85}


def test_every_weight_is_trained() -> None:
    method = SceneLifting.create(tiny_config())
    method.initialise()
    sample = method.random_sample(2, 1, 1)
    method(sample, 0)["loss"].backward()
    idle = [name for name, p in method.named_parameters() if p.grad is None]
    assert not idle  # data-parallel training waits for every gradient


def test_validation_scores_hidden_pixels_with_and_without_sparse_depth() -> None:
    experiment = toy()
    data = open_depth_data(experiment)
    assert data.held_out is not None
    asked: list[bool] = []

    def scores(change: Callable[[torch.Tensor], torch.Tensor]) -> dict[str, float]:
        asked.clear()

        def predict(images: torch.Tensor, sparse: torch.Tensor) -> torch.Tensor:
            asked.append(bool(sparse.any()))
            sample = held_out_sample(data.held_out, (len(asked) - 1) // 2, experiment.model.samples)
            return change(sample.depth[None])

        return validate(predict, data, experiment.model.samples, 0)

    exact = scores(lambda depth: depth)
    assert asked == [True, False] * 3
    assert exact["hidden_mae"] == 0
    assert exact["hidden_delta1"] == 1
    changed = scores(lambda depth: depth * 0.5 + 1)
    assert changed["hidden_mae"] > 0.5
    assert changed["plain_mae"] == pytest.approx(exact["plain_mae"], abs=1e-4)


def test_validation_on_measured_depth_ignores_its_scale(tmp_path: Path) -> None:
    folder = tmp_path / "test" / "kitchen"
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    depth = generator.uniform(1, 5, (480, 640))
    Image.fromarray((depth * 1000).round().astype(np.uint16)).save(folder / "sync_depth_00001.png")
    Image.fromarray(generator.integers(0, 255, (480, 640, 3), dtype=np.uint8)).save(folder / "rgb_00001.jpg")
    from dataloader.depth.teacher import open_depth_test_set

    measured = open_depth_test_set(tmp_path / "test")
    data = DepthData("nyu", open_depth_data(toy()).train, None, measured)

    def relative(images: torch.Tensor, sparse: torch.Tensor) -> torch.Tensor:
        assert not sparse.any()
        return torch.from_numpy(measured.load(0)[1])[None, None] * 0.1 + 0.2

    scores = validate(relative, data, tiny_config().samples, 0)
    assert scores["nyu_a1"] == 1
    assert scores["nyu_abs_rel"] < 1e-3


def test_alignment_takes_known_pixels_alone() -> None:
    depth = torch.rand(1, 1, 4, 5) + 1
    known = torch.zeros_like(depth, dtype=torch.bool)
    known[..., :2] = True
    predicted = torch.where(known, (depth - 0.5) / 3, torch.zeros_like(depth))
    assert torch.allclose(align(predicted, depth, known)[known], depth[known], atol=1e-5)


def write_nyu(root: Path, teacher: Path, masks: Path) -> None:
    """Two photos of NYU's layout with a teacher's depth, and a mask."""
    generator = np.random.default_rng(1)
    for folder in (root, teacher, masks):
        (folder / "attic").mkdir(parents=True)
    for name in ("rgb_00001", "rgb_00002"):
        photo = generator.integers(0, 255, (480, 640, 3), dtype=np.uint8)
        Image.fromarray(photo).save(root / "attic" / f"{name}.jpg")
        depth = np.zeros((480, 640), np.float32)
        depth[8:472, 8:632] = generator.uniform(0, 1, (464, 624))
        np.save(teacher / "attic" / f"{name}.npy", depth)
    np.save(masks / "attic" / "a.npy", (generator.uniform(size=(60, 80)) < 0.3).astype(np.uint8))


def nyu_experiment(tmp_path: Path) -> Experiment:
    experiment = toy()
    root, teacher, masks = tmp_path / "nyu", tmp_path / "teacher", tmp_path / "masks"
    write_nyu(root, teacher, masks)
    experiment.data = replace(experiment.data, root=str(root))
    experiment.model.paths.teacher, experiment.model.paths.masks = str(teacher), str(masks)
    experiment.model.samples = replace(experiment.model.samples, crop=True)
    return experiment


def test_photos_with_a_teachers_depth_are_trained_on(tmp_path: Path) -> None:
    experiment = nyu_experiment(tmp_path)
    data = open_depth_data(experiment)
    samples = SceneLifting(experiment.model).samples(data, experiment.data)
    assert samples.size == 2
    drawn = [samples.draw(i % 2, seed) for i, seed in enumerate(range(8))]
    batch = samples.collate(drawn)
    assert isinstance(batch, DepthSample)
    assert batch.image.shape == (8, 3, 464, 624)
    given = (batch.masked_depth > 0).flatten(1).any(1)
    assert given.any()
    assert not given.all()
    again = samples.draw(0, 0)
    assert torch.equal(again.image, drawn[0].image)
    assert torch.equal(again.masked_depth, drawn[0].masked_depth)


@pytest.mark.parametrize("key", ["root", "teacher", "masks"])
def test_missing_training_data_are_named(tmp_path: Path, key: str) -> None:
    experiment = nyu_experiment(tmp_path)
    if key == "root":
        experiment.data = replace(experiment.data, root="")
    else:
        setattr(experiment.model.paths, key, "")
    with pytest.raises(UserError, match=key):
        open_depth_data(experiment)


def test_the_benchmark_asks_the_network_alone() -> None:
    method = SceneLifting.create(tiny_config())
    method.initialise()
    method.eval()
    camera = pinhole(50.0, 40, 56)[None]
    view = Views(torch.rand(1, 3, 40, 56, generator=torch.Generator().manual_seed(0)), camera)
    sparse = torch.full((1, 1, 40, 56), 3.0)
    sparse[..., 20:] = 0
    task = DepthTask(view, view, sparse, (sparse == 0).float(), "room", "pair")
    predicted = method.predict_depth(task)
    assert predicted.shape == (1, 1, 40, 56)
    with torch.no_grad():
        own = method.completer(torch.cat([view.images, sparse / 10, (sparse > 0).float()], dim=1))
    resized = torch.nn.functional.interpolate(own, (40, 56), mode="bilinear", align_corners=True)
    assert torch.equal(predicted, resized)
