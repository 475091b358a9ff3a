"""Several optimisers that the trainer drives as one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


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
