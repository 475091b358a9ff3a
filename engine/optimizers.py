"""Optimisers that torch does not have: several that the trainer drives as one, and Ranger."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


class CombinedOptimizer(torch.optim.Optimizer):
    """Optimisers of different kinds, each with its own parameters, as one.

    Groups and state are theirs, in order: a learning rate set here is set there, and one state dict holds
    all.
    """

    def __init__(self, *optimizers: torch.optim.Optimizer) -> None:
        self._parts = optimizers
        super().__init__([group for part in optimizers for group in part.param_groups], {})
        for part in optimizers:
            self.state.update(part.state)
        self._share()

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Let every optimiser take its step; returns what `closure` returns."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        for part in self._parts:
            part.step()
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As `Optimizer.load_state_dict`, for all of them."""
        super().load_state_dict(state_dict)
        self._share()

    def _share(self) -> None:
        """Give every optimiser its groups and the common state, as objects."""
        start = 0
        for part in self._parts:
            end = start + len(part.param_groups)
            part.param_groups, part.state = self.param_groups[start:end], self.state
            start = end


class Ranger(torch.optim.RAdam):
    """Rectified Adam with lookahead: the weights come back half-way to where they were, every few steps.

    RAdam by Liu et al. 2020, lookahead by Zhang et al. 2019. The slow weights are part of the optimiser's
    state, as 'slow', so that a run continues exactly. period: steps between two looks. share: of the way
    that the slow weights go towards the fast ones. Further arguments are RAdam's.
    """

    def __init__(
        self, parameters: Iterable[Tensor], lr: float, period: int = 6, share: float = 0.5, **settings: Any
    ) -> None:
        self._period, self._share = period, share
        super().__init__(parameters, lr, **settings)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take a step of RAdam, and every `period` steps one of the slow weights."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        due = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        starts = {p: p.detach().clone() for p in due if "slow" not in self.state[p]}
        super().step()
        for parameter in due:
            state = self.state[parameter]
            slow = state.setdefault("slow", starts.get(parameter))
            if int(state["step"]) % self._period == 0:
                slow.lerp_(parameter, self._share)
                parameter.copy_(slow)
        return loss
