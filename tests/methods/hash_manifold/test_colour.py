"""Transfer curve and 8-bit conventions."""

import torch

from methods.hash_manifold.colour import display, photo_values, quantize_original, srgb


def test_srgb_inverts_the_standard_decoding() -> None:
    v = torch.linspace(0, 1, 1001, dtype=torch.float64)
    linear = torch.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)
    torch.testing.assert_close(srgb(linear), v, atol=2e-4, rtol=0)


def test_display_stays_in_range_and_widening_passes_it() -> None:
    linear = torch.tensor([0.0, 0.001, 0.2, 1.0, 3.0])
    shown = display(linear)
    assert shown.min() == 0
    assert shown.max() == 1
    wide = display(linear, widen=True)
    torch.testing.assert_close(wide[[0, 3, 4]], torch.tensor([-0.001, 1.001, 1.001]))


def test_saturated_light_has_no_gradient() -> None:
    linear = torch.tensor([0.5, 1.5], requires_grad=True)
    display(linear).sum().backward()
    assert linear.grad is not None
    assert linear.grad[0] > 0
    assert linear.grad[1] == 0


def test_the_original_counts_256_levels_and_floors() -> None:
    photos = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(quantize_original(photo_values(photos, 256)), photos)
    assert quantize_original(torch.tensor([1.5, -0.1, 0.999])).tolist() == [255, 0, 255]
    assert photo_values(photos).max() == 1
