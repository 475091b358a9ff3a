"""dataloader.depth.pairs and room_tasks: what one view knows of another."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from common.errors import UserError
from dataloader.depth.pairs import DepthProtocol, known_points, legacy_protocol, make_task
from dataloader.depth.room_tasks import RoomTasks
from geometry.cameras import pinhole
from geometry.views import Views

HEIGHT, WIDTH = 12, 16


def wall(x: float = 0.0, depth: float = 2.0) -> Views:
    """A wall seen from (x, 0, 0)."""
    camera = pinhole(16.0, HEIGHT, WIDTH)
    camera.c2w[0, 3] = x
    size = (1, 1, HEIGHT, WIDTH)
    return Views(
        torch.full((1, 3, HEIGHT, WIDTH), 0.5), camera[None], torch.full(size, depth), names=["wall"]
    )


def test_a_shifted_camera_sees_the_shifted_wall() -> None:
    task = make_task(wall(), wall(0.5), DepthProtocol(), "scene", "pair")  # 4 pixels to the right
    assert (task.hidden[0, 0].sum(0) == torch.tensor([0.0] * 12 + [12.0] * 4)).all()
    known = task.sparse[0, 0] > 0
    assert known[:, :11].all()
    assert not known[:, 11:].any()  # the outermost column is taken away, and not scored
    assert (task.sparse[0, 0][known] == 2).all()
    assert task.uneroded is not None
    assert (task.uneroded[0, 0] > 0)[:, :12].all()


def test_unknown_truth_is_hidden_in_the_legacy_protocol_only() -> None:
    target = wall(0.5)
    assert target.depth is not None
    target.depth[..., :6, :] = 0
    corrected = make_task(wall(), target, DepthProtocol(), "scene", "pair")
    legacy = make_task(wall(), target, legacy_protocol(0.1), "scene", "pair")
    assert corrected.hidden[..., :6, :].sum() == 0
    assert corrected.hidden[..., 6:, 12:].all()
    assert legacy.hidden[..., :6, 12:].all()


def test_points_of_unknown_depth_are_not_drawn() -> None:
    view = wall()
    assert view.depth is not None
    valid = torch.ones_like(view.depth)
    valid[..., :4, :] = 0
    assert len(known_points(replace(view, valid=valid))) == (HEIGHT - 4) * WIDTH
    view.depth[..., :2, :] = 0
    assert len(known_points(view)) == (HEIGHT - 2) * WIDTH


def test_scored_pixels_and_other_points() -> None:
    scored = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
    scored[0] = True
    nothing = torch.empty(0, 3, dtype=torch.float64)
    task = make_task(wall(), wall(), DepthProtocol(), "scene", "pair", nothing, scored)
    assert task.hidden.sum() == WIDTH
    assert not task.sparse.any()


def test_the_legacy_radius_is_relative() -> None:
    point = torch.tensor([[0.0, 0.0, 2.0]], dtype=torch.float64)
    camera = wall().cameras[0]
    areas = []
    for protocol in (DepthProtocol(3.0), legacy_protocol(0.5)):  # half of 12 pixels, times 0.5
        rendered = protocol.render(point, camera)
        assert rendered.opacity is not None
        areas.append(rendered.opacity.sum().item())
    assert areas[0] == areas[1] > 20


def test_absurd_points_are_refused() -> None:
    with pytest.raises(UserError, match="must be above 0"):
        DepthProtocol(radius=0.0)


def test_rooms_are_deterministic_and_exact() -> None:
    source = RoomTasks(1234, 24, 32, DepthProtocol(), pairs=2)
    one, again = list(source.tasks()), list(source.tasks())
    assert [task.name for task in one] == [task.name for task in again]
    assert len({task.name for task in one}) == 2
    for a, b in zip(one, again, strict=True):
        assert torch.equal(a.sparse, b.sparse)
        assert torch.equal(a.target.images, b.target.images)
        assert a.hidden.any()
        known, truth = a.sparse > 0, a.target.depth
        assert truth is not None
        assert known.double().mean() > 0.2
        assert ((a.sparse - truth).abs() / truth)[known].median() < 0.03
    other = next(RoomTasks(1235, 24, 32, DepthProtocol()).tasks())
    assert not torch.equal(one[0].target.images, other.target.images)
