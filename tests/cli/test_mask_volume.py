"""mask_volume from the command line: both stages, scores, videos of clips, and bad input in one line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch
from PIL import Image

from dataloader.images import write_image
from engine.tensor_files import read_safetensors
from geometry.cameras import stack_cameras
from geometry.rig_path_files import write_rig_path
from tests.dataloader.rig.makers import make_clip, pose_rows, write_camera_folders, write_frame_folders
from tests.methods.mask_volume.tiny import AS_PUBLISHED, tiny_config, tiny_method, write_original

TINY = ["model.width=2", "model.planes=4", "model.render.backend=twin"]
QUICK = [
    *("training.steps=2", "training.save_every=2", "training.preview_every=2", "training.warmup_steps=0"),
    *("training.tracker=none", "data.rig.size=[16,24]", "data.rig.seeds=0:2", "data.rig.frames=2"),
]
MPI, MASK = ("-e", "configs/mask_volume/toy_mpi"), ("-e", "configs/mask_volume/toy_mask")
ORIGINAL = ("-e", "configs/mask_volume/original")
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(call_main: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repo_root: Path) -> Run:
    """Call a script in tmp_path, where the presets are: exit code, stdout, error lines."""
    for name in ("toy_mpi", "toy_mask", "original"):
        shutil.copytree(repo_root / "configs/mask_volume" / name, tmp_path / "configs/mask_volume" / name)
    monkeypatch.chdir(tmp_path)

    def call(script: str, *words: str | Path) -> tuple[int, str, str]:
        code, printed, errors = call_main(script, *words)
        return code, printed, "\n".join(line for line in errors.splitlines() if line.startswith("error:"))

    return call


def test_two_stages_are_trained_scored_and_filmed(run: Run, tmp_path: Path, parity_data: Path) -> None:
    """On the miniature clip, photos of 32x18 pixels; then the planes are opened again, without weights."""
    code, _, errors = run("train.py", *MPI, *TINY, *QUICK, "--output_dir", "one")
    assert code == 0, errors
    begun = ["--output_dir", "two", "training.init_from=one/iter_2"]
    code, _, errors = run("train.py", *MASK, *TINY, *QUICK, *begun, "-b", "2")
    assert code == 0, errors
    assert (tmp_path / "two/previews/0000002.png").is_file()
    first, second = (
        read_safetensors(tmp_path / name / "iter_2/model.safetensors") for name in ("one", "two")
    )
    assert all(torch.equal(second[name], value) for name, value in first.items())
    assert any(name.startswith("model.mask_net.") for name in second)

    mini = parity_data / "mvcam_mini"
    words = [*MASK, *TINY, "--output_dir", "two", "-r", "latest", "data.max_size=32"]
    clip = [f"data.root={mini}", "data.rig.sources=[0,1]", "data.rig.end=2"]
    code, out, errors = run(
        "test.py", *words, *clip, "-s", "./scores", "--compare", "nearest_view,single_plane"
    )
    assert code == 0, errors
    scores = json.loads((tmp_path / "scores/metrics.json").read_text())
    assert [(s["method"], s["n"]) for s in scores] == [
        ("mask_volume", 4),
        ("nearest_view", 4),
        ("single_plane", 4),
    ]
    for name in ("psnr", "psnr_dynamic", "psnr_static", "flicker"):
        assert name in out
        assert scores[0]["means"][name] is not None

    film = ["--data", mini / "frames", "--background", mini / "background", "--indices", "0", "1"]
    form = ["--format", "png", "mp4", "--mpi", "html", "llff", "--frames", "3", "--fps", "6"]
    code, out, errors = run("video_script.py", *words, *film, *form, "-s", "film")
    assert code == 0, errors
    for name in ("planes.html", "mpi/metadata.txt", "mpi/mpi.b", "qual_path.mp4", "qual_path"):
        assert f"film/{name}\n" in out
    assert len(list((tmp_path / "film/qual_path").iterdir())) == 3
    movie = iio.imread(tmp_path / "film/qual_path.mp4", plugin="FFMPEG")
    assert len(movie) == 3
    assert iio.immeta(tmp_path / "film/qual_path.mp4", plugin="FFMPEG")["fps"] == 6

    stored = ["-i", "film/mpi", "--path", "orbit", "--frames", "2", "--format", "png", "--mpi"]
    code, out, errors = run("video_script.py", *MASK, *TINY, *stored, "-s", "again")
    assert code == 0, errors
    photo = np.asarray(Image.open(tmp_path / "again/orbit/00000.png"))
    assert photo.shape == (22, 40, 3)  # with the margins
    assert photo.std() > 10
    assert not (tmp_path / "again/planes.html").exists()


@pytest.fixture
def frames(run: Run, tmp_path: Path) -> Path:
    """Four cameras, three moments, with plates beside them; weights are an original's file."""
    write_weights(tmp_path / "configs/mask_volume/original/iter_1/weights.ckpt")
    return write_frame_folders(make_clip(4, 3), tmp_path / "clip" / "frames")


def write_weights(path: Path) -> None:
    write_original(tiny_method(tiny_config(**AS_PUBLISHED)), path)


FILM = [*ORIGINAL, *TINY, "-r", "1", "-s", "film", "--path", "x_axis", "--frames", "3", "--format", "png"]


def test_an_originals_weights_film_a_clip_by_the_originals_flags(
    run: Run, frames: Path, tmp_path: Path
) -> None:
    words = ["--data", frames, "--indices", "2", "1", "--start", "1", "--end", "3"]
    code, out, errors = run("video_script.py", *FILM, *words)
    assert code == 0, errors
    shown = sorted(path.name for path in (tmp_path / "film/x_axis").iterdir())
    assert shown == ["00000.png", "00001.png", "00002.png"]
    assert "film/planes.html\n" in out
    record = json.loads((tmp_path / "film/x_axis.json").read_text())
    assert [frame["render_time"] for frame in record["camera_path"]] == [0, 1, 0]


def test_a_path_behind_all_planes_is_one_line(run: Run, frames: Path, tmp_path: Path) -> None:
    """The planes end at twice the far bound, 26: the third pose stands behind them."""
    cameras = stack_cameras([make_clip(4, 3).cameras[1]] * 3)
    c2w = cameras.c2w.clone()
    c2w[2, 2, 3] = 40
    write_rig_path(replace(cameras, c2w=c2w), tmp_path / "deep.txt")
    code, _, errors = run("video_script.py", *FILM, "--data", frames, "--path", "deep.txt")
    assert code == 2
    assert "frame 2 of the path: all 4 planes lie behind target camera 0 of 1: it stands at depth" in errors
    assert "move the path back" in errors
    assert len(errors.splitlines()) == 1
    assert not list(tmp_path.glob("film/deep*"))


def no_background(frames: Path) -> None:
    shutil.rmtree(frames.parent / "background")


def one_camera(frames: Path) -> None:
    for photo in frames.glob("*/images/*.png"):
        if photo.stem != "000":
            photo.unlink()
    for plate in frames.parent.glob("background/*.png"):
        if plate.stem != "cam00":
            plate.unlink()
    for file in frames.glob("*/poses_bounds.npy"):
        np.save(file, np.load(file)[:1])


def other_sizes(frames: Path) -> None:
    for photo in frames.glob("*/images/002.png"):
        write_image(np.zeros((12, 20, 3), np.uint8), photo)


def a_frame_short(frames: Path) -> None:
    (frames / "00001/images/003.png").unlink()


def wrong_columns(frames: Path) -> None:
    for file in frames.glob("*/poses_bounds.npy"):
        np.save(file, np.load(file)[:, :15])


def plates_of_three(frames: Path) -> None:
    (frames.parent / "background/cam03.png").unlink()


@pytest.mark.parametrize(
    ("spoil", "words", "message"),
    [
        (None, ["--indices", "4", "5"], "names camera 4: frames has 4, numbered from 0"),
        (None, ["--indices", "0"], "names 1 cameras, the model takes 2"),
        (None, ["--indices", "0", "0"], "name a camera twice"),
        (None, ["--start", "3"], "frames has 3 moments: start 3"),
        (None, ["--background", "nowhere"], "nowhere does not exist"),
        (no_background, [], "the source views have no plates (background): make them with scripts/rig.py"),
        (plates_of_three, [], "background holds 3 images for 4 cameras"),
        (one_camera, [], "has 1 camera: a rig needs at least 2"),
        (other_sizes, [], "films in 20x12, 000 in 16x12: bring the cameras of a rig to one size"),
        (a_frame_short, [], "00001/images holds 3 images"),
        (wrong_columns, [], "poses_bounds.npy"),
    ],
)
def test_bad_clips_are_one_line(
    run: Run,
    frames: Path,
    tmp_path: Path,
    spoil: Callable[[Path], None] | None,
    words: list[str],
    message: str,
) -> None:
    if spoil is not None:
        spoil(frames)
    code, _, errors = run("video_script.py", *FILM, "--data", frames, *words)
    assert code == 2
    assert message in errors
    assert len(errors.splitlines()) == 1
    assert not list(tmp_path.glob("film/*.png"))


def test_cameras_that_film_unequal_times_are_one_line(run: Run, tmp_path: Path) -> None:
    write_weights(tmp_path / "configs/mask_volume/original/iter_1/weights.ckpt")
    clip = make_clip(3, 3)
    root = write_camera_folders(clip, tmp_path / "clip")
    (root / "cam01/00002.png").unlink()
    code, _, errors = run("test.py", *ORIGINAL, *TINY, "-r", "1", "-s", "./scores", f"data.root={root}")
    assert code == 2
    assert "cam01 holds 2 frames" in errors
    assert len(errors.splitlines()) == 1
    write_image(clip.photos[1][2], root / "cam01/00002.png")
    np.save(root / "poses_bounds.npy", pose_rows(clip)[:2])
    code, _, errors = run("test.py", *ORIGINAL, *TINY, "-r", "1", "-s", "./scores", f"data.root={root}")
    assert code == 2
    assert "has 2 rows for 3 cameras" in errors


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([*MASK], "name its checkpoint with training.init_from=FOLDER"),
        ([*MASK, "training.init_from=nowhere"], "nowhere is not a checkpoint folder"),
        ([*MPI, "model.loss.name=full_loss"], "full_loss needs a mask volume: it is for stage mask"),
        ([*MPI, "model.planes=1"], "model.planes is 1: it must be at least 2"),
        ([*MPI, "model.augment.crop=20"], "photos of 24x16 are smaller than model.augment.crop=20"),
        ([*MPI, "data.root=nowhere"], "nowhere"),
        ([*MPI, "data.rig.cameras=2"], "has 2 cameras: training takes 3"),
    ],
)
def test_trainings_that_cannot_be_are_one_line(run: Run, words: list[str], message: str) -> None:
    code, _, errors = run("train.py", *words[:2], *TINY, *QUICK, *words[2:], "--output_dir", "out")
    assert code == 2
    assert message in errors
    assert len(errors.splitlines()) == 1


def test_clips_without_plates_train_stage_one_alone(run: Run, tmp_path: Path) -> None:
    root = write_camera_folders(replace(make_clip(3, 2, 16, 24), plates=None, mattes=None), tmp_path / "bare")
    words = [*TINY, *QUICK, f"data.root={root}", "training.preview_every=0"]
    code, _, errors = run("train.py", *MPI, *words, "--output_dir", "one")
    assert code == 0, errors
    begun = ["--output_dir", "two", "training.init_from=one/iter_2"]
    code, _, errors = run("train.py", *MASK, *words, *begun)
    assert code == 2
    assert "has no plates (background): make them with scripts/rig.py background" in errors
    assert len(errors.splitlines()) == 1


def test_stage_one_is_not_shown_with_a_mask_it_lacks(run: Run, frames: Path, tmp_path: Path) -> None:
    folder = tmp_path / "configs/mask_volume/original/iter_1"
    write_original(tiny_method(tiny_config("mpi", **AS_PUBLISHED)), folder / "weights.ckpt")
    code, _, errors = run("video_script.py", *FILM, "--data", frames)
    assert code == 2
    assert "the checkpoint is of stage mpi and has no mask network" in errors
    code, _, errors = run("video_script.py", *FILM, "--data", frames, "model.stage=mpi")
    assert code == 0, errors
