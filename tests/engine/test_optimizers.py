"""Combined optimisers behave as their parts would alone."""

import io

import torch
from torch import nn

from engine.optimizers import CombinedOptimizer, Ranger


def parts() -> tuple[nn.Linear, nn.Linear, list[torch.optim.Optimizer]]:
    torch.manual_seed(0)
    a, b = nn.Linear(3, 2), nn.Linear(3, 2)
    return (
        a,
        b,
        [torch.optim.Adam(a.parameters(), lr=0.1), torch.optim.SGD(b.parameters(), lr=0.2, momentum=0.9)],
    )


def run(a: nn.Linear, b: nn.Linear, optimizers: list[torch.optim.Optimizer], first: int, last: int) -> None:
    for i in range(first, last):
        x = torch.randn(4, 3, generator=torch.Generator().manual_seed(i))
        for optimizer in optimizers:
            optimizer.zero_grad()
        (a(x).square().sum() + b(x).sum()).backward()
        for optimizer in optimizers:
            optimizer.step()


def test_it_does_what_its_parts_do() -> None:
    a, b, separate = parts()
    c, d, others = parts()
    run(a, b, separate, 0, 4)
    run(c, d, [CombinedOptimizer(*others)], 0, 4)
    assert torch.equal(a.weight, c.weight)
    assert torch.equal(b.weight, d.weight)


def test_rates_set_on_the_whole_reach_the_parts() -> None:
    a, _, optimizers = parts()
    combined = CombinedOptimizer(*optimizers)
    for group in combined.param_groups:
        group["lr"] = 0.0
    before = a.weight.clone()
    run(*parts()[:2], [combined], 0, 1)
    assert torch.equal(a.weight, before)
    assert [part.param_groups[0]["lr"] for part in optimizers] == [0.0, 0.0]


def test_it_resumes_from_its_state_dict() -> None:
    a, b, optimizers = parts()
    combined = CombinedOptimizer(*optimizers)
    run(a, b, [combined], 0, 3)
    file = io.BytesIO()
    torch.save({"a": a.state_dict(), "b": b.state_dict(), "o": combined.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    run(a, b, [combined], 3, 6)
    c, d, others = parts()
    c.load_state_dict(saved["a"])
    d.load_state_dict(saved["b"])
    resumed = CombinedOptimizer(*others)
    resumed.load_state_dict(saved["o"])
    run(c, d, [resumed], 3, 6)
    assert torch.equal(a.weight, c.weight)
    assert torch.equal(b.weight, d.weight)


def ranger() -> tuple[nn.Linear, Ranger]:
    torch.manual_seed(0)
    layer = nn.Linear(3, 2)
    return layer, Ranger(layer.parameters(), 0.05, betas=(0.95, 0.999))


def descend(layer: nn.Linear, optimizer: torch.optim.Optimizer, first: int, last: int) -> None:
    for i in range(first, last):
        x = torch.randn(4, 3, generator=torch.Generator().manual_seed(i))
        optimizer.zero_grad()
        layer(x).square().sum().backward()
        optimizer.step()


def test_ranger_goes_half_way_back_every_sixth_step() -> None:
    layer, optimizer = ranger()
    plain = ranger()[0]
    start = plain.weight.detach().clone()
    radam = torch.optim.RAdam(plain.parameters(), 0.05, betas=(0.95, 0.999))
    descend(layer, optimizer, 0, 5)
    descend(plain, radam, 0, 5)
    assert torch.equal(layer.weight, plain.weight)
    descend(layer, optimizer, 5, 6)
    descend(plain, radam, 5, 6)
    torch.testing.assert_close(layer.weight.detach(), (start + plain.weight.detach()) / 2)
    assert not torch.equal(layer.weight, plain.weight)


def test_ranger_continues_exactly_from_its_state() -> None:
    layer, optimizer = ranger()
    descend(layer, optimizer, 0, 9)
    file = io.BytesIO()
    torch.save((layer.state_dict(), optimizer.state_dict()), file)
    file.seek(0)
    weights, state = torch.load(file, weights_only=True)
    other, resumed = ranger()
    other.load_state_dict(weights)
    resumed.load_state_dict(state)
    descend(layer, optimizer, 9, 20)
    descend(other, resumed, 9, 20)
    assert torch.equal(layer.weight, other.weight)
