"""Training samples: draws by seed, stretches and rigs, windows and colours that keep cameras in step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from common.errors import UserError
from dataloader.images import to_uint8
from dataloader.re10k.scenes import Re10kScenes
from dataloader.rig.clip import Clip
from dataloader.rig.sets import ClipScenes
from dataloader.scene import Scene
from dataloader.scene_sets import OneScene
from engine.config import DataConfig
from engine.method import ChunkedSamples
from geometry.views import Views
from methods.mask_volume import data
from methods.mask_volume.config import AugmentConfig, ViewsConfig
from methods.mask_volume.data import PlanesSample, PlanesSamples, planes_samples
from tests.dataloader.re10k.makers import make_example, make_root
from tests.dataloader.rig.makers import make_clip
from tests.methods.mask_volume.tiny import tiny_config

SHORT = ViewsConfig(frames=3, min_stride=1, max_stride=2)


def clips(*made: Clip) -> ClipScenes:
    return ClipScenes(made or (make_clip(4, 3), make_clip(4, 2, seed=1)), "rigs")


def rig_samples(*made: Clip, stage: str = "mask") -> PlanesSamples:
    return planes_samples(clips(*made), tiny_config(stage), DataConfig())


def film(posed_scene: Callable[..., Scene], frames: int) -> PlanesSamples:
    """A video of a static scene, whose records are called by their number."""
    return planes_samples(OneScene(posed_scene(n=frames)), tiny_config("mpi", sampler=SHORT), DataConfig())


def same(one: PlanesSample, other: PlanesSample) -> bool:
    return torch.equal(one.source.images, other.source.images) and torch.equal(
        one.target.images, other.target.images
    )


# Draws


def test_a_draw_is_a_function_of_index_and_seed(posed_scene: Callable[..., Scene]) -> None:
    for samples in (rig_samples(), film(posed_scene, 12)):
        config = replace(samples.config, augment=AugmentConfig(crop=8, max_scale=1.5, colours=True))
        samples = replace(samples, config=config)
        once, again = samples.draw(0, 5), samples.draw(0, 5)
        assert same(once, again)
        assert torch.equal(once.source.cameras.K, again.source.cameras.K)
        others = [samples.draw(0, seed) for seed in range(6, 10)]
        assert not any(same(once, other) for other in others)
        assert once.seeds == [5]


def test_cameras_of_a_rig_are_drawn_without_replacement() -> None:
    samples = rig_samples()
    drawn = [samples.draw(1, seed) for seed in range(160)]
    chosen = [tuple(sample.source.names + sample.target.names) for sample in drawn]
    assert all(len(set(names)) == 3 for names in chosen)
    assert len(set(chosen)) == 4 * 3 * 2  # every ordered choice of three out of four
    clip = make_clip(4, 3)
    for sample in drawn[:5]:
        assert sample.source.background is not None
        assert sample.target.foreground is not None
        for name, image, plate in zip(
            sample.source.names, sample.source.images, sample.source.background, strict=True
        ):
            camera = clip.names.index(name)
            assert clip.plates is not None
            assert np.array_equal(to_uint8(image), clip.photos[camera][1])
            assert np.array_equal(to_uint8(plate), clip.plates[camera])
        torch.testing.assert_close(sample.bounds, torch.tensor([[0.9, 26.0]]).double())


def test_all_moments_of_all_clips_are_an_epoch() -> None:
    samples = rig_samples()
    assert samples.size == 5
    assert samples.name(4) == samples.scenes.key(4)


def test_frames_come_from_a_stretch_with_one_stride(posed_scene: Callable[..., Scene]) -> None:
    samples = film(posed_scene, 12)
    strides = set()
    for seed in range(80):
        sample = samples.draw(0, seed)
        numbers = sorted(int(name) for name in sample.source.names + sample.target.names)
        assert len(numbers) == 3
        strides.add((numbers[1] - numbers[0], numbers[2] - numbers[1]))
    assert strides == {(1, 1), (2, 2)}
    targets = [samples.draw(0, seed) for seed in range(40)]
    between = [int(t.target.names[0]) - int(t.source.names[0]) for t in targets]
    assert min(between) < 0 < max(between)


def test_stretches_reach_both_ends_and_no_further() -> None:
    config = ViewsConfig(frames=3, min_stride=2, max_stride=4)
    length = data.least_frames(config) + 1
    assert length == 10
    draw = torch.Generator().manual_seed(0)
    drawn = [data.draw_stretch(length, config, draw) for _ in range(400)]
    assert {frames[1] - frames[0] for frames in drawn} == {2, 3, 4}
    assert min(frames[0] for frames in drawn) == 0
    assert max(frames[-1] for frames in drawn) == length - 1
    assert data.stretch(5, 3, 4) == [5, 8, 11, 14]


# What there is too little of


def test_too_few_frames_are_one_line(posed_scene: Callable[..., Scene]) -> None:
    samples = film(posed_scene, 5)
    with pytest.raises(UserError, match=r"no more than 5 frames: lower model\.sampler\.max_stride"):
        samples.draw(0, 0)


@dataclass
class Mixed:
    """A short film, then a long one."""

    films: list[Scene]
    name: str = "mixed"
    chunk_sizes: None = None

    def __len__(self) -> int:
        return len(self.films)

    def key(self, index: int) -> str:
        return f"film{index}"

    def scene(self, index: int) -> Scene:
        return self.films[index]


def test_short_scenes_are_passed_over(posed_scene: Callable[..., Scene]) -> None:
    films = Mixed([posed_scene(n=5), posed_scene(n=12, seed=1)])
    samples = planes_samples(films, tiny_config("mpi", sampler=SHORT), DataConfig())
    assert same(samples.draw(0, 3), samples.draw(1, 3))


def test_too_few_cameras_and_missing_plates_are_one_line() -> None:
    with pytest.raises(UserError, match=r"00001 has 2 cameras: training takes 3, model\.views given and one"):
        rig_samples(make_clip(2, 3)).draw(1, 0)
    bare = replace(make_clip(3, 2), plates=None)
    with pytest.raises(
        UserError, match=r"00000 has no plates .*scripts/rig\.py background.*data\.rig\.backgr"
    ):
        rig_samples(bare).draw(0, 0)
    rig_samples(bare, stage="mpi").draw(0, 0)


def test_bounds_are_those_of_the_settings_where_there_are_none(posed_scene: Callable[..., Scene]) -> None:
    samples = film(posed_scene, 8)
    scene = samples.scenes.scene(0)
    for record in scene.records:
        record.bounds = None
    assert samples.draw(0, 0).bounds.tolist() == [[samples.config.near, samples.config.far]]
    scene.records[3].bounds = (2.0, 5.0)  # of a single photo, which need not be drawn
    assert samples.draw(0, 0).bounds.tolist() == [[1.8, 10.0]]


# Batches


def test_a_batch_is_its_samples_side_by_side() -> None:
    samples = rig_samples()
    items = [samples.draw(i, 10 + i) for i in range(3)]
    batch = samples.collate(items)
    assert batch.source.images.shape == (3, 2, 3, 12, 16)
    assert batch.target.images.shape == (3, 3, 12, 16)
    assert batch.source.cameras.shape == (3, 2)
    assert batch.target.cameras.shape == (3,)
    assert batch.bounds.shape == (3, 2)
    assert batch.seeds == [10, 11, 12]
    for i, item in enumerate(items):
        assert torch.equal(batch.source.images[i], item.source.images)
        assert torch.equal(batch.target.images[i], item.target.images[0])
        assert torch.equal(batch.target.cameras.c2w[i], item.target.cameras.c2w[0])
        assert batch.source.background is not None
        assert item.source.background is not None
        assert torch.equal(batch.source.background[i], item.source.background)
    moved = batch.to(torch.device("cpu"))
    assert moved.seeds == batch.seeds


def test_photos_of_several_sizes_do_not_fit_into_a_batch() -> None:
    samples = rig_samples(make_clip(3, 1), make_clip(3, 1, 14, 18))
    items = [samples.draw(i, 0) for i in range(2)]
    with pytest.raises(UserError, match=r"photos of 16x12, 18x14: set model\.augment\.crop or"):
        samples.collate(items)


def test_smaller_photos_are_drawn_with_their_cameras() -> None:
    samples = planes_samples(clips(), tiny_config(), DataConfig(max_size=8))
    sample = samples.draw(0, 0)
    assert sample.source.images.shape[-2:] == (6, 8)
    assert float(sample.source.cameras.K[0, 0, 2]) == pytest.approx(4)


# Windows and colours


def striped(height: int = 20, width: int = 24) -> Views:
    """Views whose red says the column and whose green says the row."""
    views = make_clip(3, 1, height, width).scene(0).views()
    x = (torch.arange(width) + 0.5).expand(height, width) / width
    y = ((torch.arange(height) + 0.5) / height)[:, None].expand(height, width)
    image = torch.stack([x, y, torch.zeros_like(x)])
    return replace(
        views, images=image.expand(3, 3, height, width), background=image.expand(3, 3, height, width)
    )


def test_a_projected_point_stays_on_its_pixel() -> None:
    views = striped()
    made = data.crop_views(views, 1.5, 4, 7, 16, 12)
    assert made.images.shape == (3, 3, 16, 12)
    points = torch.tensor([[0.2, 0.1, 4.0], [-0.3, 0.4, 5.0]]).double().expand(3, 2, 3)
    before, _ = views.cameras.project(points)
    after, _ = made.cameras.project(points)
    torch.testing.assert_close(after, 1.5 * before - torch.tensor([7.0, 4.0]).double())
    # and a pixel of the window shows what it showed before
    color = made.images[0, :2, 8, 6]
    seen = (torch.tensor([6.5, 8.5]) + torch.tensor([7.0, 4.0])) / 1.5
    torch.testing.assert_close(color, seen / torch.tensor([24.0, 20.0]), rtol=0, atol=1e-5)


def test_everything_is_cropped_alike() -> None:
    views = striped()
    made = data.augmented(views, AugmentConfig(crop=10, max_scale=2.0), seed=3)
    assert made.background is not None
    assert made.foreground is not None
    assert torch.equal(made.images, made.background)
    assert made.foreground.shape == (3, 1, 10, 10)
    assert set(made.foreground.unique().tolist()) <= {0.0, 1.0}
    assert made.names == views.names
    assert (made.cameras.height, made.cameras.width) == (10, 10)
    assert torch.equal(made.cameras.c2w, views.cameras.c2w)


def test_windows_lie_anywhere_inside() -> None:
    views = striped(12, 14)
    corners = set()
    for seed in range(200):
        made = data.augmented(views, AugmentConfig(crop=10), seed)
        column, row = (made.images[0, :2, 0, 0] * torch.tensor([14.0, 12.0]) - 0.5).round().int().tolist()
        corners.add((row, column))
        assert made.images.min() >= 0
    assert corners == {(row, column) for row in range(3) for column in range(5)}


def test_photos_can_be_enlarged_without_a_window() -> None:
    sizes = set()
    for seed in range(20):
        made = data.augmented(striped(), AugmentConfig(max_scale=1.5), seed)
        sizes.add((made.cameras.height, made.cameras.width))
        assert made.images.shape[-2:] == (made.cameras.height, made.cameras.width)
    heights = [height for height, _ in sizes]
    assert min(heights) < 24 < max(heights) < 30


def test_windows_larger_than_the_photos_are_refused() -> None:
    with pytest.raises(
        UserError, match=r"photos of 24x20 are smaller than model\.augment\.crop=21: lower it"
    ):
        data.augmented(striped(), AugmentConfig(crop=21), 0)


def test_one_of_five_colour_changes_is_made_to_photos_and_plates() -> None:
    views = make_clip(3, 1).scene(0).views()
    views = replace(views, background=views.images.clone())
    assert views.background is not None
    unchanged = 0
    for seed in range(40):
        made = data.augmented(views, AugmentConfig(colours=True), seed)
        assert made.background is not None
        assert torch.equal(made.images, made.background)
        assert 0 <= made.images.min() <= made.images.max() <= 1
        assert made.images.shape == views.images.shape
        unchanged += torch.equal(made.images, views.images)
    assert 2 <= unchanged <= 18  # a fifth of them, on average


@pytest.mark.parametrize("mode", list(data.COLOURS))
def test_a_colour_change_changes_one_thing(mode: str) -> None:
    images = torch.rand(2, 3, 8, 9, generator=torch.Generator().manual_seed(0)) * 0.5 + 0.2
    made = data.change_colour(images, mode, 0.1 if mode == "hue" else 1.2)
    if mode == "none":
        assert torch.equal(made, images)
        return
    assert (made - images).abs().max() > 0.01
    neutral = data.change_colour(images, mode, 0.0 if mode == "hue" else 1.0)
    torch.testing.assert_close(neutral, images, rtol=0, atol=1e-5)
    if mode == "brightness":
        torch.testing.assert_close(made, (1.2 * images).clamp(max=1))
    if mode == "contrast":
        assert made.std() > images.std()
    if mode == "saturation":
        assert (made.amax(1) - made.amin(1)).mean() > (images.amax(1) - images.amin(1)).mean()
    if mode == "hue":
        torch.testing.assert_close(made.amax(1), images.amax(1), rtol=0, atol=1e-5)


# Sets in chunks


def test_sets_in_chunks_stay_in_chunks(tmp_path: Path) -> None:
    chunks = [[make_example(0, 8), make_example(1, 8)], [make_example(2, 8)]]
    scenes = Re10kScenes([make_root(tmp_path, chunks, split="train")], "train", max_fov=170)
    samples = planes_samples(scenes, tiny_config("mpi", sampler=SHORT), DataConfig())
    assert isinstance(samples, ChunkedSamples)
    assert list(samples.chunk_sizes) == [2, 1]
    assert samples.draw(2, 0).source.images.shape == (2, 3, 24, 40)
    assert not isinstance(rig_samples(), ChunkedSamples)
