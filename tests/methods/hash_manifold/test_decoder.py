"""The decoder's shapes, start values and branches (its values: tests/parity)."""

import math

import pytest
import torch

from methods.hash_manifold.decoder import Decoder, Film


def test_the_shipped_size_has_the_parameters_the_original_states() -> None:
    decoder = Decoder(features=128, width=64, lighting=8, exposure=4)
    assert sum(parameter.numel() for parameter in decoder.parameters()) == 63_683


def test_sine_layers_start_as_specified() -> None:
    torch.manual_seed(0)
    first, later = Film(128, 64, first=True).layer.weight, Film(64, 64).layer.weight
    assert 0.9 / 128 < first.abs().max() <= 1 / 128
    bound = math.sqrt(6 / 64) / 25
    assert 0.9 * bound < later.abs().max() <= bound


def test_codes_broadcast_over_rays() -> None:
    """One code for all rays gives what the same code given per ray gives."""
    torch.manual_seed(1)
    decoder = Decoder(12, 16, 8, 4)
    features, direction = torch.randn(5, 12), torch.nn.functional.normalize(torch.randn(5, 3), dim=-1)
    light, code = torch.randn(1, 8), torch.randn(1, 4)
    once = decoder(features, direction, decoder.mapping_network(light), decoder.exposure(code))
    each = decoder(
        features, direction, decoder.mapping_network(light.expand(5, 8)), decoder.exposure(code.expand(5, 4))
    )
    torch.testing.assert_close(once, each)
    assert once.shape == (5, 3)
    assert ((once > 0) & (once < 1)).all()


def test_colours_depend_on_the_direction() -> None:
    torch.manual_seed(2)
    decoder = Decoder(12, 16, 8, 0)
    features, light = torch.randn(4, 12), decoder.mapping_network(torch.randn(1, 8))
    ahead = torch.tensor([[0.0, 0.0, 1.0]]).expand(4, 3)
    assert not torch.allclose(decoder(features, ahead, light), decoder(features, -ahead, light))


def test_without_the_branch_there_is_no_exposure() -> None:
    with pytest.raises(ValueError, match="no exposure"):
        Decoder(12, 16, 8, 0).exposure(torch.zeros(1, 4))
