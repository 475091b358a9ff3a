"""Losses, a training step and the schedule of scene_lifting (specs/scene_lifting 5)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from engine.config import TrainingConfig
from methods.scene_lifting.config import LossConfig, SceneLiftingConfig
from methods.scene_lifting.data import DepthSample
from methods.scene_lifting.losses import (
    gradient_error,
    invariant_error,
    resize,
    scale_and_shift,
    silog,
    sparse_error,
)
from methods.scene_lifting.method import SceneLifting
from methods.scene_lifting.network import build_zoedepth
from methods.scene_lifting.optimisation import build_optimization, parameter_groups
from methods.scene_lifting.originals import convert_state_dict
from tests.parity.cases import Case
from tests.parity.scene_lifting_network import TINY, tiny_network


def check_losses(case: Case) -> None:
    tolerance = case.meta["tolerance"]
    small, full = case.input("pred_small"), case.input("pred_full")
    small, full = small.requires_grad_(), full.requires_grad_()
    target, mask = case.input("target"), case.input("mask") > 0
    with torch.enable_grad():
        resized = resize(small, target.shape[-2:])
        loss = silog(resized, target, mask)
        loss.backward()
        gradient = gradient_error(full, target, mask)
        gradient.backward()
    torch.testing.assert_close(resized.detach(), case.tensors["mid.pred_interp"], **tolerance)
    case.close("silog", loss.detach(), **tolerance)
    case.close("silog_grad", small.grad, **tolerance)
    case.close("grad_l1", gradient.detach(), **tolerance)
    case.close("grad_l1_grad", full.grad, **tolerance)
    scale, shift = scale_and_shift(full.detach(), target, mask)
    case.close("scale", scale, **tolerance)
    case.close("shift", shift, **tolerance)
    case.close("ssi", invariant_error(full.detach(), target, mask), **tolerance)
    given = case.input("sparse_mask") > 0
    case.close("sparse_mse", sparse_error(resized.detach(), target, given), **tolerance)


def tiny_method() -> SceneLifting:
    """The method with the recorded tiny network, ready to be trained."""
    return SceneLifting(SceneLiftingConfig(network=TINY, loss=LossConfig()), tiny_network()).train()


def recorded(values: dict[str, Tensor], name: str) -> Tensor:
    """A tensor by the name that the original has for it."""
    translated = convert_state_dict({name: torch.empty(0)}, "the case")
    return values[next(iter(translated))]


def check_train_step(case: Case) -> None:
    tolerance, settings = case.meta["tolerance"], case.config
    method = tiny_method()
    config = TrainingConfig(steps=40, learning_rate=settings["lr"], clip_norm=settings["clip_grad"])
    optimization = method.optimization(config)
    zoedepth = method.completer.zoedepth
    depth = case.input("depth")
    sample = DepthSample(
        case.input("image"), depth, case.input("masked_depth").permute(0, 3, 1, 2), torch.ones_like(depth)
    )
    found = method(sample, 0)
    found["loss"].backward()
    predicted = method.completer(inputs_of(sample)).detach()
    torch.testing.assert_close(predicted, case.tensors["mid.pred"], **tolerance["loss"])
    case.close("loss_silog", found["silog"].detach(), **tolerance["loss"])
    case.close("loss_sparse", found["sparse"].detach(), **tolerance["loss"])
    norm = torch.nn.utils.clip_grad_norm_(method.parameters(), config.clip_norm)
    case.close("grad_norm_before_clip", norm, rtol=tolerance["grad"]["rtol"])
    gradients = {name: p.grad for name, p in zoedepth.named_parameters() if p.grad is not None}
    assert len(gradients) == len(list(zoedepth.parameters()))  # layers that are given nothing are not there
    before = {name: p.detach().clone() for name, p in zoedepth.named_parameters()}
    optimization.optimizer.step()
    moved = {name: p.detach() - before[name] for name, p in zoedepth.named_parameters()}
    for name in case.outputs():
        kind, _, original = name.partition(".")
        if kind == "grad":
            case.close(name, recorded(gradients, original), **tolerance["grad"])
        elif kind == "delta":
            compared = recorded(gradients, original).abs() > 1e-6
            true, ours = case.output(name), recorded(moved, original)
            torch.testing.assert_close(ours[compared], true[compared], rtol=5e-2, atol=0)


def inputs_of(sample: DepthSample) -> Tensor:
    """The network's input by the case's own words: the mask is where depth was given."""
    given = (sample.masked_depth != 0).float()
    return torch.cat([sample.image, sample.masked_depth / 10, given], dim=1)


def check_one_cycle(case: Case) -> None:
    settings, tolerance = case.config, case.meta["tolerance"]
    steps = settings["epochs"] * settings["steps_per_epoch"]
    zoedepth = build_zoedepth(TINY)
    config = TrainingConfig(steps=steps, learning_rate=settings["base_lr"])
    optimization = build_optimization(zoedepth, config, equal_rates=False)
    rates = torch.tensor([group["lr"] for group in optimization.optimizer.param_groups], dtype=torch.float64)
    torch.testing.assert_close(rates, case.input("max_lr"), rtol=1e-12, atol=0)
    assert {group["weight_decay"] for group in optimization.optimizer.param_groups} == {settings["wd"]}
    factors = torch.tensor([optimization.schedule(step) for step in range(steps)], dtype=torch.float64)
    assert optimization.momentum is not None
    momenta = torch.tensor([optimization.momentum(step) for step in range(steps)], dtype=torch.float64)
    case.close("lr", factors[:, None] * rates, **tolerance)
    case.close("beta1", momenta[:, None].expand(-1, 4), **tolerance)
    check_groups(case)


def check_groups(case: Case) -> None:
    """The same weights in each group, but for layers that are given nothing; q, k, v count for one."""
    groups = parameter_groups(build_zoedepth(TINY), 1.0)
    sizes = [len(group["params"]) for group in groups]  # type: ignore[arg-type]
    encoder, tables, decoder, head = case.config["group_sizes"]
    apart, classifier, unused = 2 * TINY.layers, 4, 4  # q, k, v; fc_norm and head; refinenet4.resConfUnit1
    assert sizes == [encoder + apart - classifier, tables, decoder - unused, head]


CHECKS: dict[str, Callable[[Case], None]] = {
    "losses": check_losses,
    "train_step": check_train_step,
    "one_cycle": check_one_cycle,
}
