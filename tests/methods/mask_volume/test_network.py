"""The 3D U-Net: its size, any shape of volume, and the same result in every form and in parts."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from methods.mask_volume.network import PLAIN, Forms, MaskNet, MpiNet, Part, UNet3d

CLOSE = {"rtol": 1e-4, "atol": 1e-4}
SHAPES = [(8, 16, 16), (2, 9, 13), (3, 7, 21), (5, 10, 6), (12, 17, 8)]


def net(inputs: int = 6, outputs: int = 2, seed: int = 0) -> UNet3d:
    torch.manual_seed(seed)
    return UNet3d(inputs, outputs, width=2).eval()


def volume(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def count(network: UNet3d) -> int:
    return sum(p.numel() for p in network.parameters())


def test_parameters_are_as_many_as_published() -> None:
    assert (count(MpiNet()), count(MaskNet())) == (576_994, 593_241)


def test_more_views_widen_the_ends_alone() -> None:
    two, three = MpiNet(2), MpiNet(3)
    assert three.conv1_1.conv.weight.shape == (8, 9, 7, 7, 7)
    assert three.conv7_3.conv.weight.shape[0] == 3
    assert count(three) - count(two) == 8 * 3 * 343 + 8 * 27 + 1
    assert MaskNet(3).conv1_1.conv.weight.shape[1] == 18


@torch.no_grad()
@pytest.mark.parametrize("shape", SHAPES)
def test_any_size_comes_out_as_it_went_in_whatever_the_form(shape: tuple[int, int, int]) -> None:
    network, given = net(), volume(1, 6, *shape)
    made = network(given)
    assert made.shape == (1, 2, *shape)
    assert made.std() > 1e-3
    network.forms = PLAIN
    torch.testing.assert_close(network(given), made, **CLOSE)


@torch.no_grad()
def test_each_form_alone_changes_nothing() -> None:
    network, given = net(), volume(2, 6, 3, 9, 11)
    network.forms = PLAIN
    plain = network(given)
    for name in ("one_dnn", "subpixel", "constant"):
        network.forms = Forms(**{**vars(PLAIN), name: True})
        torch.testing.assert_close(network(given), plain, **CLOSE)


@pytest.mark.parametrize("forms", [PLAIN, Forms()])
def test_parts_add_up_to_the_whole(forms: Forms) -> None:
    """Images in place of volumes whose planes are alike, in any order, give the same, gradients too."""
    planes, height, width = 5, 7, 10
    images = volume(2, 3, height, width).double()
    rest = volume(2, 3, planes, height, width, seed=1).double()
    whole = torch.cat([images[:, :, None].expand(-1, -1, planes, -1, -1), rest], 1)
    network = net().double()
    network.forms = forms
    expected = network(whole)
    for parts in (
        [Part(0, image=images), Part(3, volume=rest)],
        [Part(3, volume=rest), Part(0, volume=whole[:, :3])],
    ):
        response = network.response(parts, planes, bias=True)
        torch.testing.assert_close(network.after_first(response, (planes, height, width)), expected)
    split = network.response([Part(0, image=images)], planes, bias=True)
    split = split + network.response([Part(3, volume=rest)], planes)
    made = network.after_first(split, (planes, height, width))
    torch.testing.assert_close(made, expected)
    gradients = []
    for output in (expected, made):
        network.zero_grad()
        output.square().mean().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None]))
    assert len(gradients[0]) == count(network)
    torch.testing.assert_close(gradients[1], gradients[0])


@torch.no_grad()
def test_volumes_of_a_batch_do_not_see_each_other() -> None:
    network, given = net(), volume(2, 6, 4, 9, 10)
    together = network(given)
    alone = torch.cat([network(given[i : i + 1]) for i in range(2)])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)
    changed = network(torch.stack([given[0], 3 * given[1]]))
    torch.testing.assert_close(changed[0], together[0], rtol=1e-5, atol=1e-5)
    assert (changed[1] - together[1]).abs().max() > 1e-3


@torch.no_grad()
def test_norms_see_the_whole_volume() -> None:
    """One group over channels and positions: a change in one corner is felt in the other (no tiling)."""
    network, given = net(), volume(1, 6, 4, 24, 32)
    other = given.clone()
    other[..., :4, :4] = 5
    assert (network(other) - network(given))[..., -2:, -2:].abs().max() > 1e-6


def test_the_first_view_has_no_logit_of_its_own() -> None:
    raw = volume(1, 3, 2, 4, 5)
    alpha, logits = MpiNet.head(raw)
    assert alpha.shape == (1, 2, 4, 5)
    torch.testing.assert_close(alpha, raw[:, 0].sigmoid())
    assert not logits[:, 0].any()
    assert torch.equal(logits[:, 1:], raw[:, 1:])
