"""Both stages learn, resume bit for bit, share a batch between processes, and freeze what they say."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from torch import Tensor

from common.errors import UserError
from engine import checkpoint
from engine.tensor_files import read_safetensors
from engine.trainer import Result
from methods import load_experiment, open_data
from methods.mask_volume.config import MaskVolumeConfig
from methods.mask_volume.losses import LossConfig
from methods.mask_volume.method import MaskVolume
from tests.methods.mask_volume.runs import losses, run, short
from tests.methods.mask_volume.tiny import tiny_config, tiny_method, toy_experiment, write_original

# train/loss of the first five steps, and the mean of the last ten: a change here changes every training run.
# The tolerance grows, because a voxel that rounding switches on or off matters in networks this small.
GOLDEN = {
    "mpi": ([0.05614, 0.04495, 0.12107, 0.12199, 0.05903], 0.0713),
    "mask": ([0.19325, 0.17844, 0.28538, 0.27142, 0.17639], 0.1799),
}


def weights(folder: Path, step: int) -> dict[str, Tensor]:
    return read_safetensors(folder / f"iter_{step}" / "model.safetensors")


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """Stage 1."""
    folder = tmp_path_factory.mktemp("mpi")
    return folder, run(folder, toy_experiment("mpi", save_every=12))


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory, first: tuple[Path, Result]) -> tuple[Path, Result]:
    """Stage 2, from it."""
    folder = tmp_path_factory.mktemp("mask")
    return folder, run(folder, toy_experiment(steps=8, save_every=4, init_from=str(first[0] / "iter_20")))


def test_golden_losses(first: tuple[Path, Result], tmp_path: Path) -> None:
    """Stage 2 from random weights, which are the same everywhere, as trained ones are not."""
    file = write_original(tiny_method(tiny_config("mpi")), tmp_path / "stage1.ckpt")
    second = run(tmp_path, toy_experiment(init_from=str(file)))
    for stage, result in (("mpi", first[1]), ("mask", second)):
        begin, end = GOLDEN[stage]
        found = losses(result)
        assert found[:2] == pytest.approx(begin[:2], rel=1e-3)
        assert found[:5] == pytest.approx(begin, rel=2e-2)
        assert sum(found[10:]) / 10 == pytest.approx(end, rel=5e-2)


@pytest.mark.parametrize("stage", ["mpi", "mask"])
def test_a_resumed_run_is_bit_equal(
    first: tuple[Path, Result], second: tuple[Path, Result], tmp_path: Path, stage: str
) -> None:
    (folder, result), middle, end = (first, 12, 20) if stage == "mpi" else (second, 4, 8)
    shutil.copytree(folder / f"iter_{middle}", tmp_path / f"iter_{middle}")
    # stage 2 goes on without stage 1: its checkpoints hold both networks
    assert losses(run(tmp_path, toy_experiment(stage, steps=end), "latest")) == losses(result)[middle:]
    one, other = weights(folder, end), weights(tmp_path, end)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_stage_two_leaves_the_first_network_as_it_is(
    first: tuple[Path, Result], second: tuple[Path, Result]
) -> None:
    before, after = weights(first[0], 20), weights(second[0], 8)
    assert {name for name in after if name.startswith("model.mpi_net.")} == before.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    early = weights(second[0], 4)
    assert all(not torch.equal(early[k], v) for k, v in after.items() if k.startswith("model.mask_net."))
    moved = checkpoint.read_optimizer(second[0] / "iter_8")
    mask = [name for name in after if name.startswith("model.mask_net.")]
    assert len(moved["state"]) == len(mask) == len(after) // 2
    assert list(checkpoint.read_state(second[0] / "iter_8").frozen) == ["model"]


def test_checkpoints_hold_both_networks_and_nothing_of_the_loss(second: tuple[Path, Result]) -> None:
    names = weights(second[0], 8)
    assert {name.split(".")[1] for name in names} == {"mpi_net", "mask_net"}
    alone = MaskVolume.create(tiny_config(margin=0.125))
    found = checkpoint.find(second[0], "latest")
    assert found is not None
    checkpoint.load_for_inference(alone, found)
    assert all(torch.equal(value, names[name]) for name, value in alone.state_dict().items())


def test_the_losss_network_is_no_part_of_the_method(tmp_path: Path) -> None:
    from torchvision.models import vgg19_bn  # slow to import

    torch.manual_seed(0)
    features = vgg19_bn(weights=None, init_weights=False).features.state_dict()
    torch.save({f"features.{name}": value for name, value in features.items()}, tmp_path / "vgg19_bn-0.pth")
    method = tiny_method(tiny_config("mpi", loss=LossConfig("vgg", weights=str(tmp_path))))
    before = method.state_dict().keys()
    method.criterion.prepare()
    assert method.state_dict().keys() == before
    assert not any("vgg" in name for name, _ in method.named_parameters())


def test_stage_two_needs_stage_one(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"stage mask trains on a finished first network: .*training\.init_from"
    ):
        run(tmp_path, toy_experiment())


def test_stage_two_starts_from_a_file_of_the_originals_stage_one(tmp_path: Path) -> None:
    original = tiny_method(tiny_config("mpi"), seed=3)
    file = write_original(original, tmp_path / "stage1.ckpt")
    experiment = toy_experiment(init_from=str(file), steps=1, save_every=1)
    run(tmp_path / "run", experiment)
    after = weights(tmp_path / "run", 1)
    assert all(torch.equal(after[name], value) for name, value in original.state_dict().items())


def test_stage_two_starts_from_a_pretrained_stage_one(tmp_path: Path) -> None:
    stage_one = tiny_method(tiny_config("mpi"), seed=4)
    stage_one.save_pretrained(tmp_path / "one")
    run(tmp_path / "run", toy_experiment(init_from=str(tmp_path / "one"), steps=1, save_every=1))
    after = weights(tmp_path / "run", 1)
    assert all(torch.equal(after[name], value) for name, value in stage_one.state_dict().items())
    shown = MaskVolume.create(tiny_config(margin=0.125))
    checkpoint.load_weights(shown, tmp_path / "one")
    with pytest.raises(UserError, match="has no mask network"):
        shown.prepare_inference()


def test_stage_two_of_another_size_is_refused(first: tuple[Path, Result], tmp_path: Path) -> None:
    experiment = toy_experiment(init_from=str(first[0] / "iter_20"))
    experiment.model.width = 3
    with pytest.raises(UserError, match=r"do not fit this model: .*mpi_net.* there, .* here"):
        run(tmp_path, experiment)


def test_stage_one_alone_is_not_shown_with_a_mask(first: tuple[Path, Result]) -> None:
    found = checkpoint.find(first[0], "latest")
    assert found is not None
    with pytest.raises(UserError, match=r"the checkpoint is of stage mpi and has no mask network"):
        checkpoint.load_for_inference(MaskVolume.create(tiny_config()), found)


@pytest.mark.parametrize("stage", ["mpi", "mask"])
@pytest.mark.parametrize("views", [2, 3])
def test_every_trained_weight_gets_a_gradient(stage: str, views: int) -> None:
    """Data-parallel training waits for every gradient, and stage 2 asks for none of the first network's."""
    experiment = toy_experiment(stage)
    experiment.model.views, experiment.data.rig.cameras = views, 4
    method = tiny_method(experiment.model)
    samples = method.samples(open_data(experiment, MaskVolume), experiment.data)
    method(samples.collate([samples.draw(0, 0)]), 0)["loss"].backward()
    for name, parameter in method.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
    assert sum(float(p.grad.abs().sum()) > 0 for p in method.parameters() if p.grad is not None) > 20


@pytest.mark.parametrize("stage", ["mpi", "mask"])
def test_a_batch_is_its_samples_one_by_one(stage: str) -> None:
    experiment = toy_experiment(stage)
    method = tiny_method(experiment.model)
    samples = method.samples(open_data(experiment, MaskVolume), experiment.data)
    items = [samples.draw(i, i) for i in range(2)]
    with torch.no_grad():
        together, volume, moving = method.make(samples.collate(items))
        for i, item in enumerate(items):
            alone, its_volume, its_moving = method.make(samples.collate([item]))
            torch.testing.assert_close(alone.color[0], together.color[i], rtol=0, atol=1e-4)
            if volume is not None and its_volume is not None:
                torch.testing.assert_close(its_volume[0], volume[i], rtol=0, atol=1e-4)
            if moving is not None and its_moving is not None:
                torch.testing.assert_close(its_moving.alpha[0], moving.alpha[i], rtol=0, atol=1e-4)
    assert (volume is None) == (stage == "mpi")


@pytest.mark.parametrize(("stage", "pictures"), [("mpi", 4), ("mask", 5)])
def test_previews_show_sources_target_ours_and_the_mask(stage: str, pictures: int) -> None:
    experiment = toy_experiment(stage)
    method = tiny_method(experiment.model)
    samples = method.samples(open_data(experiment, MaskVolume), experiment.data)
    with torch.no_grad():
        rows = method.preview(samples.collate([samples.draw(i, i) for i in range(2)]))
    assert [len(row) for row in rows] == [pictures] * 2
    for image in (picture for row in rows for picture in row):
        assert image.shape == (3, 18, 26)
        assert image.min() >= 0
        assert image.max() <= 1


def test_half_precision_trains(tmp_path: Path, first: tuple[Path, Result]) -> None:
    settings = {"precision": "bf16", "steps": 2, "save_every": 2}
    AcceleratorState._reset_state(reset_partial_state=True)
    result = run(tmp_path / "mpi", toy_experiment("mpi", **settings))
    assert losses(result) == pytest.approx(losses(first[1])[:2], rel=0.05)
    assert losses(result) != losses(first[1])[:2]
    run(tmp_path / "mask", toy_experiment(init_from=str(first[0] / "iter_20"), **settings))
    AcceleratorState._reset_state(reset_partial_state=True)


def test_two_processes_follow_one_with_twice_the_batch(
    first: tuple[Path, Result], tmp_path: Path, repo_root: Path
) -> None:
    """DDP over gloo, of stage 2: no parameter is waited for in vain.

    Without the mask term, which is no mean over images: a batch is one sum, as in the original.
    """
    words = [str(tmp_path / "two"), str(first[0] / "iter_20")]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = os.environ | {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "PYTHONPATH": str(repo_root),
        "OMP_NUM_THREADS": "1",
        "ACCELERATE_USE_CPU": "true",
    }
    command = [sys.executable, "-m", "tests.methods.mask_volume.runs", *words]
    processes = [
        subprocess.Popen(
            command,
            cwd=repo_root,
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    errors = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    one = run(tmp_path / "one", short(first[0] / "iter_20", batch=2))
    two = json.loads((tmp_path / "two" / "history.json").read_text())
    for name, tolerance in (("train/loss", 1e-3), ("train/grad_norm", 1e-2)):
        expected = [record[name] for record in one.history]
        assert [record[name] for record in two] == pytest.approx(expected, rel=tolerance), name
    assert checkpoint.read_state(tmp_path / "two" / "iter_3").world_size == 2


def test_settings_of_a_run_are_those_of_its_checkpoint(second: tuple[Path, Result]) -> None:
    experiment, _ = load_experiment(second[0] / "iter_8")
    assert isinstance(experiment.model, MaskVolumeConfig)
    assert experiment.model == tiny_config(margin=0.125)
