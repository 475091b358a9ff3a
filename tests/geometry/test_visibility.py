"""What cameras see of each other's views: exact cases, and the true masks of the miniature rig."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from geometry.cameras import Cameras, pinhole
from geometry.visibility import land, visible


def _sideways(x: float, height: int = 12, width: int = 16) -> Cameras:
    """A camera at (x, 0, 0) that looks along z, with a focal length of 8 pixels."""
    c2w = torch.eye(4, dtype=torch.float64)
    c2w[0, 3] = x
    return pinhole(8.0, height, width, c2w)


def _many(*cameras: Cameras) -> Cameras:
    return Cameras(
        torch.stack([c.K for c in cameras]),
        torch.stack([c.c2w for c in cameras]),
        cameras[0].height,
        cameras[0].width,
    )


def test_a_wall_seen_by_two_cameras_is_cut_off_at_the_edge_of_the_image() -> None:
    wall = torch.full((12, 16), 4.0)
    landing = land(wall, _sideways(0), _many(_sideways(0), _sideways(1)))  # 2 pixels to the left
    seen = visible(landing, wall.expand(2, 12, 16))
    assert seen[0].all()
    assert not seen[1, :, :2].any()
    assert seen[1, :, 2:].all()


def test_a_post_hides_what_lies_behind_it_and_only_that() -> None:
    wall = torch.full((12, 16), 4.0)
    hidden = wall.clone()
    hidden[:, 5:7] = 1.0  # a post in the other camera's image
    seen = visible(land(wall, _sideways(0), _many(_sideways(1))), hidden[None])
    expected = torch.ones(12, 16, dtype=torch.bool)
    expected[:, :2] = False  # out of its view
    expected[:, 7:9] = False
    assert torch.equal(seen[0], expected)


def test_unknown_depth_hides_nothing_and_is_nowhere() -> None:
    wall = torch.full((12, 16), 4.0)
    mine, theirs = wall.clone(), wall.clone()
    mine[3] = 0
    theirs[:, 8] = 0
    seen = visible(land(mine, _sideways(0), _many(_sideways(0))), theirs[None])[0]
    assert not seen[3].any()
    assert seen[:3].all()
    assert seen[4:].all()


def test_a_floor_that_falls_away_steeply_is_seen_whole() -> None:
    camera = _sideways(0)
    _, directions = camera.rays(unit=False)
    floor = torch.where(directions[..., 1] > 0, 0.3 / directions[..., 1].clamp(min=1e-6), 0.0)
    other = _sideways(0.02)
    _, theirs = other.rays(unit=False)
    below = torch.where(theirs[..., 1] > 0, 0.3 / theirs[..., 1].clamp(min=1e-6), 0.0)
    seen = visible(land(floor, camera, _many(other)), below[None], tolerance=1e-6)[0]
    assert seen[7:, 1:].all()  # neighbouring rows differ by up to half of the depth


@pytest.fixture(scope="module")
def mini(parity_data: Path) -> tuple[Cameras, Cameras, dict[str, Tensor]]:
    """Source and novel cameras, and the true depths and masks of data/mvcam_mini."""
    folder = parity_data / "mvcam_mini"
    record = json.loads((folder / "cameras.json").read_text())

    def cameras(entries: list[dict[str, list[list[float]]]]) -> Cameras:
        K = torch.tensor([entry["K"] for entry in entries], dtype=torch.float64)
        w2c = torch.tensor([entry["w2c"] for entry in entries], dtype=torch.float64)
        return Cameras(K, torch.linalg.inv(w2c), record["height"], record["width"])

    truth = np.load(folder / "novel/ground_truth.npz")
    masks = {
        name: torch.from_numpy(np.unpackbits(truth[name], -1)[..., : record["width"]].astype(bool))
        for name in ("visible", "dynamic")
    }
    depth = {
        "novel": torch.from_numpy(truth["depth"].astype(np.float32)),
        "sources": torch.from_numpy(np.load(folder / "depth.npz")["depth"].astype(np.float32)),
    }
    return cameras(record["sources"]), cameras(record["novel"]), masks | depth


def _iou(one: Tensor, other: Tensor) -> float:
    return float((one & other).sum() / (one | other).sum())


def test_agrees_with_ray_traced_visibility(mini: tuple[Cameras, Cameras, dict[str, Tensor]]) -> None:
    sources, novel, truth = mini
    seen = torch.stack(
        [
            torch.stack(
                [
                    visible(land(depth, novel[v], sources), truth["sources"][:, f])
                    for f, depth in enumerate(frames)
                ]
            )
            for v, frames in enumerate(truth["novel"])
        ]
    )
    unseen, expected = (~masks[:, :, :2].any(2) & ~truth["dynamic"] for masks in (seen, truth["visible"]))
    assert _iou(seen, truth["visible"]) > 0.99
    assert _iou(~seen, ~truth["visible"]) > 0.93
    assert _iou(unseen, expected) > 0.92
