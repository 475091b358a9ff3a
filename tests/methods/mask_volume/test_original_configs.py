"""The original's config files: every shipped one, defaults, schedules, and what is refused."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import h5py
import numpy as np
import pytest

from common.errors import UserError
from engine.config import Experiment, resolve
from engine.key_value_files import read_key_values
from engine.schedule import learning_rate_schedule
from methods import load_experiment, parse_experiment
from methods.mask_volume.config import MaskVolumeConfig
from methods.mask_volume.original_configs import count_scenes, translate

# The keys of the files that the original ships (specs/mask_volume 1.3).
STAGE_1 = """
root_dir = /data/re10k/train
val_dir = /data/re10k/test
log_dir = ./logs
ckpt_dir = ./ckpts
debug = False
exp_name = 3dmpi_vgg
loss_type = vgg
num_epochs = 400
"""
STAGE_2 = """
root_dir = /data/mvcam/train
val_dir = /data/mvcam/val
log_dir = ./logs
ckpt_dir = ./ckpts
debug = False
exp_name = 3dmask_vgg_only
loss_type = vgg_only
num_steps = 400000
img_hw = [360, 640]
mpi_model = ckpts/mpi.ckpt
"""
RENDER = """
root_dir = frames
bg_dir = frames/background
out_dir = out
img_wh = [320, 180]
ckpt_path = ckpts/mask.ckpt
"""


def read(tmp_path: Path, text: str) -> Experiment:
    (tmp_path / "original.txt").write_text(text)
    raw = translate(read_key_values(tmp_path / "original.txt"))
    assert raw is not None
    return resolve(raw, MaskVolumeConfig)


def refusal(tmp_path: Path, text: str) -> str:
    with pytest.raises(UserError) as caught:
        read(tmp_path, text)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_stage_1_as_shipped(tmp_path: Path) -> None:
    experiment = read(tmp_path, STAGE_1)
    model, training = experiment.model, experiment.training
    assert (experiment.method, model.stage, model.loss.name) == ("mask_volume", "mpi", "vgg")
    assert model.as_published
    assert model.loss.train_mode
    assert (model.augment.crop, model.augment.max_scale, model.augment.colours) == (256, 2.0, True)
    assert (model.sampler.frames, model.sampler.min_stride, model.sampler.max_stride) == (10, 3, 10)
    assert (model.near, model.far, model.planes) == (1, 100, 32)
    assert experiment.data.root == "/data/re10k"  # which holds both splits
    assert (training.steps, training.batch_size, training.seed) == (400 * 3500, 1, 42)
    assert (training.learning_rate, training.schedule, training.init_from) == (5e-4, "constant", "")
    assert model.optimizer.name == "adam"


def test_stage_2_as_shipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    experiment = read(tmp_path, STAGE_2)
    assert (experiment.model.stage, experiment.model.loss.name) == ("mask", "vgg_only")
    assert (experiment.training.steps, experiment.training.init_from) == (400_000, "ckpts/mpi.ckpt")
    assert (experiment.data.root, experiment.data.max_size) == ("/data/mvcam/train", 640)
    assert experiment.model.augment.crop == 0
    unused = [record.message for record in caplog.records if "without effect" in record.message]
    assert len(unused) == 1
    assert all(key in unused[0] for key in ("exp_name (see --output_dir)", "val_dir", "ckpt_dir", "log_dir"))


def test_the_renderers_file(tmp_path: Path) -> None:
    experiment = read(tmp_path, RENDER)
    data, model = experiment.data, experiment.model
    assert (data.root, data.rig.background, data.rig.sources) == ("frames", "frames/background", (4, 5))
    assert (data.max_size, model.checkpoint, model.stage) == (320, "ckpts/mask.ckpt", "mask")
    assert model.as_published
    assert read(tmp_path, RENDER + "indices = [2, 3]").data.rig.sources == (2, 3)


def test_epochs_are_steps_of_the_scenes_that_are_there(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "64x36.h5", "w") as file:
        for name, frames in (("0", 95), ("1", 91), ("2", 92)):
            file.create_dataset(name, data=np.zeros((frames, 1, 1, 3), np.uint8))
        file.create_group("K")
    assert count_scenes(str(tmp_path), "stage 1") == 2
    experiment = read(tmp_path, f"root_dir = {tmp_path}\nloss_type = l1\nnum_epochs = 7")
    assert experiment.training.steps == 14
    for clip in ("a/scene000", "a/scene001", "b/scene002"):
        (tmp_path / clip).parent.mkdir(exist_ok=True)
        (tmp_path / f"{clip}.h5").touch()
    second = f"root_dir = {tmp_path}\nloss_type = full_loss\nnum_epochs = 5\nbatch_size = 2"
    assert read(tmp_path, second).training.steps == 10
    assert read(tmp_path, second + "\nnum_steps = 3").training.steps == 3
    assert read(tmp_path, second + "\ndebug = True").training.steps == 1


def rates(experiment: Experiment) -> list[float]:
    config = experiment.training
    factor = learning_rate_schedule(config)
    return [config.learning_rate * factor(step) for step in range(config.steps)]


def test_schedules_change_where_epochs_end(tmp_path: Path) -> None:
    for i in range(3):
        (tmp_path / "a").mkdir(exist_ok=True)
        (tmp_path / "a" / f"scene{i}.h5").touch()
    base = f"root_dir = {tmp_path}\nimg_hw = [36, 64]\nnum_epochs = 10\nlr = 0.1\n"
    steps = "decay_step = [2, 5]\ndecay_gamma = 0.5\n"
    found = rates(read(tmp_path, base + steps))
    assert found == pytest.approx([0.1] * 6 + [0.05] * 9 + [0.025] * 15)
    risen = rates(read(tmp_path, base + steps + "warmup_epochs = 2\nwarmup_multiplier = 4\n"))
    assert risen[0] == pytest.approx(0.1)
    assert risen[3] == pytest.approx(0.1 * (1 + 3 / 2))  # epoch 1 of 2
    assert risen[6:15] == pytest.approx([0.4] * 9)  # the schedule counts from epoch 3 on
    assert risen[15:18] == pytest.approx([0.2] * 3)
    poly = rates(read(tmp_path, base + "lr_scheduler = poly\npoly_exp = 2\n"))
    assert poly[15] == pytest.approx(0.025)
    cosine = rates(read(tmp_path, base + "lr_scheduler = cosine\n"))
    assert cosine[-1] == pytest.approx(1e-8)
    ignored = base + "optimizer = radam\nwarmup_epochs = 2\nwarmup_multiplier = 4\n"
    assert set(rates(read(tmp_path, ignored))) == {0.1}  # the original warms up sgd and adam alone


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("root_dir = a\nlos_type = vgg", "'los_type', which stage 1 does not know: did you mean 'loss_type'"),
        ("root_dir = a\nnum_steps = 3\nimg_wh = [3, 4]", "'img_wh', which stage 2 does not know"),
        ("root_dir = a\nbg_dir = b\nlr = 3", "'lr', which the renderer does not know"),
        ("root_dir = a\nlr = fast", "lr = fast: it must be like 0.0005"),
        ("root_dir = a\ndebug = maybe", "debug = maybe: it must be like False"),
        ("root_dir = a\nimg_hw = 360x640", "img_hw = 360x640"),
        ("root_dir = a\ndataset_name = nvidia", "dataset_name = nvidia, which does not exist"),
        (
            "root_dir = a\nloss_type = vgg_video",
            "loss_type = vgg_video, no use to training (it compares clips",
        ),
        ("root_dir = a\nloss_type = fgbgl1", "fgbgl1"),
        ("root_dir = a\nlr_scheduler = step", "lr_scheduler = step: it must be steplr, cosine or poly"),
        ("root_dir = a\nloss_type = ssim", "'model.loss.name' is 'ssim': choose from mse, l1, vgg"),
        ("root_dir = a\noptimizer = lion", "'model.optimizer.name' is 'lion'"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    assert message in refusal(tmp_path, text)


def test_other_files_are_not_taken_for_the_originals(tmp_path: Path) -> None:
    assert translate({"lr": "1"}) is None
    assert translate({"root_dir": "a", "model": {"x": 1}}) is None
    (tmp_path / "other.txt").write_text("learning = fast\n")
    with pytest.raises(UserError, match=r"other\.txt names no method"):
        load_experiment(tmp_path / "other.txt")


def test_scripts_take_the_file_and_keep_results_in_a_folder_of_its_name(tmp_path: Path) -> None:
    file = tmp_path / "render_video.txt"
    file.write_text(RENDER)
    parser = argparse.ArgumentParser()
    parser.add_argument("-e", type=Path, dest="exp_dir")
    parser.add_argument("--output_dir", type=Path)
    parser.add_argument("-r", dest="resume")
    parser.add_argument("-s", dest="savepath")
    args, experiment, _ = parse_experiment(parser, "test", ["-e", str(file), "data.max_size=64"])
    assert (args.output_dir, experiment.data.max_size) == (tmp_path / "render_video", 64)
    assert args.resume == "ckpts/mask.ckpt"
    assert parse_experiment(parser, "test", ["-e", str(file), "-r", "7"])[0].resume == "7"
    args, _, _ = parse_experiment(parser, "test", ["-e", str(file), "--output_dir", "out"])
    assert args.output_dir == Path("out")
    args, experiment, _ = parse_experiment(parser, "test", ["-e", str(tmp_path)])
    assert (args.output_dir, experiment.data.root) == (None, "frames")
