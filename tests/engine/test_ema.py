"""Moving average of the weights."""

from __future__ import annotations

import torch
from torch import nn

from engine.ema import Ema


def _module() -> nn.Module:
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    module[0].requires_grad_(False)
    return module


def test_it_averages_trained_weights_alone_with_a_warm_up_of_the_decay() -> None:
    module = _module()
    with torch.no_grad():
        module[1].weight.fill_(0.0)
    ema = Ema(module, decay=0.5)
    assert set(ema.weights) == {"1.weight", "1.bias"}
    expected = 0.0
    for step, decay in enumerate([1 / 10, 2 / 11, 3 / 12, 4 / 13, 5 / 14, 6 / 15, 7 / 16, 8 / 17, 0.5, 0.5]):
        with torch.no_grad():
            module[1].weight.fill_(float(step))
        ema.update(module, step)
        expected = decay * expected + (1 - decay) * step
        torch.testing.assert_close(ema.weights["1.weight"], torch.full((1, 2), expected))


def test_it_is_kept_in_float32() -> None:
    module = _module().to(torch.bfloat16)
    with torch.no_grad():
        module[1].weight.fill_(1.0)
    ema = Ema(module, decay=0.9999)
    with torch.no_grad():
        module[1].weight.fill_(2.0)
    ema.update(module, 10**6)
    torch.testing.assert_close(ema.weights["1.weight"], torch.full((1, 2), 1.0001), rtol=0, atol=2e-7)


def test_the_module_has_the_average_inside_the_block_and_its_own_weights_after_it() -> None:
    module = _module()
    ema = Ema(module, decay=0.9)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    ema.weights["1.bias"].fill_(7.0)
    try:
        with ema.applied(module):
            assert module[1].bias.item() == 7
            raise RuntimeError("a validation that fails")
    except RuntimeError:
        pass
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_load_continues_from_saved_averages() -> None:
    module = _module()
    ema, other = Ema(module, 0.9), Ema(_module(), 0.9)
    other.load(ema.weights)
    assert all(torch.equal(other.weights[name], value) for name, value in ema.weights.items())
    other.weights["1.bias"] += 1
    assert not torch.equal(other.weights["1.bias"], ema.weights["1.bias"])
