"""test.py and video_script.py on clips of a rig, under the baselines."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
import pytest
from PIL import Image

from dataloader.rig.clip import Clip
from tests.dataloader.rig.makers import make_clip, write_camera_folders

PAIR = "data.rig.sources=[0,1]"
NEAREST, PLANE = ("-e", "configs/baselines/nearest_view"), ("-e", "configs/baselines/single_plane")


def _errors(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("error: ")]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three cameras, four moments of noise, without mattes."""
    made = make_clip(3, 4, 24, 32)
    made.mattes = None
    return write_camera_folders(made, tmp_path_factory.mktemp("clips") / "noise")


def test_baselines_in_one_table_by_region(call_main: Any, parity_data: Path, tmp_path: Path) -> None:
    words = ["--compare", "mean_view,single_plane", f"data.root={parity_data}/mvcam_mini", PAIR]
    code, out, error = call_main("test.py", *NEAREST, "-s", tmp_path, "data.rig.end=3", *words)
    assert code == 0, error
    summaries = json.loads((tmp_path / "metrics.json").read_text())
    assert [(s["method"], s["scenes"], s["n"]) for s in summaries] == [
        (name, 3, 6) for name in ("nearest_view", "mean_view", "single_plane")
    ]
    head, *lines = out.splitlines()
    for name in ("psnr_dynamic", "psnr_static", "psnr_disoccluded", "psnr_recoverable", "flicker"):
        assert name in head
        assert all(summary["means"][name] is not None for summary in summaries)
    assert len(lines) == 3 + 4
    means = {s["method"]: s["means"] for s in summaries}
    assert means["single_plane"]["psnr_covered"] > means["nearest_view"]["psnr_covered"] + 2
    assert means["single_plane"]["flicker"] < means["nearest_view"]["flicker"]
    assert summaries[0]["pooled"]["pooled_pixels"]["psnr_recoverable_pooled"] > 100
    assert (tmp_path / "generations/00002/cam03.png").is_file()
    assert Image.open(tmp_path / "sheet.png").width > 1000


def test_renders_of_the_clips_own_path_score_as_the_data_says(
    call_main: Any, parity_data: Path, tmp_path: Path
) -> None:
    """The yardstick 'copy of the nearest source' of data/mvcam_mini, from PNG frames numbered by the path."""
    folder = parity_data / "mvcam_mini"
    words = [f"data.root={folder}/frames", PAIR, "--format", "png", "mp4", "gif", "--at_once", "3"]
    code, out, error = call_main("video_script.py", *NEAREST, "-s", tmp_path, *words)
    assert code == 0, error
    assert f"{tmp_path}/qual_path\n" in out
    spec = importlib.util.spec_from_file_location("mini_score", folder / "score.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    scores = script.score(str(folder), str(tmp_path / "qual_path"))
    # of the first view both sources are as near
    expected = {"beyond_cam01": 18.18, "beyond_cam00_up": 20.01, "between_forward": 18.62}
    assert {name: scores["all"][name] for name in expected} == pytest.approx(expected, abs=0.02)
    frames = sorted(path.name for path in (tmp_path / "qual_path").iterdir())
    assert frames == [f"{i:05d}.png" for i in range(24)]
    movie = iio.imread(tmp_path / "qual_path.mp4", plugin="FFMPEG")
    assert movie.shape == (24, 72, 128, 3)
    still = np.asarray(Image.open(tmp_path / "qual_path/00009.png")).astype(float)
    assert np.abs(movie[9] - still).mean() < 6 < np.abs(movie[11] - still).mean()
    assert iio.immeta(tmp_path / "qual_path.mp4", plugin="FFMPEG")["fps"] == 30
    with Image.open(tmp_path / "qual_path.gif") as gif:
        assert gif.n_frames == 24
    times = [f["render_time"] for f in json.loads((tmp_path / "qual_path.json").read_text())["camera_path"]]
    assert times == [i % 6 for i in range(24)]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    # the record of the path makes the same video
    again = ["--path", tmp_path / "qual_path.json", "--format", "png", words[0], PAIR]
    code, _, error = call_main("video_script.py", *NEAREST, "-s", tmp_path / "again", *again)
    assert code == 0, error
    for name in ("00004.png", "00021.png"):
        first, second = (Image.open(place / "qual_path" / name) for place in (tmp_path, tmp_path / "again"))
        assert first.tobytes() == second.tobytes()


def test_smaller_photos_make_smaller_videos(call_main: Any, parity_data: Path, tmp_path: Path) -> None:
    root = f"data.root={parity_data}/mvcam_mini/frames"
    words = ["-s", tmp_path, "--frames", "3", "--format", "png", root, PAIR, "data.max_size=64"]
    code, _, error = call_main("video_script.py", *PLANE, *words)
    assert code == 0, error
    small = np.asarray(Image.open(tmp_path / "qual_path/00002.png")).astype(float)
    assert small.shape == (36, 64, 3)
    truth = Image.open(parity_data / "mvcam_mini/novel/view00/00002.png").resize(
        (64, 36), Image.Resampling.BOX
    )
    error = np.abs(small - np.asarray(truth))[4:-4, 6:-6].mean()
    assert error < 12  # cameras that were not scaled with the photos are off by far more


def test_what_a_clip_lacks_is_said_and_not_scored(call_main: Any, clip: Path, tmp_path: Path) -> None:
    code, out, error = call_main("test.py", *NEAREST, "-s", tmp_path, f"data.root={clip}", PAIR)
    assert code == 0, error
    assert "psnr_dynamic" not in out
    summary = json.loads((tmp_path / "metrics.json").read_text())[0]
    assert summary["n"] == 4
    assert "no mattes" in summary["missing"]["flicker"]
    assert "flicker" not in summary["means"]


def test_several_clips_have_a_folder_each(call_main: Any, clip: Path, tmp_path: Path) -> None:
    write_camera_folders(make_clip(3, 2, 24, 32, seed=1), tmp_path / "in/second")
    write_camera_folders(make_clip(3, 3, 24, 32, seed=2), tmp_path / "in/first")
    words = ["-s", tmp_path / "out", "--path", "x_axis", "circle", "--frames", "5", "--format", "png"]
    root = f"data.root={tmp_path}/in"
    code, _, error = call_main("video_script.py", *NEAREST, *words, "--scenes", "second", "0", root, PAIR)
    assert code == 0, error
    for name in ("first", "second"):
        assert len(list((tmp_path / "out" / name / "circle").iterdir())) == 5
        assert (tmp_path / "out" / name / "x_axis.json").is_file()


@pytest.mark.parametrize(
    ("experiment", "script", "words", "message"),
    [
        (NEAREST, "video_script.py", ["--path", "helix"], "unknown path 'helix' of a rig"),
        (NEAREST, "video_script.py", ["--source_views", "0", "7"], "noise has 3 cameras"),
        (NEAREST, "video_script.py", ["--scenes", "castle"], "--scenes castle"),
        (NEAREST, "test.py", ["data.rig.sources=[0,5]"], "names camera 5"),
        (NEAREST, "test.py", ["--compare", "photo_blend"], "made for a single scene"),
        (("-e", "configs/baselines/photo_blend"), "test.py", [], "holds clips"),
    ],
)
def test_bad_input_is_one_line(
    call_main: Any,
    clip: Path,
    tmp_path: Path,
    experiment: tuple[str, str],
    script: str,
    words: list[str],
    message: str,
) -> None:
    code, _, error = call_main(script, *experiment, "-s", tmp_path / "out", f"data.root={clip}", *words)
    assert code == 2
    assert len(_errors(error)) == 1
    assert message in error
    assert not (tmp_path / "out/metrics.json").exists()
    assert not list(tmp_path.rglob("*.png"))


def test_two_cameras_can_be_filmed_though_nothing_can_be_scored(call_main: Any, tmp_path: Path) -> None:
    pair: Clip = make_clip(2, 2, 24, 32)
    root = f"data.root={write_camera_folders(pair, tmp_path / 'pair')}"
    words = ["-s", tmp_path / "out", "--path", "x_axis", "--frames", "3", "--format", "gif", root]
    code, _, error = call_main("video_script.py", *NEAREST, *words)
    assert code == 0, error
    assert (tmp_path / "out/x_axis.gif").is_file()
    code, _, error = call_main("test.py", *NEAREST, "-s", tmp_path / "test", root)
    assert code == 2
    assert len(_errors(error)) == 1
