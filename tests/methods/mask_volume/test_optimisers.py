"""Every optimiser of the original takes steps downhill and continues exactly through a checkpoint's state."""

from __future__ import annotations

import io
from typing import get_args

import pytest
import torch
from torch import nn

from common.errors import UserError
from methods.mask_volume.optimisers import OptimizerConfig, OptimizerName, make_optimizer


def start(name: OptimizerName, decay: float = 0.0) -> tuple[nn.Linear, torch.optim.Optimizer]:
    torch.manual_seed(0)
    layer = nn.Linear(4, 3)
    return layer, make_optimizer(OptimizerConfig(name, weight_decay=decay), layer.parameters(), 0.02)


def descend(layer: nn.Linear, optimizer: torch.optim.Optimizer, steps: range) -> float:
    for i in steps:
        x = torch.randn(8, 4, generator=torch.Generator().manual_seed(i))
        optimizer.zero_grad()
        loss = layer(x).square().mean()
        loss.backward()
        optimizer.step()
    return float(loss.detach())


@pytest.mark.parametrize("name", get_args(OptimizerName))
def test_it_descends_and_continues_exactly(name: OptimizerName) -> None:
    layer, optimizer = start(name)
    first = descend(layer, optimizer, range(1))
    descend(layer, optimizer, range(1, 15))
    file = io.BytesIO()
    torch.save((layer.state_dict(), optimizer.state_dict()), file)
    file.seek(0)
    weights, state = torch.load(file, weights_only=True)
    other, resumed = start(name)
    other.load_state_dict(weights)
    resumed.load_state_dict(state)
    last = descend(layer, optimizer, range(15, 40))
    assert descend(other, resumed, range(15, 40)) == last
    assert torch.equal(layer.weight, other.weight)
    assert last < 0.9 * first


@pytest.mark.parametrize("name", get_args(OptimizerName))
def test_weight_decay_pulls_to_zero(name: OptimizerName) -> None:
    layer, optimizer = start(name, decay=0.5)
    plain, without = start(name)
    for i in range(7):
        for module, optim in ((layer, optimizer), (plain, without)):
            optim.zero_grad()
            (module(torch.ones(1, 4)).sum() * 1e-3 * (-1) ** i).backward()
            optim.step()
    assert layer.weight.norm() < plain.weight.norm()


def test_settings_below_zero_are_refused() -> None:
    with pytest.raises(UserError, match=r"model\.optimizer\.momentum"):
        OptimizerConfig(momentum=-1)
