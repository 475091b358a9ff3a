"""Parameter groups and optimiser of the depth-completion network (specs/scene_lifting 5)."""

from __future__ import annotations

import torch
from torch import nn

from engine.config import TrainingConfig
from engine.method import Optimization
from methods.scene_lifting.schedule import one_cycle

_SLOW = 0.1  # of the learning rate, for the encoder that comes pretrained
_WEIGHT_DECAY = 0.01  # on everything, also norms, biases and tables


def parameter_groups(zoedepth: nn.Module, learning_rate: float) -> list[dict[str, object]]:
    """The encoder without its position tables, the tables, the decoder, the metric head; in this order."""
    groups: dict[str, list[nn.Parameter]] = {"encoder": [], "tables": [], "decoder": [], "head": []}
    for name, parameter in zoedepth.named_parameters():
        groups[_group(name)].append(parameter)
    rates = {"encoder": _SLOW, "tables": _SLOW, "decoder": 1.0, "head": 1.0}
    return [{"params": found, "lr": learning_rate * rates[name]} for name, found in groups.items()]


def _group(name: str) -> str:
    """The original counts the projections of the tokens (readout, resize) to the encoder."""
    if "relative_position_bias_table" in name:
        return "tables"
    if name.startswith(("backbone.", "neck.reassemble_stage.")):
        return "encoder"
    return "head" if name.startswith("metric_head.") else "decoder"


def build_optimization(zoedepth: nn.Module, config: TrainingConfig, equal_rates: bool) -> Optimization:
    """AdamW on a one-cycle schedule; equal_rates: no group is slower than another (training from scratch)."""
    groups = parameter_groups(zoedepth, config.learning_rate)
    if equal_rates:
        for group in groups:
            group["lr"] = config.learning_rate
    optimizer = torch.optim.AdamW(groups, betas=(0.95, 0.999), weight_decay=_WEIGHT_DECAY)
    return Optimization(
        optimizer,
        lambda step: one_cycle(step, config.steps)[0],
        lambda step: one_cycle(step, config.steps)[1],
    )
