"""MegaScenes NVS's README commands as they stand, on checkpoints of a reduced width in the original's layout.

Everything happens in a folder laid out as the original's repository: configs/, data/, a photo.
"""

from __future__ import annotations

import json
import logging
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from accelerate.state import AcceleratorState
from PIL import Image

import test as test_script
import train as train_script
import video_script
from dataloader.builtin import motorcycle
from dataloader.images import write_image
from dataloader.megascenes.places import photo_id, warp_name
from engine.tensor_files import read_safetensors
from tests.methods.warp_diffusion.original_files import (
    SMALL_WORDS,
    original_state_dict,
    small_config,
    write_accelerate,
    write_lightning,
)

MAINS = {"test.py": test_script.main, "train.py": train_script.main, "video_script.py": video_script.main}
QUICK = ["--frames", "2", "-b", "2", *SMALL_WORDS, "model.sampling.steps=2"]
FIRST = "model.unet.conv_in.weight"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, repo_root: Path) -> Path:
    """The folder to work in: configs with published checkpoints, a photo with its depth, a few pairs."""
    root = tmp_path_factory.mktemp("megascenes_nvs")
    for name in ("warp_plus_pose", "zeronvs_finetune", "zeronvs_original"):
        (root / "configs" / name).mkdir(parents=True)
        shutil.copy(repo_root / "configs" / name / "config.yaml", root / "configs" / name)
    write_accelerate(root / "configs/warp_plus_pose/iter_112000", original_state_dict(small_config()))
    plain = original_state_dict(small_config("none"), seed=1)
    write_accelerate(root / "configs/zeronvs_finetune/iter_90000", plain)
    write_lightning(root / "configs/zeronvs_original/iter_0/zeronvs.ckpt", plain)
    left = motorcycle().records[0]
    assert left.depth is not None
    assert isinstance(left.image, np.ndarray)
    write_image(left.image, root / "photo.png")
    np.save(root / "depth.npy", left.depth)
    write_pairs(root / "data")
    return root


def write_pairs(data: Path) -> None:
    """Six MegaScenes pairs of three photos: split files, photos, warps with coverage."""
    rng = np.random.default_rng(0)
    prefix, middle = "/cluster/main/images/", "commons/Inside A_Castle"
    paths = [f"{prefix}A_Castle/{middle}/0/pictures/View {n}.jpg" for n in range(3)]
    cameras = [
        {"extrinsics": [1.0, 0, 0, 0, n / 10, 0, 0], "intrinsics": ["SIMPLE_PINHOLE", 64, 48, "50", 32, 24]}
        for n in range(3)
    ]
    chosen = [(i, j) for i in range(3) for j in range(3) if i != j]
    for n in range(3):
        image = np.kron(rng.integers(0, 256, (6, 8, 3), np.uint8), np.ones((8, 8, 1), np.uint8))
        write_image(image, data / f"megascenes/images/A_Castle/{middle}/View_{n}.jpg")
    for i, j in chosen:
        warp = rng.integers(0, 256, (48, 64, 4), np.uint8)
        warp[..., 3] = 255 * (np.arange(64) < 40)
        warp[..., :3][warp[..., 3] == 0] = 0
        file = data / "megascenes/warped_images" / warp_name(photo_id(paths[i]), photo_id(paths[j]))
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(warp).save(file)
    pairs = [[paths[i], paths[j], cameras[i], cameras[j], 2.0] for i, j in chosen]
    (data / "splits").mkdir(parents=True)
    for kind, part in (("train", pairs), ("test", pairs[:3])):
        (data / f"splits/{kind}split.pkl").write_bytes(pickle.dumps(part))


@pytest.fixture
def run(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Type a command in the folder, in this process: exit code, stdout, stderr."""
    monkeypatch.chdir(place)
    root = logging.getLogger()
    before = root.handlers[:], root.level

    def call(line: str, *words: str | Path) -> tuple[int, str, str]:
        AcceleratorState._reset_state(reset_partial_state=True)  # as a new process has it
        capsys.readouterr()
        command = [*line.removeprefix("python ").split(), *map(str, words)]
        monkeypatch.setattr(sys, "argv", command)
        code = 0
        try:
            MAINS[command[0]]()
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    yield call
    root.handlers[:], root.level = before


def refusal(done: tuple[int, str, str]) -> str:
    """The one line of a command that refused bad input with exit code 2."""
    code, _, err = done
    assert code == 2, err
    assert "Traceback" not in err
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, err
    return lines[0]


def tree(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def original_tree(frames: int, drawn: bool = True) -> set[str]:
    """Files of the original's video folder."""
    files = {"reference.png", "reference_padded.png", "mesh.ply"}
    for path in ("orbit", "spiral"):
        files |= {f"{path}/warped/{name}" for name in ("warpgrid.png", "warps.gif")}
        files |= {f"{path}/warped/{i}.png" for i in range(frames)}
        if drawn:
            files |= {f"{path}/per_view_generations/{i}.png" for i in range(frames)}
            files |= {f"{path}/videos/{name}" for name in ("best.png", "best.gif")}
    return files


# Videos


@pytest.mark.parametrize(
    "line",
    [
        "python video_script.py -e configs/warp_plus_pose/ -r 112000 -i photo.png -s qualitative_warp",
        "python video_script.py -e configs/zeronvs_finetune/ -r 90000 -i photo.png -s qualitative_ft -z",
        "python video_script.py -e configs/zeronvs_original/ -r 0 -i photo.png -s original -z --ckpt_file",
    ],
)
def test_the_videos_of_the_readme(run: Run, place: Path, line: str) -> None:
    code, out, err = run(line, "--depth", "depth.npy", *QUICK)
    assert code == 0, err
    folder = place / line.split("-s ")[1].split()[0]
    files = tree(folder)
    assert original_tree(2) <= files
    assert str(Path(folder.name) / "mesh.ply") in out
    assert {"orbit.gif", "spiral.gif", "orbit.mp4", "spiral.mp4", "run.json"} <= files
    with Image.open(folder / "reference.png") as photo:
        assert photo.size == (64, 43)
    with Image.open(folder / "orbit/videos/best.gif") as film:
        assert film.n_frames == 2
    with Image.open(folder / "orbit/per_view_generations/1.png") as row:
        assert row.width > 1.9 * 256 * 64 / 43  # two samples
    record = json.loads((folder / "run.json").read_text())
    assert record["config"]["model"]["sampling"]["samples"] == 2


def test_without_weights_there_are_warps_and_the_last_line_says_so(run: Run, place: Path) -> None:
    line = "python video_script.py -e configs/warp_plus_pose/ -r 7 -i photo.png -s warps_only"
    message = refusal(run(line, "--depth", "depth.npy", *QUICK))
    assert "warps_only has the warps, but no views" in message
    assert "iter_7 does not exist (checkpoints there: 112000)" in message
    assert "download.py" in message
    files = tree(place / "warps_only")
    assert original_tree(2, drawn=False) <= files
    assert not any("best" in name or "per_view" in name for name in files)


def test_pose_or_warp_alone(run: Run, place: Path) -> None:
    """-w: no pose. -z is for models without warp channels, and is refused for others."""
    line = "python video_script.py -e configs/warp_plus_pose/ -r 112000 -i photo.png -s warponly -w"
    code, _, err = run(line, "--depth", "depth.npy", "--path", "orbit", "--original_camera", *QUICK)
    assert code == 0, err
    assert "orbit/videos/best.gif" in tree(place / "warponly")
    line = "python video_script.py -e configs/warp_plus_pose/ -r 112000 -i photo.png -s refused -z"
    assert "-z is for models that see no warp" in refusal(run(line, "--depth", "depth.npy", *QUICK))
    assert not (place / "refused").exists()


# Evaluation


@pytest.mark.parametrize(
    "line",
    [
        "python test.py -e configs/warp_plus_pose -r 112000 -s warp_plus_pose_evaluation",
        "python test.py -e configs/zeronvs_finetune -r 90000 -s finetune_evaluation",
        "python test.py -e configs/zeronvs_original -r 0 -s evaluation --released_ckpt zeronvs.ckpt",
    ],
)
def test_the_evaluations_of_the_readme(run: Run, place: Path, line: str) -> None:
    words = ["-b", "2", "-w", "0", "--save_generations", "True", "--save_data", "--savefreq", "2"]
    words += [*SMALL_WORDS, "model.sampling.steps=2", "model.sampling.samples=1", "data.target=val"]
    code, out, err = run(line, *words)
    assert code == 0, err
    folder = place / "quant_eval" / line.split("-s ")[1].split()[0]
    pictures = {f"{part}/{i}.png" for part in ("generations", "refimgs", "tarimgs", "masks") for i in (0, 2)}
    files = tree(folder)
    assert pictures | {"reconmetrics.txt", "metrics.json", "per_image.csv"} <= files
    assert not any(file.endswith("/1.png") for file in files)
    with Image.open(folder / "generations/0.png") as image:
        assert image.size == (64, 64)
    scores = json.loads((folder / "reconmetrics.txt").read_text())
    assert {"psnr", "ssim", "mask_psnr", "mask_ssim"} <= scores.keys()
    (summary,) = json.loads((folder / "metrics.json").read_text())
    assert (summary["n"], summary["method"]) == (3, "warp_diffusion")
    assert summary["means"]["psnr"] > 0
    assert "fid" in summary["missing"] or "fid" in summary["pooled"]
    assert str(Path("quant_eval") / folder.name / "metrics.json") in out


# Training


def test_training_starts_from_zeronvs_and_goes_on(run: Run, place: Path, repo_root: Path) -> None:
    """The README's command, through accelerate's launcher: 8 channels become 11, then the run is scored."""
    words = [*SMALL_WORDS, "training.steps=2", "training.save_every=2", "training.preview_every=2"]
    words += ["training.precision=no", "model.sampling.steps=2"]  # bf16 is slow on most CPUs
    command = [
        sys.executable, "-m", "accelerate.commands.launch", "--config_file",
        repo_root / "acc_configs/cpu.yaml", repo_root / "train.py", "-e", "configs/warp_plus_pose/",
        "-b", "2", "-w", "0",
        "--output_dir", "trained", *words,
    ]  # fmt: skip
    done = subprocess.run(
        command, cwd=place, capture_output=True, text=True, timeout=300, check=False,
        env=os.environ | {"PYTHONPATH": str(repo_root)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    trained = read_safetensors(place / "trained/iter_2/model.safetensors")
    published = original_state_dict(small_config("none"), seed=1)
    start = published["model.diffusion_model.input_blocks.0.0.weight"]
    assert trained[FIRST].shape == (32, 11, 3, 3)
    torch.testing.assert_close(trained[FIRST][:, :8], start, atol=1e-4, rtol=0)
    assert 0 <= float(trained[FIRST][:, 8:].abs().max()) < 1e-4
    assert not any("autoencoder" in name or "image_encoder" in name for name in trained)
    assert not torch.equal(trained["model.cc_projection.bias"], published["cc_projection.bias"])
    assert (place / "trained/previews/0000002.png").is_file()

    line = "python test.py -e configs/warp_plus_pose -r latest -s trained_eval --output_dir trained"
    words = [*SMALL_WORDS, "model.sampling.steps=2", "model.sampling.samples=1", "data.target=val"]
    code, _, err = run(line, *words)
    assert code == 0, err
    again = "python train.py -e configs/warp_plus_pose -b 2 -w 0 --output_dir trained -r latest"
    code, _, err = run(again, *SMALL_WORDS, "training.steps=3", "training.precision=no")
    assert code == 0, err
    assert (place / "trained/iter_3/ema.safetensors").is_file()


TWO_CPU_PROCESSES = """
compute_environment: LOCAL_MACHINE
distributed_type: MULTI_GPU
use_cpu: true
num_machines: 1
num_processes: 2
machine_rank: 0
main_process_port: 0
mixed_precision: 'no'
"""


@pytest.mark.slow
def test_two_processes_score_as_one_does(run: Run, place: Path, repo_root: Path) -> None:
    """The toy experiment on procedural rooms, an odd batch size, masks and all."""
    toy = f"-e {repo_root}/configs/warp_diffusion/toy --output_dir toy -b 3"
    words = ["model.resolution=32", "model.unet.multipliers=[1,1]", "model.unet.attention=[2]"]
    words += ["model.sampling.steps=2", "training.tracker=none"]
    code, _, err = run(f"python train.py {toy}", *words, "training.steps=1")
    assert code == 0, err
    score = f"test.py {toy} -r latest --save_data"
    code, _, err = run(f"python {score} -s one", *words, "data.target=val")
    assert code == 0, err
    (place / "two.yaml").write_text(TWO_CPU_PROCESSES)
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", "two.yaml"]
    done = subprocess.run(
        [*launch, *f"{repo_root}/{score} -s two".split(), *words, "data.target=val"],
        cwd=place, capture_output=True, text=True, timeout=300, check=False,
        env=os.environ | {"PYTHONPATH": str(repo_root)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (one,), (two,) = (
        json.loads((place / f"quant_eval/{name}/metrics.json").read_text()) for name in ("one", "two")
    )
    assert one["n"] == two["n"] == 32
    assert two["means"] == pytest.approx(one["means"], rel=2e-3)
    assert two["pooled"] == pytest.approx(one["pooled"], rel=2e-3)
    assert tree(place / "quant_eval/one") == tree(place / "quant_eval/two")


# The original's own config.yaml

ORIGINAL_CONFIG = """
training:
  project: megascenes_nvs
  exp_name: warp_plus_pose
  learning_rate: 1e-4
  pose_cond: warp_plus_pose
  gradient_accumulation_steps: 1
  pos_enc: null
  log_images_kwargs:
    ddim_steps: 50
    use_ema_scope: False
    inpaint: False
    plot_progressive_rows: False
    plot_diffusion_rows: False
    N: 8
    unconditional_guidance_scale: 3.0
    unconditional_guidance_label: [""]
model:
  target: ldm.models.diffusion.ddpm.LatentDiffusion
  params:
    concat_dim_in: null
    linear_start: 0.00085
    linear_end: 0.0120
    num_timesteps_cond: 1
    log_every_t: 200
    timesteps: 1000
    first_stage_key: "image_target"
    cond_stage_key: "image_cond"
    image_size: 32
    channels: 4
    cond_stage_trainable: false
    conditioning_key: hybrid
    monitor: train/loss_simple_ema
    scale_factor: 0.18215
    scheduler_config:
      target: ldm.lr_scheduler.LambdaLinearScheduler
      params:
        warm_up_steps: [100]
        cycle_lengths: [10000000000000]
        f_start: [1.e-6]
        f_max: [1.]
        f_min: [1.]
    unet_config:
      target: ldm.modules.diffusionmodules.openaimodel.UNetModel
      params:
        image_size: 32
        in_channels: 11
        out_channels: 4
        model_channels: 320
        attention_resolutions: [4, 2, 1]
        num_res_blocks: 2
        channel_mult: [1, 2, 4, 4]
        num_heads: 8
        use_spatial_transformer: True
        transformer_depth: 1
        context_dim: 768
        use_checkpoint: True
        legacy: False
    first_stage_config:
      target: ldm.models.autoencoder.AutoencoderKL
      params:
        embed_dim: 4
        ddconfig:
          double_z: true
          z_channels: 4
          resolution: 256
          in_channels: 3
          out_ch: 3
          ch: 128
          ch_mult: [1, 2, 4, 4]
          num_res_blocks: 2
          attn_resolutions: []
          dropout: 0.0
        lossconfig:
          target: torch.nn.Identity
    cond_stage_config:
      target: ldm.modules.encoders.modules.FrozenCLIPImageEmbedder
    extra_layer_config:
      target: torch.nn.Linear
      params:
        in_features: 787
        out_features: 768
"""


def test_the_original_s_own_config_runs(run: Run, place: Path) -> None:
    folder = place / "configs/theirs"
    folder.mkdir()
    (folder / "config.yaml").write_text(ORIGINAL_CONFIG)
    (folder / "iter_112000").symlink_to(place / "configs/warp_plus_pose/iter_112000")
    line = "python video_script.py -e configs/theirs -r 112000 -i photo.png -s theirs --path spiral"
    code, _, err = run(line, "--depth", "depth.npy", *QUICK)
    assert code == 0, err
    record = json.loads((place / "theirs/run.json").read_text())["config"]
    sampling = record["model"]["sampling"]
    assert (sampling["sampler"], sampling["guidance"]) == ("original", 3.0)
    assert (record["model"]["freeze_projection"], record["model"]["dropout"]) == (True, "original")
    assert (record["training"]["learning_rate"], record["training"]["seed"]) == (1e-4, 23)
    broken = yaml.safe_load(ORIGINAL_CONFIG)
    del broken["model"]["params"]["unet_config"]
    (folder / "config.yaml").write_text(yaml.safe_dump(broken))
    assert "unet_config" in refusal(run(line, "--depth", "depth.npy", *QUICK))


# Bad input

VIDEO = "python video_script.py -e configs/warp_plus_pose -r 112000 -s bad"
TEST = "python test.py -e configs/warp_plus_pose -r 112000 -s bad -b 2 data.target=val model.sampling.steps=2"


def test_bad_photos_depths_and_paths(run: Run, place: Path) -> None:
    (place / "corrupt.png").write_bytes((place / "photo.png").read_bytes()[:900])
    np.save(place / "other.npy", np.ones((30, 40), np.float32))
    np.save(place / "nothing.npy", np.zeros((500, 741), np.float32))
    frame = {"camera_to_world": [float("nan"), *np.eye(4).flatten().tolist()[1:]], "fov": 50}
    path = {"render_height": 8, "render_width": 8, "fps": 2, "camera_path": [frame]}
    (place / "nan.json").write_text(json.dumps(path))
    for words, message in (
        ("-i corrupt.png --depth depth.npy", "corrupt.png is not a readable image"),
        ("-i missing.png --depth depth.npy", "missing.png does not exist"),
        ("-i photo.png --depth other.npy", "other.npy is 40x30, photo.png is 741x500"),
        ("-i photo.png --depth nothing.npy", "nothing.npy holds no positive depth"),
        ("-i photo.png --depth corrupt.png", "corrupt.png"),
        ("-i photo.png --depth depth.npy --path nan.json", "nan.json"),
        ("-i photo.png", "the depth model LiheYoung/depth-anything-large-hf is not on this machine"),
        ("", "give a photo with -i"),
    ):
        line = refusal(run(f"{VIDEO} {words}", *QUICK))
        assert message in line, line
        assert not (place / "bad").exists()


def test_checkpoints_of_another_variant(run: Run, place: Path) -> None:
    line = VIDEO.replace("warp_plus_pose -r 112000", "zeronvs_finetune -r 90000")
    words = ["-i", "photo.png", "--depth", "depth.npy", *QUICK]
    message = refusal(run(line, *words, "model.warp=pixels"))
    assert "unet.conv_in.weight takes 8 channels there, 11 here; pass model.warp=none" in message
    missing = refusal(run(VIDEO, *words, "--ckpt_file"))
    assert "configs/warp_plus_pose/iter_112000/zeronvs.ckpt does not exist" in missing
    assert not (place / "bad").exists()


class Hostile:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.mark}",)


def test_bad_splits(run: Run, place: Path) -> None:
    """Nothing of a split file is ever run; a photo that is not there is named."""
    pairs = pickle.loads((place / "data/splits/testsplit.pkl").read_bytes())
    mark = place / "it_ran"
    (place / "hostile.pkl").write_bytes(pickle.dumps([*pairs, Hostile(mark)]))
    assert "hostile.pkl" in refusal(run(TEST, *SMALL_WORDS, "data.pairs=hostile.pkl"))
    assert not mark.exists()
    pairs[1][0] = pairs[1][0].replace("View", "Gone")
    (place / "gone.pkl").write_bytes(pickle.dumps(pairs))
    assert "Gone" in refusal(run(TEST, *SMALL_WORDS, "data.pairs=gone.pkl", "model.sampling.samples=1"))
    assert "nothing is left for the split 'test'" in refusal(run(TEST, *SMALL_WORDS, "data.target=test"))
    assert "nowhere" in refusal(run(TEST, *SMALL_WORDS, "data.pairs=nowhere"))
    assert "nowhere is no folder" in refusal(run(TEST, *SMALL_WORDS, "data.warps=nowhere"))
    train = "python train.py -e configs/warp_plus_pose -b 2 -w 0 --output_dir bad_run"
    words = [*SMALL_WORDS, "training.steps=2", "training.precision=no", "data.pairs=gone.pkl"]
    assert "Gone" in refusal(run(train, *words))
    assert not list((place / "bad_run").glob("iter_*"))
    widths = "cc_projection.weight takes"
    assert widths in refusal(run(train, *words, "model.image_encoder.projection=32", "model.unet.context=64"))
