"""Training samples: frames, equal numbers of sources in a step, curricula, and one scene as a set."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from common.errors import UserError
from dataloader.framed import FramedScenes
from dataloader.framing import Framing
from dataloader.re10k.chunks import read_chunk, write_chunk
from dataloader.re10k.scenes import Re10kScenes
from dataloader.room_scenes import RoomScenes
from dataloader.scene_sets import OneScene
from dataloader.toy import make_scene
from dataloader.view_samplers import BoundedV2Sampler
from engine.config import DataConfig
from engine.method import ChunkedSamples
from methods.lvsm.config import LatentConfig, LossConfig, LvsmConfig, ViewsConfig
from methods.lvsm.data import ChunkedSceneViews, SceneViews, encoded_scenes, jitter
from methods.lvsm.losses import Criterion
from methods.lvsm.method import Lvsm
from methods.lvsm.normalise import source_frame
from tests.dataloader.re10k.makers import make_example, make_root
from tests.methods.lvsm.tiny import tiny_config, tiny_views


def near_views(**changes: object) -> ViewsConfig:
    """A sampler that suits rooms of nine views."""
    sampler = BoundedV2Sampler(
        num_target_views=3,
        min_distance_between_context_views=2,
        max_distance_between_context_views=4,
        initial_min_distance_between_context_views=2,
        initial_max_distance_between_context_views=4,
        max_distance_to_context_views=1,
        initial_max_distance_to_context_views=1,
    )
    return ViewsConfig(boundedv2=replace(sampler, **changes))  # type: ignore[arg-type]


def room_views(config: LvsmConfig) -> SceneViews:
    return SceneViews(RoomScenes(range(3), 9, (16, 16)), config)


def test_a_draw_depends_on_its_arguments_alone() -> None:
    config = replace(tiny_config(), views=near_views())
    once, again, other = (room_views(config).draw_at(1, seed, 5, 9) for seed in (4, 4, 5))
    torch.testing.assert_close(once.source.images, again.source.images, rtol=0, atol=0)
    torch.testing.assert_close(once.target.cameras.c2w, again.target.cameras.c2w, rtol=0, atol=0)
    assert not torch.equal(once.target.images[0], other.target.images[0])


def test_sources_fill_the_box() -> None:
    config = replace(tiny_config(), views=near_views())
    centers = room_views(config).draw_at(0, 1, 0, 0).source.cameras.center
    low, high = centers.min(0).values, centers.max(0).values
    assert float((high - low).max()) == pytest.approx(2)
    torch.testing.assert_close(low + high, torch.zeros(3), rtol=0, atol=1e-5)


def test_a_step_has_one_number_of_sources_that_grows() -> None:
    config = replace(
        tiny_config(),
        views=near_views(
            random_num_context_views=True, max_context_views=4, max_context_views_warm_up_steps=99
        ),
    )
    views = room_views(config)
    for step in (0, 200):
        counts = {
            key: {len(views.draw_at(i % 3, i, step, key).source) for i in range(6)} for key in range(12)
        }
        assert all(len(found) == 1 for found in counts.values())
        seen = set().union(*counts.values())
        assert seen == ({2} if step == 0 else {2, 3, 4})
    batch = views.collate([views.draw_at(i, i, 200, 3) for i in range(3)])
    assert batch.source.images.shape[0] == batch.target.images.shape[0] == 3
    assert batch.seeds == [0, 1, 2]


def test_a_step_has_one_size_of_several() -> None:
    config = replace(tiny_config(), views=near_views(), train_sizes=("16x16", "8x24"))
    views = room_views(config)
    sizes = {
        key: {tuple(views.draw_at(i, i, 0, key).source.images.shape[-2:]) for i in range(3)}
        for key in range(8)
    }
    assert all(len(found) == 1 for found in sizes.values())
    assert set().union(*sizes.values()) == {(16, 16), (8, 24)}
    sample = views.draw_at(0, 0, 0, 0)
    assert (sample.source.cameras.height, sample.source.cameras.width) == tuple(
        sample.source.images.shape[-2:]
    )
    with pytest.raises(UserError, match="write HEIGHTxWIDTH"):
        replace(config, train_sizes=("16",))


def test_a_single_scene_is_a_set() -> None:
    scene = make_scene(0, 9, 16, 16)
    sample = SceneViews(OneScene(scene), replace(tiny_config(), views=near_views())).draw(0, 1)
    assert sample.source.images.shape == (2, 3, 16, 16)


def test_jitter_turns_by_no_more_than_asked() -> None:
    draw = torch.Generator().manual_seed(0)
    angles = [torch.trace(jitter(10.0, draw)).sub(1).div(2).clamp(max=1).acos().rad2deg() for _ in range(20)]
    assert 0 < max(angles) <= 10
    torch.testing.assert_close(jitter(0.0, draw), torch.eye(3, dtype=torch.float64))


def test_sources_of_one_place_are_not_blown_up() -> None:
    cameras = tiny_views(3).cameras
    one = cameras[torch.tensor([0, 0])]
    frame = source_frame(one, single_scale=0.5)
    assert float(frame.scale) == 0.5
    assert frame(cameras).c2w.isfinite().all()
    torch.testing.assert_close(source_frame(cameras[:1])(cameras[:1]).c2w[0], torch.eye(4).double())


def chunk_views(root: Path, frames: list[int], config: LvsmConfig) -> SceneViews:
    """Chunks of scenes with so many frames each, 16x16."""
    make_root(root, [[make_example(i, n, (16, 16)) for i, n in enumerate(frames)]], "train", size=(16, 16))
    scenes = FramedScenes(Re10kScenes([root], "train", max_fov=170), config.images)
    return ChunkedSceneViews(scenes, config, 0, encoded_scenes(scenes, config))


def test_a_scene_that_is_too_short_gives_way_to_the_next(tmp_path: Path) -> None:
    config = replace(tiny_config(), views=near_views())
    views = chunk_views(tmp_path, [2, 2, 7], config)
    assert isinstance(views, ChunkedSamples)
    assert views.chunk_sizes == [3]
    short, long = views.draw_at(0, 5, 0, 0), views.draw_at(2, 5, 0, 0)
    torch.testing.assert_close(short.source.images, long.source.images, rtol=0, atol=0)
    with pytest.raises(UserError, match="too short for the view sampler"):
        chunk_views(tmp_path / "short", [2, 2], config).draw_at(0, 5, 0, 0)


def test_latents_of_pre_encoded_chunks_stand_in_for_photos(tmp_path: Path) -> None:
    config = replace(tiny_config(patch=2), views=near_views(), latent=LatentConfig(autoencoder="x"))
    assert chunk_views(tmp_path, [7], config).encoded is None
    chunk = read_chunk(tmp_path / "train/000000.torch")
    mean = torch.arange(7.0)[:, None, None, None].expand(7, 4, 8, 8)
    chunk[0]["vae_latents"] = {"mean": mean.bfloat16(), "std": torch.full_like(mean, 0.5).bfloat16()}
    write_chunk(chunk, tmp_path / "train/000000.torch")
    meta = {"expected_shape": [3, 16, 16], "vae_encoded": True, "vae_input_scaled": True}
    (tmp_path / "meta.json").write_text(json.dumps(meta))
    scenes = FramedScenes(Re10kScenes([tmp_path], "train", max_fov=170), config.images)
    encoded = encoded_scenes(scenes, config)
    assert encoded is not None
    sample = SceneViews(scenes, config, 0, encoded).draw_at(0, 3, 0, 0)
    assert sample.source_latents is not None
    assert sample.source_latents.shape == (2, 2, 4, 8, 8)
    frames = sample.source_latents[:, 0, 0, 0, 0].tolist()
    assert 2 <= frames[1] - frames[0] <= 4  # the frames drawn, in order
    assert sample.source.images.abs().max() == 0
    with pytest.raises(UserError, match="other convention"):
        encoded_scenes(scenes, replace(config, latent=LatentConfig(autoencoder="x", compat=True)))
    with pytest.raises(UserError, match=r"was encoded at 16x16, model\.images is 32x32"):
        encoded_scenes(scenes, replace(config, images=Framing(32, 32)))


def test_a_loss_without_weights_stops_before_training(tmp_path: Path) -> None:
    config = replace(tiny_config(), loss=LossConfig(perceptual=0.5, network="lpips", weights=str(tmp_path)))
    method = Lvsm.create(config)
    with pytest.raises(UserError, match=r"vgg16.*model\.loss\.weights"):
        method.samples(make_scene(0, 9, 16, 16), DataConfig())


def test_a_perceptual_loss_adds_to_the_error(tmp_path: Path) -> None:
    from torchvision.models import vgg16

    torch.manual_seed(0)
    features = vgg16(weights=None, init_weights=False).features.state_dict()
    torch.save({f"features.{name}": value for name, value in features.items()}, tmp_path / "vgg16-0.pth")
    loss = LossConfig(mse=2.0, perceptual=0.25, network="lpips", weights=str(tmp_path))
    criterion = Criterion(loss)
    criterion.prepare()
    images, targets = torch.rand(1, 2, 3, 32, 32), torch.rand(1, 2, 3, 32, 32)
    terms = criterion.image_losses(images.requires_grad_(), targets)
    expected = 2 * (images - targets).square().mean() + 0.25 * terms["perceptual"]
    torch.testing.assert_close(terms["loss"], expected)
    assert terms["perceptual"] > 0
    terms["loss"].backward()
    assert images.grad is not None
