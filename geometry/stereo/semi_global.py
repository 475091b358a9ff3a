"""Semi-global aggregation of a cost volume (Hirschmüller 2008, Stereo processing by semiglobal matching)."""

from __future__ import annotations

import torch
from torch import Tensor


def aggregate(cost: Tensor, step_penalty: float, jump_penalty: float) -> Tensor:
    """Sum of the path costs along the 4 image directions (equation 13 of the paper).

    cost: [D, H, W]. step_penalty: for neighbours one plane apart; jump_penalty: for any larger jump; the same
    units as cost. Returns [D, H, W] divided by 4, so that it stays comparable with the cost.
    """
    rows = cost.permute(1, 2, 0).contiguous()  # [H, W, D]: paths run along the first axis
    columns = cost.permute(2, 1, 0).contiguous()  # [W, H, D]
    total = _paths(rows, step_penalty, jump_penalty)
    total += _paths(columns, step_penalty, jump_penalty).transpose(0, 1)
    return (total / 4).permute(2, 0, 1)


def _paths(cost: Tensor, step_penalty: float, jump_penalty: float) -> Tensor:
    """Both directions along the first axis of [N, M, D], summed."""
    total = torch.zeros_like(cost)
    for order in (range(len(cost)), range(len(cost) - 1, -1, -1)):
        previous = torch.zeros_like(cost[0])
        for i in order:
            previous = _step(cost[i], previous, step_penalty, jump_penalty)
            total[i] += previous
    return total


def _step(cost: Tensor, previous: Tensor, step_penalty: float, jump_penalty: float) -> Tensor:
    """One step of every path: [M, D] -> [M, D]. The previous minimum is taken off so that costs stay
    bounded.
    """
    lowest = previous.amin(-1, keepdim=True)
    best = torch.minimum(previous, lowest + jump_penalty)
    best[:, 1:] = torch.minimum(best[:, 1:], previous[:, :-1] + step_penalty)
    best[:, :-1] = torch.minimum(best[:, :-1], previous[:, 1:] + step_penalty)
    return cost + best - lowest
