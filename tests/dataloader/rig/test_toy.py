"""Procedural rigs: repeatable, exact in colour, depth and matte, and readable anywhere."""

from __future__ import annotations

import multiprocessing
import pickle

import numpy as np
import pytest
import torch

from common.errors import UserError
from dataloader.rig.clip import Clip
from dataloader.rig.config import RIGS, RigConfig
from dataloader.rig.sets import open_rig_sets
from dataloader.rig.toy import ToyFilm, ToyImage, _Kept, open_rig, open_rigs, render_novel
from dataloader.rig.toy_cast import depth_map, picture
from dataloader.rig.toy_paint import hashed, painted, value_noise
from dataloader.rig.toy_stage import ELLIPSOID, PATTERNS
from engine.config import DataConfig
from geometry.cameras import stack_cameras
from tests.dataloader.rig.makers import make_clip

SIZE = (36, 64)
SEEDS = (3, 8, 21)


@pytest.fixture(scope="module", params=SEEDS)
def film(request: pytest.FixtureRequest) -> ToyFilm:
    return ToyFilm(request.param, 4, *SIZE)


@pytest.fixture(scope="module")
def clip(film: ToyFilm) -> Clip:
    return open_rig(film)


def test_a_clip_follows_from_its_seed() -> None:
    images = [open_rig(ToyFilm(seed, 4, *SIZE)).record(1, 2).load() for seed in (5, 6)]
    again = ToyImage(ToyFilm(5, 4, *SIZE), 1, 2, "photo")._make(moving=True)
    assert np.array_equal(images[0], again[..., :3])
    assert np.abs(images[0].astype(int) - images[1]).mean() > 10


def test_the_size_changes_nothing_else() -> None:
    small, large = (ToyFilm(4, 4, height, 16 * height // 9) for height in (36, 72))
    torch.testing.assert_close(small.rig.resize(72, 128).K, large.rig.K)
    torch.testing.assert_close(small.rig.c2w, large.rig.c2w)
    fine, coarse = (picture(film.stage, film.rig[0], 1, n)[0] for film, n in ((large, 1), (small, 2)))
    np.testing.assert_allclose(fine.reshape(36, 2, 64, 2, 3).mean((1, 3)), coarse, atol=1e-6)


def test_plates_are_the_frames_without_what_moves(film: ToyFilm, clip: Clip) -> None:
    moved = 0
    for camera in (0, len(clip.cameras) - 1):
        for moment in range(len(clip)):
            record = clip.record(camera, moment)
            alpha = ToyImage(film, camera, moment, "matte").read()[..., 3]
            plate, matte = record.load_background(), record.load_foreground()
            assert plate is not None
            assert matte is not None
            difference = np.abs(record.load().astype(int) - plate).max(-1)
            assert difference[alpha == 0].max() == 0
            assert np.array_equal(matte, alpha > 127)
            assert not matte.all()
            moved += (difference[matte] > 8).sum()
    assert moved > 100


def test_mattes_are_what_moves_and_is_in_front(film: ToyFilm) -> None:
    for moment in range(film.moments):
        camera = film.rig[0]
        _, alpha = picture(film.stage, camera, moment, 3)
        front = depth_map(film.stage, camera, moment) < depth_map(film.stage, camera, moment, moving=False)
        assert front[alpha == 1].all()
        assert not front[alpha == 0].any()


def test_depth_lies_on_surfaces_with_nothing_before_them(film: ToyFilm) -> None:
    camera, moment, solids = film.rig[1], 2, film.stage.solids
    depth = torch.from_numpy(depth_map(film.stage, camera, moment)).double()
    for share in (1.0, 0.9, 0.5, 0.2):
        points = camera.unproject(share * depth).reshape(-1, 1, 3).numpy()
        local = np.einsum("pij,npi->npj", solids.rotation[moment], points - solids.center[moment])
        local = local / solids.half
        reach = np.where(solids.kind == ELLIPSOID, (local**2).sum(-1), np.abs(local).max(-1))  # 1: surface
        assert reach[:, 0].max() < 1 + 1e-5  # inside the room, which comes first
        assert reach[:, 1:].min() > 1 - 1e-3
        if share == 1:
            assert np.abs(reach - 1).min(1).max() < 1e-3


def test_views_of_one_surface_point_have_one_colour(clip: Clip) -> None:
    """Reprojected by true depth, at the same moment, colours agree where both cameras see the point."""
    views = render_novel(clip, stack_cameras(clip.cameras[:2]), 1)
    assert views.depth is not None
    points = views.cameras[0].unproject(views.depth[0, 0].double()).reshape(-1, 3)
    pixels, depth = views.cameras[1].project(points)
    grid = pixels / torch.tensor([SIZE[1], SIZE[0]]) * 2 - 1
    other = torch.cat([views.images[1], views.depth[1]])[None].double()
    sampled = torch.nn.functional.grid_sample(other, grid[None, None], align_corners=False)[0, :, 0]
    seen = (grid.abs() < 0.95).all(-1) & ((sampled[3] - depth).abs() < 0.01 * depth)
    difference = (sampled[:3].T - views.images[0].reshape(3, -1).T).abs().mean(-1)
    assert seen.double().mean() > 0.5
    assert difference[seen].median() < 0.02
    shifted = torch.nn.functional.grid_sample(
        other, (grid + torch.tensor([2 / SIZE[1], 0]))[None, None], align_corners=False
    )[0, :3, 0]
    wrong = (shifted.T - views.images[0].reshape(3, -1).T).abs().mean(-1)
    assert difference[seen].mean() < 0.7 * wrong[seen].mean()  # a pixel off is seen


def test_bounds_are_those_of_all_moments(film: ToyFilm, clip: Clip) -> None:
    camera = film.rig[2]
    maps = [depth_map(film.stage, camera, moment) for moment in range(film.moments)]
    maps.append(depth_map(film.stage, camera, 0, moving=False))
    assert clip.bounds[2] == (np.min(maps), np.max(maps))
    assert [len(clip.bounds), *clip.bounds[:2]] == [len(clip.cameras), clip.bounds[0], clip.bounds[1]]


def test_rigs_are_nearly_parallel_and_neighbours_follow_one_another(clip: Clip, film: ToyFilm) -> None:
    rig = film.rig
    assert 4 <= len(rig) <= 10
    forward = rig.c2w[:, :3, 2]
    assert (forward @ forward.T).acos().nan_to_num().max().rad2deg() < 8
    steps = (rig.center[1:] - rig.center[:-1]).norm(dim=-1)
    assert steps.max() < 2 * steps.min()
    disparity = rig.focal.mean() * steps.mean() * 128 / SIZE[1]
    near, far = clip.plane_bounds()
    assert 0.3 < disparity / (far / 2) < disparity / (near / 0.9) < 26


def test_seeds_held_out_are_never_trained_on() -> None:
    train, test = open_rigs(RigConfig(size=SIZE))
    assert not {clip.name for clip in train} & {clip.name for clip in test}
    assert len(test) > 0


def test_clips_travel_and_give_the_same(clip: Clip) -> None:
    data = pickle.dumps(clip)
    assert len(data) < 50_000
    expected = clip.record(0, 1).load()
    assert np.array_equal(pickle.loads(data).record(0, 1).load(), expected)
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert np.array_equal(pool.apply(_load, (clip, 0, 1)), expected)


def _load(clip: Clip, camera: int, moment: int) -> np.ndarray:
    return clip.record(camera, moment).load()


def test_novel_views_of_the_rigs_own_cameras_are_its_photos(clip: Clip) -> None:
    cut = clip.cut(2)
    views = render_novel(cut, stack_cameras(cut.cameras), 1)
    photos = cut.scene(1).views()
    assert cut.scene(1).name == "00003"
    assert photos.background is not None
    torch.testing.assert_close(views.images, photos.images, atol=0.5 / 255 + 1e-6, rtol=0)
    torch.testing.assert_close(views.background, photos.background, atol=0.5 / 255 + 1e-6, rtol=0)
    assert torch.equal(views.foreground, photos.foreground)


def test_views_from_nowhere(clip: Clip) -> None:
    cameras = stack_cameras(clip.cameras[:1])
    cameras.c2w[:, :3, 3] += 1000
    with pytest.raises(ValueError, match="outside the room"):
        render_novel(clip, cameras, 0)
    with pytest.raises(UserError, match="small is no clip of builtin:rigs"):
        render_novel(make_clip(), cameras, 0)


def test_rigs_as_scene_sets() -> None:
    rig = RigConfig(seeds="0:2", test_seeds="7:9", frames=3, size=SIZE, cameras=6)
    sets = open_rig_sets(DataConfig(root=RIGS, rig=rig))
    task = sets.tasks["test"][4]
    assert (task.source, len(task.target)) == ((2, 3), 4)
    views = sets.split("test").scene(task.scene).views(task.target)
    assert views.bounds is not None
    assert (views.images.shape, views.bounds.shape) == ((4, 3, *SIZE), (4, 2))
    assert sets.split("train").key(5) == "rig000001_00002"


def test_noise_is_even_and_smooth() -> None:
    numbers = np.array([hashed(i, j, 5) for i in range(-40, 40) for j in range(50)])
    assert abs(numbers.mean() - 0.5) < 0.02
    assert abs(np.var(numbers) - 1 / 12) < 0.005
    assert abs(np.corrcoef(numbers[1:], numbers[:-1])[0, 1]) < 0.05
    line = np.array([value_noise(0.01 * i - 3, 1.3, 2) for i in range(600)])
    assert np.abs(np.diff(line)).max() < 0.016  # steepest: 1.5 per cell
    assert value_noise(-4.0, 2.0, 9) == hashed(-4, 2, 9)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_colours_stay_between_the_three_of_a_paint(pattern: str, film: ToyFilm) -> None:
    paint = film.stage.paints[:1].copy()
    paint["pattern"] = PATTERNS.index(pattern)
    colors = np.array([painted(paint[0], 0.07 * i, 0.031 * i) for i in range(-200, 200)])
    assert (colors >= paint[0]["colors"].min(0) - 1e-9).all()
    assert (colors <= paint[0]["colors"].max(0) + 1e-9).all()
    assert colors.std(0).max() > 0.01


def test_what_was_made_first_goes_first() -> None:
    made: list[str] = []

    def make(name: str) -> np.ndarray:
        made.append(name)
        return np.zeros(40, np.uint8)

    kept = _Kept(100)
    for name in ("a", "b", "a", "c", "b", "a"):
        kept.get(name, lambda name=name: make(name))
    assert made == ["a", "b", "c", "a"]
