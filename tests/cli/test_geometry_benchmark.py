"""scripts/benchmark.py: depth completion on ScanNet, Hypersim and procedural rooms, from files to tables."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from dataloader.toy import make_boxes, make_cameras, render
from geometry.views import Views
from tests.cli.conftest import CallMain
from tests.dataloader.depth.hypersim_writer import SCENE, unknown, write_scene, write_table
from tests.dataloader.depth.sens_writer import from_views

SCRIPT = "scripts/benchmark.py"
COMMANDS = ("profile", "scannet-process", "scannet", "hypersim-pairs", "hypersim", "rooms", "concat")
WARP = Path(__file__).resolve().parents[2] / "configs" / "baselines" / "depth_warp"


@pytest.fixture(autouse=True)
def _on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def results(path: Path) -> list[dict[str, str]]:
    with path.open() as stream:
        return list(csv.DictReader(stream))


@pytest.mark.parametrize("command", COMMANDS)
def test_help(command: str, call_main: CallMain) -> None:
    code, out, err = call_main(SCRIPT, command, "--help")
    assert code == 0, err
    assert "usage:" in out
    assert "examples:" in out


def test_rooms(call_main: CallMain, tmp_path: Path) -> None:
    words = ("rooms", "-e", WARP, "--rooms", 2, "--size", 24, 32, "--out_dir", tmp_path)
    code, out, err = call_main(SCRIPT, *words, "model.max_angle=70")
    assert code == 0, err
    assert [line.split()[:2] for line in out.splitlines()[1:]] == [
        [name, "4"] for name in ("inpainted", "zero", "zero_aligned", "nearest")
    ]
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["models"]["nearest"]["mae"]["mean"] < metrics["models"]["inpainted"]["mae"]["mean"]
    run = json.loads((tmp_path / "run.json").read_text())
    assert run["config"]["experiment"]["model"]["max_angle"] == 70
    assert run["config"]["rooms"] == 2
    assert (tmp_path / "sheet.png").is_file()
    code, out, err = call_main(SCRIPT, "concat", tmp_path)
    assert code == 0, err
    assert [line.split()[0] for line in out.splitlines()[2:]] == list(metrics["models"])


def test_jobs_of_an_array_share_a_folder(call_main: CallMain, tmp_path: Path) -> None:
    for scene in (0, 1):
        words = ("--rooms", 2, "--first_seed", 3, "--size", 24, 32, "--scene_idx", scene)
        code, _, err = call_main(
            SCRIPT, "rooms", *words, "--models", "nearest", "--out_dir", tmp_path, "--legacy"
        )
        assert code == 0, err
    assert {path.name for path in tmp_path.iterdir()} == {
        *("room3", "room3_results.csv", "room4", "room4_results.csv")
    }
    assert (tmp_path / "room4" / "metrics.json").is_file()


def test_scannet_from_sens_to_table(call_main: CallMain, tmp_path: Path) -> None:
    boxes = make_boxes(1)
    views = render(boxes, make_cameras(1, 12, 24, 32, boxes), supersample=1)
    bright = Views(views.images * 0.8 + 0.1, views.cameras, views.depth)
    from_views(bright).write(tmp_path / "scans" / "scene0000_00" / "scene0000_00.sens")
    words = ("scannet-process", tmp_path / "out", "--input_dir", tmp_path / "scans")
    code, out, err = call_main(SCRIPT, *words)
    assert code == 0, err
    assert out.strip() == "scene0000_00: 12 frames unpacked, 0 there already"
    assert "0 frames unpacked, 12 there already" in call_main(SCRIPT, *words)[1]
    words = ("scannet", "-e", WARP, "--scannet_path", tmp_path / "out", "--out_dir")
    models = ("--models", "inpainted", "zero_aligned", "nearest")
    code, out, err = call_main(SCRIPT, *words, tmp_path / "results", *models)
    assert code == 0, err
    (row,) = results(tmp_path / "results" / "scene0000_00_results.csv")
    assert list(row) == ["", "inpainted", "zero_aligned", "nearest"]
    legacy = ("--legacy", "--radius", 0.08, "--initial_offset", 0.37)
    code, _, err = call_main(SCRIPT, *words, tmp_path / "legacy", *models, *legacy)
    assert code == 0, err
    (other,) = results(tmp_path / "legacy" / "scene0000_00_results.csv")
    assert row["nearest"] != other["nearest"]


def test_a_corrupt_scan_is_one_line(call_main: CallMain, tmp_path: Path) -> None:
    path = tmp_path / "scans" / "scene0000_00.sens"
    path.parent.mkdir()
    path.write_bytes(b"\x04\0\0\0" + b"\x03" + bytes(7) + b"abc" + bytes(20))
    code, _, err = call_main(SCRIPT, "scannet-process", tmp_path / "out", "--input_dir", tmp_path / "scans")
    assert code == 2
    line = err.strip().splitlines()[-1]
    assert line.startswith(
        f"error: {path} is cut off or damaged in the header: it needs 292 bytes at byte 15"
    )
    assert not list((tmp_path).rglob("*.tmp"))


def test_hypersim_from_files_to_table(call_main: CallMain, tmp_path: Path) -> None:
    write_scene(tmp_path)
    table = write_table(tmp_path / "cameras.csv")
    places = ("--hypersim_dir", tmp_path, "--metadata_camera_parameters_csv_file", table)
    code, out, err = call_main(SCRIPT, "hypersim-pairs", *places)
    assert code == 0, err
    pairs = results(tmp_path / f"{SCENE}_pairs.csv")
    assert f"{len(pairs)} of 3 pairs" in out
    assert list(pairs[0]) == ["", "scene", "camera", "frame_id", "remaining_frame_id", "overlap"]
    assert all(float(row["overlap"]) >= 0.8 for row in pairs)
    words = ("hypersim", "-e", WARP, *places, "--out_dir", tmp_path / "results", "--scene_idx")
    code, _, err = call_main(SCRIPT, *words, 0, "--models", "inpainted", "nearest")
    assert code == 0, err
    rows = results(tmp_path / "results" / f"{SCENE}_results.csv")
    assert len(rows) == len(pairs)
    code, out, err = call_main(SCRIPT, *words, 1)  # no pinhole
    assert code == 0, err
    assert "ai_001_002 was not rendered by a pinhole camera" in out
    code, _, err = call_main(SCRIPT, *words, 2)
    assert code == 2
    assert "--scene_idx 2: there are 2, counted from 0" in err


def test_a_pair_without_overlap_leaves_nothing_to_score(call_main: CallMain, tmp_path: Path) -> None:
    boxes = make_boxes(1)
    cameras = make_cameras(1, 12, 24, 32, boxes)
    cameras.c2w[10, :3, :3] = cameras.c2w[10, :3, :3] @ torch.diag(torch.tensor([-1.0, 1, -1]).double())
    views = render(boxes, cameras, supersample=1)
    bright = Views(views.images * 0.8 + 0.1, views.cameras, views.depth)
    from_views(bright).write(tmp_path / "scene0000_00.sens")
    code, _, err = call_main(SCRIPT, "scannet-process", tmp_path / "out", "--input_dir", tmp_path)
    assert code == 0, err
    words = ("--scannet_path", tmp_path / "out", "--out_dir", tmp_path / "results", "--models", "nearest")
    code, _, err = call_main(SCRIPT, "scannet", *words)
    assert code == 2
    assert "scene0000_00 0-10 is left out: the views do not overlap" in err
    assert "no pair of 1 scenes could be scored" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("rooms", "--out_dir", "x"), "-e names the experiment folder"),
        (("rooms", "--out_dir", "x", "--models", "best"), "--models best: choose from inpainted"),
        (("rooms", "--out_dir", "x", "--scene_idx", "two"), "neither a number nor 'all'"),
        (("rooms", "--out_dir", "x", "--models", "nearest", "model.fill=True"), "name it with -e"),
        (("scannet", "--out_dir", "x", "--models", "nearest", "--from_estimate"), "--from_estimate needs"),
        (("scannet", "--out_dir", "x", "--models", "nearest", "--scannet_path", "y"), "no processed scan"),
        (("hypersim", "--out_dir", "x", "--models", "nearest"), "metadata_camera_parameters.csv"),
        (("concat", "x"), "holds no *_results.csv"),
    ],
)
def test_bad_input_is_one_line(
    words: tuple[str, ...], message: str, call_main: CallMain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = call_main(SCRIPT, *words)
    assert code == 2
    assert message in err
    assert "Traceback" not in err
    assert not list(tmp_path.iterdir())


def test_a_trained_method_needs_its_checkpoint(call_main: CallMain, repo_root: Path, tmp_path: Path) -> None:
    folder = repo_root / "configs" / "lvsm" / "toy"
    code, _, err = call_main(SCRIPT, "rooms", "-e", folder, "--out_dir", tmp_path / "out")
    assert code == 2
    assert "name its checkpoint with -r" in err


def test_a_method_without_depth_says_so(call_main: CallMain, repo_root: Path, tmp_path: Path) -> None:
    folder = repo_root / "configs" / "baselines" / "nearest_view"
    words = ("--rooms", 1, "--size", 24, 32, "--out_dir", tmp_path / "out")
    code, _, err = call_main(SCRIPT, "rooms", "-e", folder, *words)
    assert code == 2
    assert "nearest_view renders no depth" in err


def test_unknown_truth_does_not_count(call_main: CallMain, tmp_path: Path) -> None:
    views = write_scene(tmp_path)
    assert np.isfinite(views.images).all()
    table = write_table(tmp_path / "cameras.csv")
    lines = [",scene,camera,frame_id,remaining_frame_id,overlap", f"0,{SCENE},cam_00,0,1,0.9"]
    (tmp_path / f"{SCENE}_pairs.csv").write_text("\n".join(lines) + "\n")
    geometry = tmp_path / SCENE / "images" / "scene_cam_00_geometry_hdf5"
    unknown(geometry / "frame.0001.depth_meters.hdf5", slice(0, 24))
    places = ("--hypersim_dir", tmp_path, "--metadata_camera_parameters_csv_file", table)
    words = ("hypersim", *places, "--models", "nearest", "--out_dir", tmp_path / "out")
    code, _, err = call_main(SCRIPT, *words)
    assert code == 2
    assert "nothing of known depth is hidden" in err
    code, _, err = call_main(
        SCRIPT, *words, "--legacy", "--radius", 0.08
    )  # the original scores it as depth 0
    assert code == 0, err
