"""The optimisers that the original offers (specs/mask_volume 5.2)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from common.errors import UserError
from engine.optimizers import Ranger

OptimizerName = Literal["adam", "sgd", "radam", "ranger"]

_EPS = 1e-8
_RANGER_BETAS = (0.95, 0.999)


@dataclass
class OptimizerConfig:
    """How a step is taken (`model.optimizer`)."""

    name: OptimizerName = "adam"  # ranger: radam that looks ahead 6 steps
    momentum: float = 0.9  # of sgd
    weight_decay: float = 0.0  # radam, ranger: decoupled from the gradient; adam, sgd: part of it

    def __post_init__(self) -> None:
        for key, value in (("momentum", self.momentum), ("weight_decay", self.weight_decay)):
            if value < 0:
                raise UserError(f"config key 'model.optimizer.{key}' is {value}: it must be at least 0")


def make_optimizer(
    config: OptimizerConfig, parameters: Iterable[nn.Parameter], learning_rate: float
) -> torch.optim.Optimizer:
    """The optimiser that `config` names, with the original's other settings (torch's defaults)."""
    decay = config.weight_decay
    if config.name == "sgd":
        return torch.optim.SGD(parameters, learning_rate, momentum=config.momentum, weight_decay=decay)
    if config.name == "radam":
        return torch.optim.RAdam(
            parameters, learning_rate, eps=_EPS, weight_decay=decay, decoupled_weight_decay=True
        )
    if config.name == "ranger":
        return Ranger(
            parameters,
            learning_rate,
            betas=_RANGER_BETAS,
            eps=_EPS,
            weight_decay=decay,
            decoupled_weight_decay=True,
        )
    return torch.optim.Adam(parameters, learning_rate, eps=_EPS, weight_decay=decay)
