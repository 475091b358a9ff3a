"""LVSM's promises: sources in any order, targets apart, any world frame, and the same by every way."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from common.errors import UserError
from geometry.cameras import Cameras
from geometry.poses import matrix_from_quaternion, pose
from geometry.views import Views
from methods.lvsm.attention import KeysValues
from methods.lvsm.config import LvsmConfig
from methods.lvsm.method import Lvsm
from methods.lvsm.network import FullDecoder, MaskedDecoder, from_patches, patches
from tests.methods.lvsm.tiny import SIZE, tiny_config, tiny_method, tiny_views

KINDS = ["masked", "full", "encoder_decoder"]
EXACT = {"rtol": 0.0, "atol": 1e-6}  # rays are float32


def render(method: Lvsm, source: Views, cameras: Cameras) -> Tensor:
    return method.render(method.encode(source), cameras).image


@pytest.mark.parametrize("kind", KINDS)
def test_the_order_of_sources_does_not_matter(kind: str) -> None:
    method, views = tiny_method(tiny_config(kind)), tiny_views(6)
    order = torch.tensor([2, 0, 3, 1])
    once = render(method, views[:4], views.cameras[4:])
    again = render(method, views[order], views.cameras[4:])
    torch.testing.assert_close(again, once, **EXACT)
    other = replace(views, images=views.images.flip(0))
    assert (render(method, other[:4], views.cameras[4:]) - once).abs().max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_targets_do_not_see_each_other(kind: str) -> None:
    method, views = tiny_method(tiny_config(kind)), tiny_views(8)
    together = render(method, views[:2], views.cameras[2:])  # six targets, three at a time
    alone = torch.cat([render(method, views[:2], views.cameras[i : i + 1]) for i in range(2, 8)])
    torch.testing.assert_close(together, alone, **EXACT)
    assert (together[0] - together[1]).abs().max() > 1e-3


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000), st.floats(0.1, 20), st.sampled_from(["sources", "first"]))
def test_the_world_frame_does_not_matter(seed: int, scale: float, frame: str) -> None:
    config = tiny_config()
    config.frame = frame  # type: ignore[assignment]
    method, views = tiny_method(config), tiny_views(5)
    moved = move(views, seed, scale if frame == "sources" else 1.0)
    here = render(method, views[:3], views.cameras[3:])
    there = render(method, moved[:3], moved.cameras[3:])
    torch.testing.assert_close(there, here, rtol=0, atol=1e-5)


def move(views: Views, seed: int, scale: float) -> Views:
    """The same views in a world that is turned, shifted and scaled."""
    draw = torch.Generator().manual_seed(seed)
    q = torch.nn.functional.normalize(torch.randn(4, generator=draw, dtype=torch.float64), dim=0)
    shift = 5 * torch.randn(3, generator=draw, dtype=torch.float64)
    c2w = views.cameras.c2w.clone()
    c2w[:, :3, 3] *= scale
    c2w = pose(matrix_from_quaternion(q), shift) @ c2w
    return replace(views, cameras=replace(views.cameras, c2w=c2w))


@pytest.mark.parametrize("layers", [1, 3])
def test_cached_sources_equal_one_masked_sequence(layers: int) -> None:
    network = tiny_method(tiny_config(layers=layers)).model.network
    assert isinstance(network, MaskedDecoder)
    draw = torch.Generator().manual_seed(0)
    images, rays, targets = (
        torch.rand(2, views, channels, SIZE, SIZE, generator=draw, dtype=torch.float64)
        for views, channels in ((3, 3), (3, 6), (2, 6))
    )
    one = masked(network, images, rays, targets)
    torch.testing.assert_close(network(images, rays, targets), one, **EXACT)


def masked(network: MaskedDecoder, images: Tensor, rays: Tensor, target_rays: Tensor) -> Tensor:
    """The readable twin: all tokens in one sequence, and who may look at whom as a mask."""
    sources = network.tokenize_sources(images, rays)
    targets = network.tokenize_targets(target_rays).unflatten(0, target_rays.shape[:2])
    tokens = targets.shape[2]
    ids = torch.cat(
        [torch.zeros(sources.shape[1]), torch.arange(1, 1 + targets.shape[1]).repeat_interleave(tokens)]
    )
    mask = (ids[:, None] == ids) | (ids == 0)
    x = network.norm_in(torch.cat([sources, targets.flatten(1, 2)], dim=1))
    for block in network.blocks:
        x = block(x, mask=mask)[0]
    return network.images(x[:, sources.shape[1] :].unflatten(1, (-1, tokens)).flatten(0, 1), target_rays)


def test_full_attention_is_approximate_only_when_asked() -> None:
    views, config = tiny_views(4), tiny_config("full")
    exact = tiny_method(config)
    config = tiny_config("full")
    config.render.approximate = True
    close = tiny_method(config)
    close.load_state_dict(exact.state_dict())
    assert isinstance(close.model.network, FullDecoder)
    assert exact.encode(views[:2]).encoded.layers is None
    assert close.encode(views[:2]).encoded.layers is not None
    error = (render(close, views[:2], views.cameras[2:]) - render(exact, views[:2], views.cameras[2:])).abs()
    assert 1e-4 < error.max() < 1


@pytest.mark.parametrize("kind", KINDS)
def test_kept_activations_change_no_gradient(kind: str) -> None:
    gradients = []
    for every in (0, 1):
        method = tiny_method(tiny_config(kind, checkpoint_every=every)).train()
        sample = method.random_sample(2, 2, 2)
        method(sample, 0)["loss"].backward()
        gradients.append(torch.cat([p.grad.flatten() for p in method.parameters() if p.grad is not None]))
    torch.testing.assert_close(gradients[0], gradients[1])
    assert gradients[0].abs().max() > 0


def test_patches_come_back() -> None:
    maps = torch.rand(2, 3, 5, 8, 12)
    cut = patches(maps, 4)
    assert cut.shape == (2, 3, 6, 80)
    torch.testing.assert_close(cut[0, 0, 1].unflatten(0, (5, 4, 4)), maps[0, 0, :, :4, 4:8])
    torch.testing.assert_close(from_patches(cut, 4, 8, 12), maps)


def test_odd_sizes_are_refused_with_the_setting() -> None:
    views = tiny_views(3)
    cameras = views.cameras.crop(0, 0, SIZE, SIZE - 2)
    odd = replace(views, images=views.images[..., : SIZE - 2], cameras=cameras)
    with pytest.raises(UserError, match=r"14x16.*multiples of 4.*model\.images\.height"):
        tiny_method().encode(odd)


def test_remembered_tokens_are_repeated_per_target() -> None:
    shown = KeysValues(torch.rand(2, 1, 3, 4), torch.rand(2, 1, 3, 4)).repeated(3)
    assert shown.keys.shape == (6, 1, 3, 4)
    torch.testing.assert_close(shown.keys[0], shown.keys[2])
    assert not torch.equal(shown.keys[2], shown.keys[3])


def test_the_official_frame_may_be_of_the_targets_too() -> None:
    views = tiny_views(4)
    config = LvsmConfig(frame="official")
    from methods.lvsm.data import scene_frame

    alone = scene_frame(config, views.cameras[:2])
    beside = scene_frame(config, views.cameras[:2], views.cameras[2:])
    assert beside.scale < alone.scale
