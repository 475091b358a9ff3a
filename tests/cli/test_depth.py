"""scripts/depth.py from the command line."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from dataloader.depth.teacher import open_depth_test_set, open_hole_masks, open_teacher_photos
from tests.dataloader.depth.files import (
    relief,
    write_marigold,
    write_mats,
    write_npy,
    write_photo,
    write_sync,
)

Run = Callable[..., tuple[int, str, str]]
QUICK = ("--steps", "2", "--ensemble", "1", "--resolution", "32")


@pytest.fixture
def run(call_main: Run) -> Run:
    """Call the script's main in this process: exit code, stdout, stderr."""
    return partial(call_main, "scripts/depth.py")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_marigold(tmp_path_factory.mktemp("marigold"))


def test_from_photos_to_training_data(run: Run, teacher: Path, tmp_path: Path) -> None:
    write_sync(tmp_path / "sync", 480, 640)
    words = ("--dataset", "nyu", "--root", tmp_path / "sync", "--out_path", tmp_path / "teacher")
    model = ("--model", teacher, *QUICK)
    code, out, _ = run("predict-teacher", *words, *model, "--categories", "study")
    assert (code, "2 depth maps made, 0 there already, 0 failed" in out) == (0, True)
    first = np.load(tmp_path / "teacher/study/rgb_00000.npy")
    (tmp_path / "teacher/study/rgb_00000.npy").unlink()
    code, out, _ = run("predict-teacher", *words, *model)
    assert (code, "3 depth maps made, 1 there already, 0 failed" in out) == (0, True)
    np.testing.assert_array_equal(np.load(tmp_path / "teacher/study/rgb_00000.npy"), first)
    photos = open_teacher_photos(tmp_path / "sync", tmp_path / "teacher")
    assert len(photos) == 4
    depth = photos.load(0)[1]
    assert depth[:8].max() == depth[:, 632:].max() == 0
    assert 0 <= depth.min() < depth[8:472, 8:632].max() <= 1
    code, out, _ = run(
        "project-masks", "--depth_root", tmp_path / "teacher", "--out_path", tmp_path / "masks"
    )
    assert (code, "4 masks made, 0 there already, 0 failed" in out) == (0, True)
    assert open_hole_masks(tmp_path / "masks").load(0).shape == (480, 640)


def test_whole_photos_get_depth(run: Run, teacher: Path, tmp_path: Path) -> None:
    write_photo(tmp_path / "places/alley/00000001.jpg", 0, 30, 44)
    words = ("--dataset", "places", "--root", tmp_path / "places", "--out_path", tmp_path / "depth")
    code, _, _ = run("predict-teacher", *words, "--model", teacher, *QUICK)
    assert code == 0
    assert np.load(tmp_path / "depth/alley/00000001.npy").shape == (30, 44)


def test_the_test_split_is_written(run: Run, tmp_path: Path) -> None:
    labelled, splits = write_mats(tmp_path)
    words = ("--labelled", labelled, "--splits", splits, "--out_path", tmp_path / "test")
    code, out, _ = run("nyu-splits", *words)
    assert (code, "2 test photos made, 0 there already" in out) == (0, True)
    assert len(open_depth_test_set(tmp_path / "test")) == 2


def test_failures_are_told_and_limited(run: Run, tmp_path: Path) -> None:
    for number in range(3):
        write_npy(tmp_path / f"depth/alley/{number}.npy", relief(60, 80) if number else np.zeros(3))
    words = ("project-masks", "--depth_root", tmp_path / "depth", "--out_path", tmp_path / "masks")
    code, out, err = run(*words)
    assert (code, "2 masks made, 0 there already, 1 failed" in out) == (0, True)
    assert "alley/0.npy holds float64 (3,), not floats [height, width]" in err
    code, _, err = run(*words, "--max_failures", "0")
    assert code == 2
    assert "error: 1 files failed, more than --max_failures 0" in err


@pytest.mark.slow
def test_shards_share_the_classes(repo_root: Path, tmp_path: Path) -> None:
    """As jobs of scripts/submit.py, on this machine."""
    for category in ("alley", "attic", "aquarium"):
        write_npy(tmp_path / f"depth/{category}/1.npy", relief(60, 80))
    command = [sys.executable, str(repo_root / "scripts/submit.py"), "--cluster", "local", "--shards", "2"]
    words = ["--depth_root", "depth", "--out_path", "masks"]
    job = [sys.executable, str(repo_root / "scripts/depth.py"), "project-masks", *words]
    environment = {
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": str(repo_root),
        "HOME": str(tmp_path),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [*command, "--logs", "logs", "--", *job],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    logs = "".join(path.read_text() for path in (tmp_path / "logs").rglob("*.out"))
    assert "masks: 2 masks made, 0 there already, 0 failed" in logs
    assert "masks: 1 masks made, 0 there already, 0 failed" in logs
    assert len(open_hole_masks(tmp_path / "masks")) == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["predict-teacher", "--dataset", "nyu", "--root", "{}/no", "--out_path", "{}/o"], "no is no folder"),
        (
            ["predict-teacher", "--dataset", "nyu", "--root", "{}", "--out_path", "{}/o"],
            "holds no file CLASS",
        ),
        (
            [
                *("predict-teacher", "--dataset", "places", "--root", "{}", "--out_path", "{}/o"),
                *("--model", "nowhere"),
            ],
            "nowhere does not exist",
        ),
        (["project-masks", "--depth_root", "{}", "--out_path", "{}/o", "--shard", "2"], "write it as 0/16"),
        (["project-masks", "--depth_root", "{}", "--out_path", "{}/o", "--shard", "2/2"], "from 0 to 1"),
        (["project-masks", "--depth_root", "{}", "--out_path", "{}/o", "--categories", "b"], "no folder b"),
        (["project-masks", "--depth_root", "{}", "--out_path", "{}/o"], "none of the 1 masks could be made"),
        (["nyu-splits", "--labelled", "{}/a", "--splits", "{}/b", "--out_path", "{}/o"], "no list testNdxs"),
    ],
)
def test_bad_input_is_one_line(run: Run, tmp_path: Path, words: list[str], message: str) -> None:
    write_photo(tmp_path / "alley/1.jpg", 0)
    (tmp_path / "alley/1.npy").write_bytes(b"no array")
    code, _, err = run(*(word.replace("{}", str(tmp_path)) for word in words))
    assert code == 2
    assert [message in line for line in err.splitlines() if line.startswith("error: ")] == [True]
    assert "Traceback" not in err
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("words", [[], ["predict-teacher"], ["project-masks"], ["nyu-splits"]])
def test_help_has_examples(run: Run, words: list[str]) -> None:
    code, out, _ = run(*words, "--help")
    assert code == 0
    assert "usage:" in out
    assert "examples:\n  python scripts/download.py hub prs-eth/marigold-depth-v1-0" in out
