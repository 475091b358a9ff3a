"""scripts/megascenes.py from the command line."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from dataloader.images import write_image

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(call_main: Run) -> Run:
    """Call the script's main in this process: exit code, stdout, stderr."""
    return partial(call_main, "scripts/megascenes.py")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A split file of six pairs of three photos in the bucket's layout, with depth."""
    rng = np.random.default_rng(0)
    (tmp_path / "photos/metadata").mkdir(parents=True)
    (tmp_path / "photos/metadata/categories.json").write_text('{"A_Place": 12345}')
    for number in range(3):
        place = f"images/012/345/commons/A_Place/0/pictures/No_{number}.jpg"
        write_image(rng.integers(0, 256, (48, 64, 3), np.uint8), tmp_path / "photos" / place)
        depth = (tmp_path / "depths" / place).with_suffix(".npy")
        depth.parent.mkdir(parents=True, exist_ok=True)
        np.save(depth, np.full((24, 32), 2.0, np.float32))
    paths = [f"/x/main/images/A_Place/commons/A_Place/0/pictures/No {n}.jpg" for n in range(3)]
    cameras = [
        {"extrinsics": [1.0, 0, 0, 0, n / 50, 0, 0], "intrinsics": ["SIMPLE_PINHOLE", 64, 48, "60", 32, 24]}
        for n in range(3)
    ]
    pairs = [[paths[i], paths[j], cameras[i], cameras[j], 2.0] for i in range(3) for j in range(3) if i != j]
    (tmp_path / "split.pkl").write_bytes(pickle.dumps(pairs))
    return tmp_path


def test_from_split_file_to_warps(run: Run, folder: Path) -> None:
    table, warps = folder / "pairs.safetensors", folder / "warps"
    code, out, _ = run("convert-pairs", folder / "split.pkl", table)
    assert (code, "6 pairs of 3 photos" in out) == (0, True)
    places = (table, folder / "photos", folder / "depths", warps)
    code, out, _ = run("prepare-warps", *places, "--shard", "0/2", "--max_size", "32")
    assert (code, "4 warps made, 0 there already, 0 failed" in out) == (0, True)
    code, out, _ = run("prepare-warps", *places, "--max_size", "32", "--alpha", "False")
    assert (code, "2 warps made, 4 there already, 0 failed" in out) == (0, True)
    assert len(list(warps.glob("*.png"))) == 6


def test_failures_are_told_and_limited(run: Run, folder: Path) -> None:
    next((folder / "depths").rglob("No_1.npy")).unlink()
    words = ("prepare-warps", folder / "split.pkl", folder / "photos", folder / "depths", folder / "warps")
    code, out, err = run(*words)
    assert (code, "4 warps made, 0 there already, 2 failed" in out) == (0, True)
    assert err.count("No_1.npy does not exist") == 2
    code, _, err = run(*words, "--max_failures", "0")
    assert code == 2
    assert "error: 2 pairs failed, more than --max_failures 0" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["convert-pairs", "{}/split.pkl", "{}/pairs.pkl"], "ends in .safetensors"),
        (["convert-pairs", "{}/missing.pkl", "{}/pairs.safetensors"], "missing.pkl cannot be read"),
        (
            ["prepare-warps", "{}/split.pkl", "{}/photos", "{}/depths", "{}/out", "--shard", "2"],
            "write it as",
        ),
        (
            ["prepare-warps", "{}/split.pkl", "{}/photos", "{}/depths", "{}/out", "--shard", "2/2"],
            "shard 2/2",
        ),
        (["prepare-warps", "{}/split.pkl", "{}/nowhere", "{}/depths", "{}/out"], "nowhere is no folder"),
        (["align-depth", "{}/depths", "{}/photos", "{}/out"], "cameras.txt"),
    ],
)
def test_bad_input_is_one_line(run: Run, folder: Path, words: list[str], message: str) -> None:
    code, _, err = run(*(word.replace("{}", str(folder)) for word in words))
    assert code == 2
    assert [message in line for line in err.splitlines() if line.startswith("error: ")] == [True]


@pytest.mark.parametrize("words", [[], ["convert-pairs"], ["align-depth"], ["prepare-warps"]])
def test_help_has_examples(run: Run, words: list[str]) -> None:
    code, out, _ = run(*words, "--help")
    assert code == 0
    assert "examples:\n  python scripts/megascenes.py convert-pairs" in out
