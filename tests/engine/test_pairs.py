"""Pairs in evaluation: scored on the photo alone, with the warp's coverage as the mask."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from dataloader.pairs import Canvas, Pair
from dataloader.room_pairs import RoomPairs
from engine.config import DataConfig
from engine.evaluator import Evaluator
from engine.metrics import ImageMetrics
from engine.pairs import pair_batch, score_pairs
from engine.reports import write_reports
from engine.set_scores import SetScores, set_scores, write_original_scores
from geometry.cameras import pinhole
from methods.baselines.depth_warp import DepthWarp
from methods.baselines.photos import NearestView


def padded_pair() -> Pair:
    """A 20x32 photo on a canvas of 32, covered in its left half."""
    camera, canvas = pinhole(30.0, 20, 32), Canvas(32, 6, 0, 20, 32)
    target = torch.ones(3, 32, 32)
    canvas.cut(target)[:] = 0.5
    warp, coverage = torch.ones(3, 32, 32), torch.zeros(1, 32, 32)
    canvas.cut(warp)[:] = 0
    canvas.cut(warp)[..., :16], canvas.cut(coverage)[..., :16] = 0.4, 1.0
    return Pair("pair", "scene", target, target, canvas, canvas, camera, camera, 1.0, warp, warp, coverage)


def test_padding_does_not_count() -> None:
    pair = padded_pair()
    image = torch.zeros(3, 32, 32)  # black around the photo, where the target is white
    pair.target_canvas.cut(image)[:] = 0.5
    pair.target_canvas.cut(image)[..., :16] = 0.6
    row = score_pairs(image[None], pair_batch([pair]), ImageMetrics())[0]
    step = torch.tensor([0.6 * 255, 0.5 * 255]).round() / 255
    expected = float(-20 * torch.log10(step[0] - step[1]))
    assert row["psnr_covered"] == pytest.approx(expected, abs=1e-3)
    assert row["psnr"] == pytest.approx(expected + 10 * torch.log10(torch.tensor(2.0)).item(), abs=1e-3)
    assert row["psnr_uncovered"] == float("inf")
    assert row["coverage"] == 0.5


def test_the_canvas_camera_sees_the_photo_where_it_lies() -> None:
    batch = pair_batch([padded_pair()])
    assert (batch.target.cameras.height, batch.target.cameras.width) == (32, 32)
    pixel, _ = batch.target.cameras[0].project(torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64))
    assert pixel[0].tolist() == [16.0, 16.0]


class FewRooms:
    """Six pairs."""

    name = "rooms"

    def split(self, name: str) -> RoomPairs:
        return RoomPairs(6, 700, 32, 16)


def test_evaluating_pairs(tmp_path: Path) -> None:
    data = FewRooms()
    pairs = data.split("val")
    evaluator = Evaluator(
        data,
        DataConfig(target="val"),
        ImageMetrics(),
        torch.device("cpu"),
        batch_size=4,
        folder=tmp_path,
        save_data=True,
        save_every=4,
        unnamed="depth_warp",
    )
    sets = set_scores(pairs, ImageMetrics(), None)
    reports = [
        evaluator.evaluate("depth_warp", DepthWarp(), sets),
        evaluator.evaluate("nearest_view", NearestView()),
    ]
    files = write_reports(reports, ImageMetrics(), tmp_path)
    files += write_original_scores(reports[0].pooled, tmp_path)
    assert [file.name for file in files][-1] == "reconmetrics.txt"
    assert json.loads(files[-1].read_text()).keys() == {"psnr", "ssim", "mask_psnr", "mask_ssim"}
    shown = sorted(file.name for file in (tmp_path / "generations").glob("*.png"))
    assert shown == ["0.png", "4.png"]
    assert len(list((tmp_path / "generations" / "nearest_view").glob("*.png"))) == 2
    assert {p.name for p in tmp_path.iterdir()} >= {"refimgs", "tarimgs", "masks"}
    warp, nearest = json.loads((tmp_path / "metrics.json").read_text())
    assert warp["n"] == len(pairs)
    assert warp["means"]["psnr_covered"] > nearest["means"]["psnr_covered"] + 5
    assert warp["pooled"]["psnr_megascenes"] < warp["means"]["psnr"]  # pooled errors weigh bad images more


class Corners(nn.Module):
    """A stand-in for Inception: the mean of every quarter."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return nn.functional.adaptive_avg_pool2d(images.float() / 255, 2).flatten(1)


def test_equal_images_have_no_distance() -> None:
    scores = set_scores(FewRooms().split("val"), ImageMetrics(), Corners())
    whole = next(s for s in scores if isinstance(s, SetScores))
    images = torch.rand(12, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    whole.update(images, images, images, torch.arange(12))
    assert whole.compute()["fid"] == pytest.approx(0, abs=1e-3)
