"""Checked entries, and the table on disk."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from common.errors import UserError
from dataloader.megascenes.entries import colmap_c2w, parse_entry
from dataloader.megascenes.pair_table import collect_pairs, open_pairs, write_pairs
from geometry.poses import matrix_from_quaternion

MODELS = {
    "SIMPLE_PINHOLE": (["SIMPLE_PINHOLE", 64, 48, "50", 32, 24], [50, 50, 32, 24]),
    "PINHOLE": (["PINHOLE", 64, 48, 50, "51.5", 32, 24], [50, 51.5, 32, 24]),
    "SIMPLE_RADIAL": (["SIMPLE_RADIAL", "64", "48", 50, 32, 24, 0.1], [50, 50, 32, 24]),
}


@pytest.mark.parametrize("model", MODELS)
def test_camera_models(entry: Callable, model: str) -> None:
    raw, params = MODELS[model]
    camera = parse_entry(entry(intrinsics=raw), "entry 0").source.camera()
    assert (camera.height, camera.width) == (48, 64)
    assert camera.K.tolist() == [[params[0], 0, params[2]], [0, params[1], params[3]], [0, 0, 1]]


def test_poses_are_colmaps() -> None:
    generator = torch.Generator().manual_seed(0)
    quaternion = torch.nn.functional.normalize(
        torch.randn(4, generator=generator, dtype=torch.float64), dim=0
    )
    pose = colmap_c2w([*quaternion.tolist(), 1.0, 2.0, 3.0])
    rotation = matrix_from_quaternion(quaternion)
    torch.testing.assert_close(pose[:3, :3], rotation.T)
    torch.testing.assert_close(pose[:3, 3], -rotation.T @ torch.tensor([1.0, 2, 3], dtype=torch.float64))


def test_the_scale_may_be_missing_or_a_text(entry: Callable) -> None:
    assert math.isnan(parse_entry(entry()[:4], "entry 0").scale)
    assert parse_entry(entry(scale="0.5"), "entry 0").scale == 0.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e: e[:3], "no pair"),
        (lambda e: [7, *e[1:]], "no path"),
        (lambda e: ["a/b.jpg", *e[1:]], "no path"),
        (lambda e: [*e[:2], {}, *e[3:]], "lacks"),
        (lambda e: [*e[:4], "much"], "no list of numbers"),
        (lambda e: [*e[:4], -1], "negative"),
        (lambda e: [*e[:4], math.inf], "finite"),
        (
            lambda e: [*e[:2], {**e[2], "intrinsics": ["FISHEYE", 64, 48, 1, 2, 3]}, *e[3:]],
            "camera model 'FISHEYE'",
        ),
        (lambda e: [*e[:2], {**e[2], "intrinsics": ["PINHOLE", 64, 48, 1]}, *e[3:]], "6 finite numbers"),
        (
            lambda e: [*e[:2], {**e[2], "intrinsics": ["SIMPLE_PINHOLE", 64, 48, -5, 1, 1]}, *e[3:]],
            "impossible",
        ),
        (lambda e: [*e[:2], {**e[2], "extrinsics": [2, 0, 0, 0, 0, 0, 0]}, *e[3:]], "quaternion"),
        (lambda e: [*e[:2], {**e[2], "extrinsics": [1, 0, 0, 0, math.nan, 0, 0]}, *e[3:]], "finite"),
    ],
)
def test_bad_entries_are_named(entry: Callable, change: Callable, message: str) -> None:
    with pytest.raises(UserError, match=f"split: entry 1.*{message}"):
        collect_pairs([entry(), change(entry())], "split")


def test_a_table_holds_what_the_pickle_held(tmp_path: Path, entry: Callable) -> None:
    raw = [entry(i, j, scale=i + j / 10) for i in range(4) for j in range(4) if i != j] + [entry()[:4]]
    raw.append(entry(0, 1, category="Schloß Füßen"))
    (tmp_path / "split.pkl").write_bytes(pickle.dumps(raw))
    table = open_pairs(tmp_path / "split.pkl")
    write_pairs(table, tmp_path / "split.safetensors")
    mapped = open_pairs(tmp_path / "split.safetensors")
    assert isinstance(mapped.columns["photos"], np.memmap)
    assert len(mapped) == len(raw)
    for row, item in enumerate(raw):
        assert str(mapped.entry(row)) == str(parse_entry(item, "it"))
    assert len(mapped.columns["text_end"]) == 6  # every photo once
    sent = pickle.dumps(mapped)
    assert len(sent) < 300  # its name, not its numbers
    assert pickle.loads(sent).entry(3) == mapped.entry(3)
    assert pickle.loads(pickle.dumps(table)).entry(3) == mapped.entry(3)
    with pytest.raises(IndexError):
        mapped.entry(len(raw))


def test_a_damaged_table_is_refused(tmp_path: Path, entry: Callable) -> None:
    path = tmp_path / "split.safetensors"
    write_pairs(collect_pairs([entry(), entry(1, 2)], "split"), path)
    data = path.read_bytes()
    for length in (0, 4, 20, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(UserError, match=r"split\.safetensors is cut off"):
            open_pairs(path)
    path.write_bytes(data.replace(b"image-pairs-1", b"image-pairs-9"))
    with pytest.raises(UserError, match="cut off or no table"):
        open_pairs(path)
    with pytest.raises(UserError, match="cannot be read"):
        open_pairs(tmp_path / "missing.safetensors")
    with pytest.raises(UserError, match=r"\.pkl"):
        open_pairs(tmp_path / "split.txt")


def test_no_pairs_is_an_error() -> None:
    with pytest.raises(UserError, match="no pairs"):
        collect_pairs([], "split")
