"""The method as a whole: it learns a scene, renders it, and answers settings that do not fit."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from common.errors import UserError
from dataloader import toy
from dataloader.scene import Scene
from engine.config import DataConfig, TrainingConfig
from engine.data import source_views, target_batches
from engine.metrics import ImageMetrics
from geometry.cameras import Cameras
from methods.hash_manifold.config import HashManifoldConfig
from methods.hash_manifold.method import HashManifold

SMALL = HashManifoldConfig(
    levels=6,
    features=2,
    log2_table=12,
    base_resolution=8,
    finest_resolution=128,
    width=16,
    rays=1024,
    table_learning_rate=2e-2,
)


@pytest.fixture(scope="module")
def room() -> Scene:
    return toy.make_scene(1, n_views=9, height=48, width=64)


def train(scene: Scene, config: HashManifoldConfig, steps: int) -> tuple[HashManifold, list[float]]:
    """A method after some steps from data and weights of seed 0, and its losses."""
    torch.manual_seed(0)
    method = HashManifold.create(config, scene)
    samples = method.samples(scene, DataConfig())
    optimization = method.optimization(TrainingConfig(steps=steps, learning_rate=4e-3))
    losses = []
    for step in range(steps):
        loss = method(samples.draw(step, step), step)["loss"]
        optimization.optimizer.zero_grad()
        loss.backward()
        optimization.optimizer.step()
        losses.append(float(loss.detach()))
    return method.eval(), losses


def score(method: HashManifold, scene: Scene) -> float:
    """Mean covered PSNR over the held-out views."""
    source = source_views(scene, DataConfig())
    rows = []
    with torch.no_grad():
        for batch in target_batches(scene, DataConfig(), 1, source):
            rows += method.evaluate(batch, method.encode(source), ImageMetrics()).rows
    return sum(row["psnr_covered"] for row in rows) / len(rows)


def test_it_learns_a_room(room: Scene) -> None:
    method, losses = train(room, SMALL, 150)
    assert sum(losses[-10:]) < 0.25 * sum(losses[:10])
    assert score(method, room) > 22


def test_supersampling_renders_finer_than_pixels(room: Scene) -> None:
    """Every pixel of a 2x supersampled render has the mean feature of four samples: close, not equal."""
    method, _ = train(room, SMALL, 60)
    camera = room.cameras([0])
    with torch.no_grad():
        plain = method.render(camera, camera)
        method.config = replace(SMALL, supersample=2)
        fine = method.render(camera, camera)
    difference = (plain.image - fine.image).abs()
    assert 0 < difference.mean() < 0.05


def test_training_with_supersampling_learns_too(room: Scene) -> None:
    _, losses = train(room, replace(SMALL, supersample=2, rays=512), 60)
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])


def test_what_the_mesh_does_not_cover_is_background(room: Scene) -> None:
    method = HashManifold.create(replace(SMALL, background="white"), room)
    camera = room.cameras([0])
    away = Cameras(camera.K, camera.c2w.clone(), camera.height, camera.width)
    away.c2w[0, :3, 3] += 1000.0
    with torch.no_grad():
        rendering = method.render(camera, away)
    assert rendering.opacity is not None
    assert rendering.depth is not None
    empty = rendering.opacity[0, 0] == 0
    assert empty.any()
    assert (rendering.image[0][:, empty] == 1).all()
    assert (rendering.depth[0, 0][empty] == 0).all()


def test_tiles_change_nothing(room: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    method, _ = train(room, SMALL, 5)
    camera = room.cameras([1])
    with torch.no_grad():
        whole = method.render(camera, camera).image
        monkeypatch.setattr("methods.hash_manifold.method._TILE_SAMPLES", 64 * 7)
        method.config = replace(SMALL, render_rays=100)
        tiled = method.render(camera, camera).image
    torch.testing.assert_close(whole, tiled, atol=1e-6, rtol=0)


def test_gains_explain_photos_of_different_exposure(room: Scene) -> None:
    """Halve the light of every second training photo: the gains learn it, up to a common factor."""
    dimmed = replace(room, records=list(room.records))
    train_views = dimmed.split("train")
    for position, index in enumerate(train_views):
        if position % 2:
            record = dimmed.records[index]
            value = record.load() / 255.0
            linear = ((value + 0.055) / 1.055) ** 2.4 * (value > 0.04045) + value / 12.92 * (value <= 0.04045)
            darker = linear * 0.5
            shown = (1.055 * darker ** (1 / 2.4) - 0.055) * (darker > 0.0031308) + 12.92 * darker * (
                darker <= 0.0031308
            )
            dimmed.records[index] = replace(record, image=(shown * 255).round().astype("uint8"))
    method, _ = train(dimmed, SMALL, 200)
    assert method.field.log_gain is not None
    gains = method.field.log_gain.detach().mean(-1)
    ratio = (gains[0::2].mean() - gains[1::2].mean()).exp()
    assert ratio == pytest.approx(2.0, rel=0.1)
    bright = replace(method.config, render_exposure="0")
    camera = room.cameras([train_views[0]])
    with torch.no_grad():
        mean_image = method.render(camera, camera).image.mean()
        method.config = bright
        assert method.render(camera, camera).image.mean() > 1.1 * mean_image


def test_the_nearest_exposure_is_that_of_the_nearest_photo(room: Scene) -> None:
    method = HashManifold.create(replace(SMALL, render_exposure="nearest"), room)
    source = source_views(room, DataConfig())
    assert method._exposures(method.encode(source), source.cameras) == list(range(len(source)))


@pytest.mark.parametrize(
    ("change", "data", "training", "message"),
    [
        ({}, {"source": "all"}, {}, "data.source=all has 9 photos"),
        (
            {"original_camera": True},
            {"ray_cache": "cache"},
            {},
            "data.ray_cache holds rays of full intrinsics",
        ),
        ({}, {}, {"clip_norm": 1.0}, "model.sparse_optimizer=False"),
    ],
)
def test_settings_that_do_not_fit_are_named(
    room: Scene, change: dict, data: dict, training: dict, message: str
) -> None:
    method = HashManifold.create(replace(SMALL, **change), room)
    with pytest.raises(UserError, match=re.escape(message)):
        method.samples(room, DataConfig(**data))
        method.optimization(TrainingConfig(**training))


def test_an_exposure_row_that_is_none_is_named(room: Scene) -> None:
    method = HashManifold.create(replace(SMALL, render_exposure="99"), room)
    camera = room.cameras([0])
    with pytest.raises(UserError, match=re.escape("model.render_exposure is 99: there are 7 photos")):
        method.render(camera, camera)


def test_without_a_scene_there_is_nothing_to_build() -> None:
    with pytest.raises(UserError, match=re.escape("data.root")):
        HashManifold.create(SMALL, None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"levels": 0}, "model.levels is 0"),
        ({"finest_resolution": 8, "base_resolution": 16}, "model.finest_resolution is 8"),
        ({"render_exposure": "best"}, "model.render_exposure is 'best'"),
    ],
)
def test_meaningless_settings_are_refused(change: dict, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        HashManifoldConfig(**change)


def test_an_original_checkpoint_is_found_by_its_name(room: Scene, tmp_path: Path) -> None:
    method = HashManifold.create(SMALL, room)
    assert method.load_original(tmp_path) is None
    (tmp_path / "epoch:00200.pth.tar").write_bytes(b"not a checkpoint")
    with pytest.raises(UserError, match=re.escape("epoch:00200.pth.tar")):
        method.load_original(tmp_path)
    torch.save({"epoch": 1}, tmp_path / "epoch:00200.pth.tar")
    with pytest.raises(UserError, match="not a checkpoint of XScale-NVS"):
        method.load_original(tmp_path)
