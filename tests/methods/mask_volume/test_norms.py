"""ReLU and norm in place: torch's result, and nothing overwritten where gradients are wanted."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from methods.mask_volume import norms
from methods.mask_volume.norms import rectified_norm, rectified_norm_twin


def group_norm(channels: int) -> nn.GroupNorm:
    norm = nn.GroupNorm(1, channels)
    with torch.no_grad():
        norm.weight.uniform_(0.5, 2)
        norm.bias.uniform_(-1, 1)
    return norm


def volume(layout: torch.memory_format = torch.contiguous_format) -> Tensor:
    """Not centred, so that variance is a small difference of large sums."""
    made = 3 + torch.randn(2, 5, 6, 7, 8, generator=torch.Generator().manual_seed(3))
    return made.to(memory_format=layout)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
@pytest.mark.parametrize("worth_a_thread", [100, 1 << 22])
@torch.no_grad()
def test_in_place_as_torch(
    layout: torch.memory_format, worth_a_thread: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(norms, "_WORTH_A_THREAD", worth_a_thread)
    norm, x = group_norm(5), volume(layout)
    exact = rectified_norm_twin(x.double(), deepcopy(norm).double()).float()
    made = rectified_norm(x, norm)
    torch.testing.assert_close(made, exact, rtol=1e-6, atol=1e-6)
    assert made.data_ptr() == x.data_ptr()


@torch.no_grad()
def test_a_volume_without_any_spread() -> None:
    norm = group_norm(2)
    made = rectified_norm(torch.full((1, 2, 3, 4), 20.0), norm)
    torch.testing.assert_close(made, norm.bias.view(1, 2, 1, 1).expand_as(made), rtol=0, atol=1e-3)


@torch.no_grad()
def test_what_is_no_number_is_not_hidden() -> None:
    x = volume()
    x[0, 0, 0, 0, 0] = torch.nan
    made = rectified_norm(x, group_norm(5))
    assert made[0].isnan().all()
    assert made[1].isfinite().all()


@torch.no_grad()
def test_gaps_between_the_numbers_stay_as_they_are() -> None:
    norm, whole = group_norm(5), volume()
    kept = whole.clone()
    made = rectified_norm(whole[..., ::2], norm)
    torch.testing.assert_close(made, rectified_norm_twin(kept[..., ::2], norm))
    torch.testing.assert_close(whole[..., 1::2], kept[..., 1::2], rtol=0, atol=0)


def test_gradients_are_torchs() -> None:
    norm, x = group_norm(5), volume()
    given = [x.clone().requires_grad_() for _ in range(2)]
    # what a layer of the network hands over may be overwritten: not a leaf
    made = rectified_norm(given[0] * 1, norm), rectified_norm_twin(given[1], norm)
    ours, wanted = (
        torch.autograd.grad((result * volume()).sum(), [leaf, norm.weight, norm.bias])
        for result, leaf in zip(made, given, strict=True)
    )
    for mine, other in zip(ours, wanted, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-4)
    assert all(float(other.abs().max()) > 0 for other in wanted)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.no_grad()
def test_sixteen_bits_have_statistics_of_float32(dtype: torch.dtype) -> None:
    norm, x = group_norm(5), volume()
    wanted = rectified_norm_twin(x, norm)
    made = rectified_norm(x.to(dtype), norm.to(dtype))
    assert made.dtype == dtype
    assert float((made.float() - wanted).abs().max()) < 8 * torch.finfo(dtype).eps * float(wanted.abs().max())
