"""The regions of a rig's targets: against rays, and told by plates against told by depth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from dataloader.rig.folders import open_frames
from engine.rig_regions import BY_DEPTH, BY_PLATES, RegionFinder, Regions
from geometry.views import Views
from tests.engine.clips import CAMERAS, SQUARE, WALL, MadeClips, in_square, on_plane


def _views(moment: int = 1, *without: str) -> Views:
    return MadeClips(without=without).scene(moment).views()


def _sides(views: Views) -> tuple[Views, Views]:
    return views[[0, 1]], views[[2]]


def _hidden(source: int, moment: int) -> Tensor:
    """Where the wall that the target's pixels show is hidden from a source by the square, by its rays."""
    points = on_plane(2, WALL)
    center = torch.tensor([CAMERAS[source], 0, 0], dtype=torch.float64)
    return in_square(center + (points - center) * SQUARE / WALL, moment)


def _outside(source: int) -> Tensor:
    pixel = 30.0 * (on_plane(2, WALL)[..., 0] - CAMERAS[source]) / WALL + 16
    return (pixel < 0) | (pixel > 32)


def test_what_moves_and_what_it_hides_by_depth() -> None:
    finder = RegionFinder()
    regions = finder.find(*_sides(_views()))
    assert regions.dynamic is not None
    assert regions.static is not None
    dynamic = in_square(on_plane(2, SQUARE), 1)
    assert torch.equal(regions.dynamic[0, 0], dynamic)
    assert torch.equal(regions.static, ~regions.dynamic)
    nowhere = [_hidden(i, 1) | _outside(i) for i in (0, 1)]
    unseen = ~dynamic & nowhere[0] & nowhere[1]
    recoverable = unseen & ((_hidden(0, 1) & ~_outside(0)) | (_hidden(1, 1) & ~_outside(1)))
    assert unseen.sum() > 5
    assert regions.unseen is not None
    assert regions.recoverable is not None
    assert torch.equal(regions.unseen[0, 0], unseen)
    assert torch.equal(regions.recoverable[0, 0], recoverable)
    assert (finder.basis, finder.missing) == (BY_DEPTH, {})


@pytest.mark.parametrize(
    ("without", "undefined", "reason"),
    [
        (("foreground",), {"psnr_dynamic", "psnr_static", "flicker"}, "no mattes"),
        (("depth", "background"), {"psnr_disoccluded", "psnr_recoverable"}, "background plates"),
        (("depth", "bounds"), {"psnr_disoccluded", "psnr_recoverable"}, "near and far"),
    ],
)
def test_what_cannot_be_told_is_missing_with_a_reason(
    without: tuple[str, ...], undefined: set[str], reason: str
) -> None:
    views = _views(1, *without)
    finder = RegionFinder(lambda: views)
    regions = finder.find(*_sides(views))
    assert undefined <= finder.missing.keys()
    assert all(reason in finder.missing[name] for name in undefined)
    assert regions.unseen is None
    assert (regions.dynamic is None) == ("foreground" in without)


def test_sources_without_mattes_leave_the_recoverable_part_open() -> None:
    source, target = _sides(_views())
    source.foreground = None
    finder = RegionFinder()
    regions = finder.find(source, target)
    assert regions.unseen is not None
    assert regions.recoverable is None
    assert "mattes of its source" in finder.missing["psnr_recoverable"]
    source.depth = None
    finder = RegionFinder(_views)
    assert finder.find(source, target).unseen is None
    assert "mattes of the source" in finder.missing["psnr_disoccluded"]


def _iou(one: list[Regions], other: list[Regions], name: str) -> float:
    a, b = (torch.stack([getattr(regions, name) for regions in found]) for found in (one, other))
    return float((a & b).sum() / (a | b).sum())


def test_plates_tell_about_the_same_as_depth(parity_data: Path) -> None:
    """On data/mvcam_mini, cameras 2 and 3 from 0 and 1."""
    folder = parity_data / "mvcam_mini"
    clip = open_frames(folder)
    true = torch.from_numpy(np.load(folder / "depth.npz")["depth"].astype(np.float32))
    by_plates, by_depth = RegionFinder(lambda: clip.scene(0).views()), RegionFinder()
    told, exact = [], []
    for moment in (0, 2, 4):
        views = clip.scene(moment).views()
        told.append(by_plates.find(views[:2], views[2:]))
        views.depth = true[:, moment, None]
        exact.append(by_depth.find(views[:2], views[2:]))
    assert (by_plates.basis, by_depth.basis) == (BY_PLATES, BY_DEPTH)
    assert sorted(by_plates.depths) == ["cam00", "cam01", "cam02", "cam03"]  # estimated once
    assert _iou(told, exact, "dynamic") == 1
    assert _iou(told, exact, "unseen") > 0.85
    assert _iou(told, exact, "recoverable") > 0.75
