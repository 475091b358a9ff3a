import torch

from geometry.cameras import pinhole
from geometry.poses import rotation_y
from geometry.selection import rank_views


def _row(xs: list[float]):
    poses = torch.eye(4, dtype=torch.float64).repeat(len(xs), 1, 1)
    poses[:, 0, 3] = torch.tensor(xs, dtype=torch.float64)
    return pinhole(50.0, 10, 10).with_poses(poses)


def test_the_nearest_camera_comes_first() -> None:
    assert rank_views(_row([0, 1, 2, 3]), _row([2.2, -5])).tolist() == [[2, 3, 1, 0], [0, 1, 2, 3]]


def test_a_camera_that_looks_away_comes_later() -> None:
    sources = _row([0.0, 0.5, 3.0])
    sources.c2w[0, :3, :3] = rotation_y(torch.tensor(3.0, dtype=torch.float64))
    assert rank_views(sources, _row([0.1]))[0].tolist() == [1, 2, 0]


def test_ranks_do_not_depend_on_the_worlds_scale() -> None:
    sources, targets = _row([0.0, 1.0, 5.0]), _row([0.7, 4.0])
    before = rank_views(sources, targets)
    for cameras in (sources, targets):
        cameras.c2w[:, :3, 3] *= 1000
    assert torch.equal(rank_views(sources, targets), before)
