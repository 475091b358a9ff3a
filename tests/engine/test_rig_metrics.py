"""Scores of clips: against the script that comes with data/mvcam_mini, and what counts as a moment before."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from dataloader.images import read_image, to_tensor
from engine.rig_metrics import DEFINITIONS, ClipScores, region_picture
from engine.rig_regions import Regions


def _regions(dynamic: Tensor) -> Regions:
    """Regions of targets [N, H, W], of which nothing is unseen."""
    dynamic = dynamic[:, None]
    return Regions(dynamic, torch.zeros_like(dynamic), torch.zeros_like(dynamic))


def _images(*levels: float) -> Tensor:
    return torch.stack([torch.full((3, 4, 6), level) for level in levels])


@pytest.fixture(scope="module")
def score_script(parity_data: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("mini_score", parity_data / "mvcam_mini/score.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


def test_agrees_with_the_data_sets_own_script(
    score_script: ModuleType, parity_data: Path, tmp_path: Path
) -> None:
    """Camera 0's photos as renders of every novel view, with the true masks."""
    folder = parity_data / "mvcam_mini"
    truth = np.load(folder / "novel/ground_truth.npz")
    dynamic, visible, plate = (
        torch.from_numpy(np.unpackbits(truth[name], -1)[..., :128].astype(bool))
        for name in ("dynamic", "visible", "on_plate")
    )
    unseen = ~visible[:, :, :2].any(2) & ~dynamic
    recoverable = unseen & plate[:, :, :2].any(2)
    scores, psnr = ClipScores(), []
    for moment in range(6):
        photo = to_tensor(read_image(folder / f"cam00/{moment:05d}.jpg")).expand(4, -1, -1, -1)
        true = torch.stack(
            [to_tensor(read_image(folder / f"novel/view{v:02d}/{moment:05d}.png")) for v in range(4)]
        )
        regions = Regions(dynamic[:, moment, None], unseen[:, moment, None], recoverable[:, moment, None])
        scores.add((0, moment), range(4), photo, true, regions)
        psnr.append(-10 * ((photo - true) ** 2).flatten(1).mean(1).log10())
        for v in range(4):
            (tmp_path / f"view{v:02d}").mkdir(exist_ok=True)
            image = Image.open(folder / f"cam00/{moment:05d}.jpg")
            image.save(tmp_path / f"view{v:02d}/{moment:05d}.png")
    expected = score_script.score(str(folder), str(tmp_path))
    pooled = scores.pooled()
    assert pooled["psnr_dynamic_pooled"] == pytest.approx(expected["dynamic"], abs=0.01)
    assert pooled["psnr_static_pooled"] == pytest.approx(expected["static"], abs=0.01)
    assert pooled["psnr_disoccluded_pooled"] == pytest.approx(expected["unseen_static"], abs=0.01)
    assert pooled["psnr_recoverable_pooled"] == pytest.approx(expected["recoverable"], abs=0.01)
    assert pooled["flicker_pooled"] == pytest.approx(expected["flicker"], abs=0.001)
    assert pooled["pooled_pixels"]["psnr_disoccluded_pooled"] == int(unseen.sum())
    assert float(torch.stack(psnr).mean()) == pytest.approx(expected["mean"], abs=0.01)
    assert pooled.keys() <= DEFINITIONS.keys()


def test_regions_are_scored_by_themselves() -> None:
    dynamic = torch.zeros(1, 4, 6, dtype=torch.bool)
    dynamic[:, :, :3] = True
    image, truth = _images(0.4), _images(0.4)
    image[..., :3] += 51 / 255
    row = ClipScores().add((0, 0), ["cam"], image, truth, _regions(dynamic))[0]
    assert row["psnr_dynamic"] == pytest.approx(-20 * math.log10(0.2), abs=1e-3)
    assert row["psnr_static"] == math.inf
    assert math.isnan(row["psnr_disoccluded"])
    assert math.isnan(row["flicker"])


def test_flicker_is_of_static_pixels_of_one_camera_in_moments_that_follow() -> None:
    """Pixels that are static at both moments change by 10 of 255, the others by much more."""
    first, second = (torch.zeros(1, 4, 6, dtype=torch.bool) for _ in range(2))
    first[:, 0], second[:, 1] = True, True
    before, after = _images(100 / 255), _images(110 / 255)
    after[:, :, :2] = 1.0
    truth = _images(100 / 255)
    scores = ClipScores()

    def add(place: tuple[int, int], image: Tensor, moving: Tensor, name: str = "a") -> dict[str, float]:
        return scores.add(place, [name], image, truth, _regions(moving))[0]

    assert math.isnan(add((0, 0), before, first)["flicker"])
    row = add((0, 1), after, second)
    assert row["flicker"] == pytest.approx(10, abs=1e-4)
    assert row["flicker_true"] == 0
    assert math.isnan(add((0, 2), before, first, name="b")["flicker"])
    assert math.isnan(add((0, 3), before, first)["flicker"])  # moment 2 was not filmed
    assert math.isnan(add((1, 4), after, second)["flicker"])  # another clip
    assert len(scores.before) == 1
    assert scores.pooled()["pooled_pixels"]["flicker_pooled"] == 2 * 6


def test_a_moment_that_does_not_count_is_only_remembered() -> None:
    moving = torch.zeros(1, 4, 6, dtype=torch.bool)
    scores = ClipScores()
    row = scores.add((0, 0), ["a"], _images(0.2), _images(0.3), _regions(moving), counts=False)[0]
    assert all(math.isnan(value) for value in row.values())
    assert scores.pooled() == {}
    row = scores.add((0, 1), ["a"], _images(0.4), _images(0.3), _regions(moving))[0]
    assert row["flicker"] == pytest.approx(51, abs=1e-3)


def test_pools_of_processes_add_up() -> None:
    generator = torch.Generator().manual_seed(0)
    images, truth = torch.rand(2, 4, 3, 4, 6, generator=generator)
    moving = torch.rand(4, 4, 6, generator=generator) > 0.5
    together, parts = ClipScores(), [ClipScores(), ClipScores()]
    for i in range(4):
        frame = (["a"], images[i : i + 1], truth[i : i + 1], _regions(moving[i : i + 1]))
        together.add((0, i), *frame)
        parts[i // 2].add((0, i), *frame)
        if i == 1:
            parts[1].add((0, i), *frame, counts=False)
    parts[0].merge(parts[1].pools)
    assert parts[0].pooled()["pooled_pixels"] == together.pooled()["pooled_pixels"]
    for name in ("psnr_dynamic_pooled", "flicker_pooled"):
        assert parts[0].pooled()[name] == pytest.approx(together.pooled()[name])


def test_the_picture_shows_the_regions_over_the_truth() -> None:
    dynamic, unseen = torch.zeros(2, 1, 4, 6, dtype=torch.bool).unbind(0)
    dynamic, unseen = dynamic[None].clone(), unseen[None].clone()
    dynamic[..., 0, :], unseen[..., 1, :] = True, True
    picture = region_picture(_images(0.6)[0], Regions(dynamic, unseen, torch.zeros_like(unseen)), 0)
    assert picture is not None
    assert picture[:, 0, 0].argmax() == 0
    assert picture[:, 1, 0].argmax() == 2
    assert picture[:, 2, 0].tolist() == pytest.approx([0.3] * 3)
    assert region_picture(_images(0.6)[0], Regions(), 0) is None
