"""Sweeps and multi-plane images: which colours a voxel takes, margins, backdrops, and mixing by the mask."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from geometry.cameras import Cameras, pinhole, stack_cameras
from geometry.planes import OUT_OF_VIEW, in_view, plane_depths
from methods.mask_volume.model import Frame, PlaneModel, Swept, blend
from tests.methods.mask_volume.tiny import AS_PUBLISHED, HEIGHT, WIDTH, rig_views, tiny_config, tiny_method

RED, GREEN = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 1.0, 0.0])


def model(stage: str = "mpi", **settings: Any) -> PlaneModel:
    return tiny_method(tiny_config(stage, **settings)).model


def apart(distance: float = 2.0) -> Cameras:
    """Two cameras [1, 2] side by side, so far apart that each sees things that the other does not."""
    c2w = torch.eye(4, dtype=torch.float64).repeat(2, 1, 1)
    c2w[1, 0, 3] = distance
    return stack_cameras([pinhole(30.0, HEIGHT, WIDTH, pose) for pose in c2w])[None]


def swept(network: PlaneModel, cameras: Cameras, images: Tensor) -> tuple[Swept, Frame]:
    depths = plane_depths(torch.tensor([2.0]).double(), torch.tensor([12.0]).double(), 4)
    frame = network.frame(cameras[:, 0], depths)
    return network.sweep(images, cameras, frame), frame


def plain_colors() -> Tensor:
    """A red photo and a green one [1, 2, 3, H, W]."""
    return torch.stack([RED, GREEN])[None, :, :, None, None].expand(-1, -1, -1, HEIGHT, WIDTH)


def is_color(layers: Tensor, color: Tensor) -> Tensor:
    return (layers[..., :3] - color).abs().amax(-1) < 1e-5


@torch.no_grad()
def test_voxels_take_no_colour_of_views_that_do_not_reach_them() -> None:
    network = model(margin=0.25, premultiplied=False)
    cameras = apart()
    volume, frame = swept(network, cameras, plain_colors())
    layers = network.mpi(volume)[0]
    first, second = in_view(cameras, frame.reference, frame.depths)[0]
    for where in (first & second, first & ~second, ~first & second, ~first & ~second):
        assert where.any()
    assert is_color(layers, RED)[first & ~second].all()
    assert is_color(layers, GREEN)[~first & second].all()
    for where in (first & second, ~first & ~second):  # seen by both, or by none: edge colours of both
        mixed = layers[where][:, :3]
        torch.testing.assert_close(mixed.sum(-1), torch.ones(len(mixed)))
        assert mixed[:, :2].min() > 1e-5


@torch.no_grad()
def test_the_networks_are_told_where_no_photo_reaches() -> None:
    network = model(margin=0.25)
    images = rig_views(2, size=(HEIGHT, WIDTH)).images[None]
    volume, _ = swept(network, apart(), images)
    assert volume.reach is not None
    first, other = volume.parts(0, torch.float32)
    assert first.image is not None
    assert other.volume is not None
    assert (first.first, other.first) == (0, 3)
    inside = volume.reach[:, :1, 0].expand_as(first.image)
    assert (first.image[~inside] == OUT_OF_VIEW).all()
    assert first.image[inside].min() >= 0
    reached = volume.reach[:, 1:].expand_as(other.volume)
    assert (other.volume[~reached] == OUT_OF_VIEW).all()
    assert other.volume[reached].min() > -1e-6
    assert volume.others.min() > -1e-6  # while colours are those of the nearest edge
    assert volume.first.min() > -1e-6


@torch.no_grad()
def test_three_views_are_mixed_where_they_reach() -> None:
    network = model(views=3, premultiplied=False)
    views = rig_views(3, size=(HEIGHT, WIDTH))
    volume, _ = swept(network, views.cameras.reshape(1, 3), views.images[None])
    assert volume.others.shape == (1, 2, 3, 4, HEIGHT, WIDTH)
    assert [part.first for part in volume.parts(9, torch.float32)] == [9, 12]
    layers = network.mpi(volume)
    assert layers.shape == (1, 4, HEIGHT, WIDTH, 4)
    sources = torch.cat([volume.first[:, :, None].expand(-1, -1, 4, -1, -1)[:, None], volume.others], 1)
    low, high = sources.amin(1), sources.amax(1)
    colors = layers[..., :3].permute(0, 4, 1, 2, 3)
    assert ((colors > low - 1e-5) & (colors < high + 1e-5)).all()


@torch.no_grad()
def test_a_margin_adds_to_planes_and_keeps_their_middle() -> None:
    views = rig_views(2, size=(HEIGHT, WIDTH))
    cameras, images = views.cameras.reshape(1, 2), views.images[None]
    narrow, _ = swept(model(), cameras, images)
    network = model(margin=0.25)
    wide, frame = swept(network, cameras, images)
    y, x = round(0.25 * HEIGHT), round(0.25 * WIDTH)
    assert (frame.reference.height, frame.reference.width) == (HEIGHT + 2 * y, WIDTH + 2 * x)
    middle = (..., slice(y, -y), slice(x, -x))
    torch.testing.assert_close(wide.first[middle], narrow.first)
    torch.testing.assert_close(wide.first[middle], images[:, 0])  # the reference's photo as it is
    torch.testing.assert_close(wide.others[middle], narrow.others)
    assert wide.reach is not None
    assert wide.reach[:, 0][middle].all()
    assert not wide.reach[:, 0, :, 0].any()
    assert network.mpi(wide).shape == (1, 4, HEIGHT + 2 * y, WIDTH + 2 * x, 4)


@torch.no_grad()
def test_backdrop_and_premultiplied_colours() -> None:
    views = rig_views(2, size=(HEIGHT, WIDTH))
    made = {}
    for name, settings in {
        "plain": {"premultiplied": False, "backdrop": False},
        "backdrop": {"premultiplied": False, "backdrop": True},
        "both": {"premultiplied": True, "backdrop": True},
    }.items():
        network = model(**settings)
        made[name] = network.mpi(swept(network, views.cameras.reshape(1, 2), views.images[None])[0])
    plain, backdrop, both = made.values()
    assert plain[:, 0, ..., 3].max() < 1
    assert (backdrop[:, 0, ..., 3] == 1).all()
    assert torch.equal(backdrop[:, 1:], plain[:, 1:])
    assert torch.equal(backdrop[..., :3], plain[..., :3])
    torch.testing.assert_close(both[..., :3], backdrop[..., :3] * backdrop[..., 3:])
    assert torch.equal(both[..., 3], backdrop[..., 3])


@torch.no_grad()
def test_published_weights_get_what_they_were_trained_on() -> None:
    """Flags out of view take part as colours, nothing is multiplied by alpha, no plane is opaque."""
    network = model(**AS_PUBLISHED)
    volume, _ = swept(network, apart(), plain_colors())
    assert volume.reach is None
    first, other = volume.parts(0, torch.float32)
    assert first.image is not None
    torch.testing.assert_close(first.image, volume.first)
    torch.testing.assert_close(other.volume, volume.others[:, 0])
    assert float(volume.others.min()) == OUT_OF_VIEW
    layers = network.mpi(volume)
    response = network.mpi_net.response(volume.parts(0, torch.float32), 4, bias=True)
    alpha, logits = network.mpi_net.head(network.mpi_net.after_first(response, volume.others.shape[3:]))
    torch.testing.assert_close(layers[..., 3], alpha)
    weights = logits.softmax(1)[..., None]
    expected = weights[:, 0] * volume.first.permute(0, 2, 3, 1)[:, None]
    expected = expected + weights[:, 1] * volume.others[:, 0].permute(0, 2, 3, 4, 1)
    torch.testing.assert_close(layers[..., :3], expected)
    assert layers[..., :3].min() < -0.1


@pytest.mark.parametrize("settings", [{}, AS_PUBLISHED])
@torch.no_grad()
def test_the_mask_chooses_between_now_and_the_plates(settings: dict[str, Any]) -> None:
    views = rig_views(2, size=(HEIGHT, WIDTH))
    assert views.background is not None
    network = model("mask", **settings)
    cameras = views.cameras.reshape(1, 2)
    now, _ = swept(network, cameras, views.images[None])
    plates, _ = swept(network, cameras, views.background[None])
    assert network.mask_net is not None
    ends = []
    for bias in (60.0, -60.0):
        network.mask_net.conv7_3.bias.fill_(bias)
        mask = network.mask(now, network.still_response(plates))
        assert mask.shape == (1, 1, 4, HEIGHT, WIDTH)
        ends.append(blend(mask, network.mpi(now), network.mpi(plates)))
    torch.testing.assert_close(ends[0], network.mpi(now))
    torch.testing.assert_close(ends[1], network.mpi(plates))
    assert (ends[0] - ends[1]).abs().max() > 0.1


def test_all_four_channels_are_mixed_alike() -> None:
    draw = torch.Generator().manual_seed(0)
    now, still = (torch.rand(2, 3, 4, 5, 4, generator=draw) for _ in range(2))
    mask = torch.rand(2, 1, 3, 4, 5, generator=draw)
    weight = mask[:, 0, ..., None]
    torch.testing.assert_close(blend(mask, now, still), weight * now + (1 - weight) * still)


@torch.no_grad()
def test_the_mask_network_sees_photos_and_plates() -> None:
    """Its channels: photos of all views, then plates of all views (specs/mask_volume 2.4)."""
    network = model("mask")
    views = rig_views(2, size=(HEIGHT, WIDTH))
    assert views.background is not None
    cameras = views.cameras.reshape(1, 2)
    now, _ = swept(network, cameras, views.images[None])
    plates, _ = swept(network, cameras, views.background[None])
    parts = [*now.parts(0, torch.float32), *plates.parts(6, torch.float32)]
    assert [part.first for part in parts] == [0, 3, 6, 9]
    volumes = [p.volume if p.image is None else p.image[:, :, None].expand(-1, -1, 4, -1, -1) for p in parts]
    assert network.mask_net is not None
    whole = network.mask_net(torch.cat([v for v in volumes if v is not None], 1)).sigmoid()
    torch.testing.assert_close(network.mask(now, network.still_response(plates)), whole, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_samples_of_a_batch_do_not_see_each_other() -> None:
    network = model("mask", margin=0.1)
    one, two = (rig_views(2, seed=seed, size=(HEIGHT, WIDTH)) for seed in (0, 1))
    cameras = stack_cameras([one.cameras, two.cameras])
    images = torch.stack([one.images, two.images])
    depths = plane_depths(torch.tensor([1.0, 2.0]).double(), torch.tensor([9.0, 5.0]).double(), 4)
    frame = network.frame(cameras[:, 0], depths)
    together = network.mpi(network.sweep(images, cameras, frame))
    for i in range(2):
        part = slice(i, i + 1)
        alone = network.frame(cameras[part, 0], depths[part])
        made = network.mpi(network.sweep(images[part], cameras[part], alone))
        torch.testing.assert_close(made[0], together[i], rtol=1e-4, atol=1e-5)
