"""Adam for a large table of which every step touches few rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.errors import UserError
from geometry.threads import run_all

_CHUNK = 1 << 16  # rows per job
_Tables = tuple[Tensor, Tensor, Tensor]  # values and both moments, [R, F]
_Settings = tuple[float, float, float, float, float]  # beta1, beta2, step size, bias correction, eps


class LazyAdam(torch.optim.Optimizer):
    """Adam (Kingma and Ba 2015) that moves only the rows [F] of tables [R, F] which have a gradient.

    A row whose gradient is entirely zero keeps its value and its moments, so a step costs what it touches.
    The bias correction counts all steps. Where every row always has a gradient this is torch.optim.Adam.

    params: float32 tables [R, F]. Gradients are sparse over rows (the listed rows move) or dense (the rows
    with any number other than zero). lr, betas, eps: as in Adam. implementation: 'torch', 'numba' (CPU; the
    same result to rounding in one pass over the rows), 'auto': 'numba' on a CPU. Deterministic.
    State per table: `step`, and `exp_avg` and `exp_avg_sq` like the table.

    Raises UserError for settings out of range, ValueError for parameters that are no float32 tables.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        implementation: str = "auto",
    ) -> None:
        if implementation not in ("auto", "torch", "numba"):
            raise UserError(f"LazyAdam: no implementation {implementation!r}: use auto, torch or numba")
        if lr < 0 or eps < 0 or not all(0 <= beta < 1 for beta in betas):
            raise UserError(f"LazyAdam: lr={lr}, betas={betas}, eps={eps}: betas lie in [0, 1), none below 0")
        self.implementation = implementation
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add tables with settings of their own."""
        super().add_param_group(param_group)
        for param in self.param_groups[-1]["params"]:
            if param.ndim != 2 or param.dtype != torch.float32:
                raise ValueError(
                    f"LazyAdam moves float32 tables [R, F], not {param.dtype} {list(param.shape)}"
                )

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Move the touched rows of every table that has a gradient; returns what `closure` returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is not None:
                    self._move(param, param.grad, group)
        return loss

    def _move(self, param: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[param]
        if not state:
            state["step"] = torch.zeros(())
            state["exp_avg"] = torch.zeros_like(param)
            state["exp_avg_sq"] = torch.zeros_like(param)
        state["step"] += 1
        step, (beta1, beta2) = int(state["step"]), group["betas"]
        size = float(group["lr"]) / (1 - beta1**step)
        settings = (beta1, beta2, size, (1 - beta2**step) ** 0.5, group["eps"])
        move = _move_with_numba if self._uses_numba(param) else _move_with_torch
        move((param, state["exp_avg"], state["exp_avg_sq"]), gradient, settings)

    def _uses_numba(self, param: Tensor) -> bool:
        if self.implementation == "auto":
            return param.device.type == "cpu" and param.is_contiguous()
        return self.implementation == "numba"


def touched_rows(gradient: Tensor) -> tuple[Tensor, Tensor]:
    """The rows [U] int64 that a gradient of a table [R, F] touches, ascending, and their gradients [U, F]."""
    if gradient.is_sparse:
        rows = gradient._indices()[0]
        # Autograd forgets that a gradient is coalesced. To see that it is costs far less than to sort it.
        if not (gradient.is_coalesced() or bool((rows[1:] > rows[:-1]).all())):
            gradient = gradient.coalesce()
        return gradient._indices()[0], gradient._values()
    rows = (gradient != 0).any(dim=1).nonzero()[:, 0]
    return rows, gradient.index_select(0, rows)


def _move_with_torch(tables: _Tables, gradient: Tensor, settings: _Settings) -> None:
    param, first, second = tables
    beta1, beta2, size, correction, eps = settings
    rows, gradients = touched_rows(gradient)
    mean = first.index_select(0, rows).mul_(beta1).add_(gradients, alpha=1 - beta1)
    square = second.index_select(0, rows).mul_(beta2).addcmul_(gradients, gradients, value=1 - beta2)
    first.index_copy_(0, rows, mean)
    second.index_copy_(0, rows, square)
    param.index_add_(0, rows, mean.div_(square.sqrt_().div_(correction).add_(eps)), alpha=-size)


def _move_with_numba(tables: _Tables, gradient: Tensor, settings: _Settings) -> None:
    from methods.hash_manifold.grid import adam_kernel

    arrays = [table.detach().view(-1).numpy() for table in tables]
    last = (tuple(np.float32(setting) for setting in settings), (0,) * gradient.shape[1])
    if gradient.is_sparse:
        rows, gradients = (part.contiguous().numpy() for part in touched_rows(gradient))
        run_all(
            [
                partial(adam_kernel.move_listed, *arrays, rows[part], gradients[part].reshape(-1), *last)
                for part in _parts(len(rows))
            ]
        )
    else:
        flat = gradient.reshape(-1).numpy()
        run_all(
            [
                partial(adam_kernel.move_nonzero, *arrays, part.start, part.stop, flat, *last)
                for part in _parts(len(gradient))
            ]
        )


def _parts(count: int) -> list[slice]:
    return [slice(at, min(at + _CHUNK, count)) for at in range(0, count, _CHUNK)]
