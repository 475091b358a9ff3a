"""scripts/rig.py from the command line: from videos to an archive and a path, and bad input."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from dataloader.images import read_image, write_image
from dataloader.rig.archives import open_archive
from dataloader.rig.folders import open_frames
from dataloader.rig.prepare.frames import RigFrames
from dataloader.rig.prepare.poses import PoseOptions
from geometry.rig_path_files import read_rig_path
from tests.dataloader.rig.prepare.makers import (
    counting_frames,
    write_calibration,
    write_frames,
    write_poses,
    write_video,
)

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(call_main: Run) -> Run:
    """Call the script's main in this process: exit code, stdout, stderr."""
    return partial(call_main, "scripts/rig.py")


@pytest.fixture
def refuse(run: Run) -> Callable[..., str]:
    """Call the script, which must end with code 2 and one line; returns that."""

    def call(*words: str | Path) -> str:
        code, _, stderr = run(*words)
        errors = [line for line in stderr.splitlines() if line.startswith("error: ")]
        assert (code, len(errors)) == (2, 1), stderr
        return errors[0]

    return call


def test_from_videos_to_an_archive_and_a_path(run: Run, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rooms = [rng.integers(60, 200, (4, 6, 3)).astype(np.uint8).repeat(12, 0).repeat(12, 1) for _ in range(2)]
    for camera, room in enumerate(rooms):
        frames = np.repeat(room[None], 12, axis=0)
        for moment, frame in enumerate(frames):  # a white block that crosses
            frame[12:30, 5 * moment : 5 * moment + 10] = 255
        write_video(tmp_path / f"videos/gopro{camera}.mp4", frames)
    clip = tmp_path / "clip"
    code, out, err = run("from-videos", tmp_path / "videos", clip, "--step", "2", "--png")
    assert (code, "2 cameras" in out) == (0, True), err
    assert json.loads((clip / "run.json").read_text())["config"]["step"] == 2
    write_poses(clip, 2, (48, 72))
    code, out, _ = run("background", clip)
    assert (code, "2 plates made, 0 there already, of 6 frames each" in out) == (0, True)
    error = np.abs(read_image(clip / "background/cam01.png").astype(int) - rooms[1])
    assert np.median(error) < 4
    assert (error.max(-1) > 30).mean() < 0.05
    code, out, _ = run("mattes", clip)
    assert (code, "12 mattes made" in out) == (0, True)
    assert {path.name for path in (clip / "foreground").iterdir()} >= {"cam00", "cam01", "run.json"}
    code, out, _ = run("pack", clip, "--folder", tmp_path / "h5/train", "--size", "36", "24")
    assert (code, "scene000.h5: 2 cameras, 6 frames, with mattes" in out) == (0, True)
    packed = open_archive(tmp_path / "h5/train/scene000.h5")
    assert (packed.size, len(packed)) == ((24, 36), 6)
    foreground = packed.record(0, 3).load_foreground()
    assert foreground is not None
    assert foreground[8:13, 16:19].all()  # the block of frame 6, at columns 30 to 40 of 72
    assert foreground.mean() < 0.2
    code, out, _ = run("from-frames", clip, clip / "frames", "--range", "2", "5", "--path")
    assert (code, "3 frame folders made" in out) == (0, True)
    assert len(open_frames(clip / "frames")) == 3
    assert len(read_rig_path(clip / "frames/00002/qual_path.txt")) == 270
    code, out, _ = run("path", clip / "frames", tmp_path / "p.npy", "--spiral", "--input", "--frames", "5")
    assert (code, "22 cameras" in out) == (0, True)


def test_calibration_is_given_its_options(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def calibrate(rig: RigFrames, out: Path, options: PoseOptions) -> dict[str, str]:
        calls.append((rig.names, out, options))
        return {"poses": "focal lengths", "cameras": "reprojection error"}

    monkeypatch.setattr("dataloader.rig.prepare.poses.calibrate", calibrate)
    rig = write_frames(tmp_path / "rig")
    code, out, _ = run("calibrate", rig, "--frames", "0", "2", "--focal", "300.5", "--refine_focal")
    assert (code, "poses_bounds.npy: focal lengths; reprojection error" in out) == (0, True)
    names = ["cam00", "cam01", "cam02"]
    assert calls == [(names, rig / "poses_bounds.npy", PoseOptions((0, 2), (300.5,), True))]
    assert "figures" in json.loads((rig / "calibration/run.json").read_text())["config"]


def test_undistorted_frames(run: Run, refuse: Callable[..., str], tmp_path: Path) -> None:
    write_frames(tmp_path / "raw", count=2, moments=2, size=(24, 32))
    entry = {"K": [[16.0, 0, 15.5], [0, 16, 11.5], [0, 0, 1]], "D": [0, 0, 0, 0], "width": 32, "height": 24}
    calibration = write_calibration(tmp_path / "c.json", [entry] * 2)
    words = ("undistort", tmp_path / "raw", tmp_path / "out", "--calibration", calibration)
    code, out, _ = run(*words, "--fov", "60", "--size", "16", "12", "--quality", "80")
    assert (code, "4 frames made" in out) == (0, True)
    assert read_image(tmp_path / "out/cam01/00001.jpg").shape == (12, 16, 3)
    one = write_calibration(tmp_path / "one.json", [entry])
    assert "calibrates 1 cameras, there are 2" in refuse(*words[:3], "--calibration", one)
    assert "--quality 101" in refuse(*words, "--quality", "101")


def test_videos_that_cannot_be_used(refuse: Callable[..., str], tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    write_video(videos / "a.mp4", counting_frames(4))
    assert "at least 2 cameras" in refuse("from-videos", videos, tmp_path / "out")
    write_video(videos / "b.mp4", counting_frames(6))
    assert "different numbers of frames (cam00 4, cam01 6)" in refuse("from-videos", videos, tmp_path / "out")
    assert "give --calibration" in refuse("from-videos", videos, tmp_path / "out", "--size", "4", "4")
    (videos / "b.mp4").write_bytes((videos / "b.mp4").read_bytes()[:700])
    assert "b.mp4 is not a readable video" in refuse("from-videos", videos, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_rigs_that_cannot_be_used(refuse: Callable[..., str], tmp_path: Path) -> None:
    rig = write_frames(tmp_path / "rig")
    assert "no background plates" in refuse("pack", rig, tmp_path / "a.h5")
    assert "no background plate cam00.png" in refuse("mattes", rig)
    assert "--folder" in refuse("pack", rig)
    assert "ends in .h5" in refuse("pack", rig, tmp_path / "a.zip")
    np.save(rig / "poses_bounds.npy", np.zeros((3, 15)))
    line = "has shape (3, 15), poses and bounds are [photos, 17]"
    assert line in refuse("from-frames", rig, tmp_path / "out")
    assert line in refuse("path", rig, tmp_path / "p.txt")
    write_image(np.zeros((5, 5, 3), np.uint8), rig / "cam01/00000.png")
    assert "cameras of a rig must have one size" in refuse("from-frames", rig, tmp_path / "out")
    (rig / "cam01/00000.png").unlink()
    assert "different numbers of frames" in refuse("background", rig)
    shutil.rmtree(rig / "cam01")
    shutil.rmtree(rig / "cam02")
    assert "has one camera" in refuse("from-frames", rig, tmp_path / "out")
    assert "1 cameras: poses are estimated from 3" in refuse("calibrate", rig, "--out", tmp_path / "p.npy")
    assert "holds no camera folder" in refuse("background", tmp_path)
    assert not (tmp_path / "out").exists()
