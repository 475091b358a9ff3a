"""Every form of a convolution gives what its twin gives, and the same gradients."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv3d as torch_conv3d

from methods.mask_volume import convolutions
from methods.mask_volume.convolutions import (
    add_constant_conv,
    constant_conv,
    constant_conv_twin,
    conv3d,
    upsampled_conv,
    upsampled_conv_twin,
)

CLOSE = {"rtol": 1e-4, "atol": 1e-4}


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def with_gradients(
    function: Callable[..., Tensor], inputs: list[Tensor | None], dtype: torch.dtype = torch.float32
) -> list[Tensor]:
    """What a function returns, and the gradients of its inputs for a fixed cotangent, as float32."""
    given = [None if x is None else x.detach().to(dtype).requires_grad_() for x in inputs]
    made = function(*given)
    made.backward(normal(*made.shape, seed=9).to(dtype))
    gradients = [x.grad for x in given if x is not None]
    assert all(gradient is not None for gradient in gradients)
    return [value.detach().float() for value in (made, *gradients) if value is not None]


@pytest.mark.parametrize(("size", "stride"), [(3, 1), (3, 2), (7, 1), (7, 2)])
@pytest.mark.parametrize("shape", [(2, 3, 5, 9, 11), (1, 2, 2, 8, 6)])
def test_own_gradients_are_torchs_in_double_precision(size: int, stride: int, shape: tuple[int, ...]) -> None:
    weight, bias = normal(4, shape[1], size, size, size), normal(4)

    def own(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return conv3d(x, w, b, stride, size // 2)

    def torchs(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return torch_conv3d(x, w, b, stride, size // 2)

    inputs = [normal(*shape), weight, bias]
    exact = with_gradients(torchs, inputs, torch.float64)
    for found, expected in zip(with_gradients(own, inputs), exact, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


def test_a_convolution_without_bias_and_of_a_volume_stored_otherwise() -> None:
    x, weight = normal(2, 3, 4, 5, 6), normal(4, 3, 3, 3, 3)
    plain = with_gradients(lambda a, w: torch_conv3d(a, w, None, 1, 1), [x, weight])
    last = x.to(memory_format=torch.channels_last_3d)
    for given in (x, last):
        found = with_gradients(lambda a, w: conv3d(a, w, None, 1, 1), [given, weight])
        for one, other in zip(found, plain, strict=True):
            torch.testing.assert_close(one, other, **CLOSE)


def test_only_wanted_gradients_are_made() -> None:
    x, weight, bias = normal(1, 2, 3, 4, 5), normal(3, 2, 3, 3, 3).requires_grad_(), normal(3)
    conv3d(x, weight, bias, 1, 1).sum().backward()
    assert weight.grad is not None
    assert x.grad is None
    assert bias.grad is None
    assert not conv3d(x, weight.detach(), bias, 1, 1).requires_grad


@pytest.mark.parametrize("shape", [(2, 3, 2, 3, 5), (1, 2, 1, 4, 4), (2, 2, 3, 1, 1)])
def test_convolving_on_the_coarse_grid_is_upsampling_first(shape: tuple[int, ...]) -> None:
    inputs = [normal(*shape), normal(4, shape[1], 3, 3, 3), normal(4)]
    twin = with_gradients(upsampled_conv_twin, inputs)
    for found, expected in zip(with_gradients(upsampled_conv, inputs), twin, strict=True):
        torch.testing.assert_close(found, expected, **CLOSE)
    with torch.no_grad():  # another way to put the pieces together
        torch.testing.assert_close(upsampled_conv(*inputs), twin[0], **CLOSE)  # type: ignore[arg-type]


@pytest.mark.parametrize("at_once", [1, 1500])
def test_the_coarse_grid_can_be_gone_through_in_pieces(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight, bias = normal(2, 3, 5, 4, 3), normal(4, 3, 3, 3, 3), normal(4)
    monkeypatch.setattr(convolutions, "_AT_ONCE", at_once)  # one plane at a time, or two
    torch.testing.assert_close(upsampled_conv(x, weight, bias), upsampled_conv_twin(x, weight, bias), **CLOSE)


@pytest.mark.parametrize("planes", [1, 2, 3, 5, 6, 7, 12])
@pytest.mark.parametrize("size", [3, 7])
def test_planes_that_are_all_alike_are_convolved_once(planes: int, size: int) -> None:
    inputs = [normal(2, 3, 5, 9), normal(4, 3, size, size, size)]
    twin = with_gradients(lambda x, w: constant_conv_twin(x, planes, w), inputs)
    found = with_gradients(lambda x, w: constant_conv(x, planes, w), inputs)
    assert found[0].shape == (2, 4, planes, 5, 9)
    for one, other in zip(found, twin, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5 * float(other.abs().max()))


@pytest.mark.parametrize("planes", [2, 9])
def test_alike_planes_are_added_to_what_is_there(planes: int) -> None:
    inputs = [normal(2, 4, planes, 5, 6), normal(2, 3, 5, 6), normal(4, 3, 7, 7, 7)]
    twin = with_gradients(lambda total, x, w: total + constant_conv_twin(x, planes, w), inputs)
    found = with_gradients(add_constant_conv, inputs)
    for one, other in zip(found, twin, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5 * float(other.abs().max()))
    total = inputs[0].clone()
    made = add_constant_conv(total, *inputs[1:])
    torch.testing.assert_close(made, twin[0], **CLOSE)
    assert made.data_ptr() == total.data_ptr()  # nobody wants a gradient: in place
