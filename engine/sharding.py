"""Training with weights, gradients and optimiser state split over the processes (FSDP2).

accelerate starts the processes and names their devices (`acc_configs/fsdp2.yaml`); what is split, and how it
is put together again for checkpoints, is decided here with `torch.distributed.fsdp.fully_shard`, so that it
works on the CPU too. A checkpoint of a sharded run is like any other: whole tensors, readable anywhere.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from common.errors import UserError

if TYPE_CHECKING:
    from accelerate import Accelerator

    from engine.method import Method

_RENDERING = ("encode", "render", "preview")  # what is called on a method besides forward


def shard(method: Method, device: torch.device, precision: str) -> None:
    """Split a method's parameters over all processes, in place: each of its blocks, then what is left.

    Every process must hold the same weights. precision: 'no' or 'bf16', in which blocks are gathered; the
    split weights themselves stay as they are. Raises UserError for methods that name no blocks.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

    if not method.block_classes:
        raise UserError(f"{method.method_name} cannot be sharded: use acc_configs/N.yaml for N GPUs")
    if precision not in ("no", "bf16"):
        raise UserError(f"sharded training does not go with {precision}: set training.precision=bf16")
    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    # casts of activations are left to autocast, as in training that is not sharded
    policy = MixedPrecisionPolicy(
        param_dtype=torch.bfloat16 if precision == "bf16" else None,
        reduce_dtype=torch.float32,
        cast_forward_inputs=False,
    )
    empty = {parameter for parameter in method.parameters() if not parameter.numel()}
    blocks = [module for module in method.modules() if isinstance(module, method.block_classes)]
    for block in blocks:
        fully_shard(block, mesh=mesh, mp_policy=policy, ignored_params=empty)
    # resharded after forward too: else a validation would leave the averaged weights to the next step
    fully_shard(method, mesh=mesh, reshard_after_forward=True, ignored_params=empty)
    for name in _RENDERING:
        register_fsdp_forward_method(method, name)


def wanted() -> bool:
    """Whether the launch asks for sharded training."""
    return os.environ.get("ACCELERATE_USE_FSDP", "").lower() in ("1", "true", "yes")


def wrap(method: Method, accelerator: Accelerator) -> Any:
    """What training calls in the place of the method: itself, sharded, or what accelerate makes of it."""
    if not wanted():
        return accelerator.prepare_model(method)
    shard(method, accelerator.device, accelerator.mixed_precision)
    return method


@contextmanager
def synchronising(model: Any, accelerator: Accelerator, last: bool) -> Iterator[None]:
    """Forward and backward pass of a micro-batch; gradients are summed over the processes after the last."""
    if is_sharded(model):
        model.set_requires_gradient_sync(last)
        with accelerator.autocast():
            yield
        return
    with nullcontext() if last else accelerator.no_sync(model):
        yield


def is_sharded(method: torch.nn.Module) -> bool:
    """Whether `shard` has split the method."""
    from torch.distributed.fsdp import FSDPModule

    return isinstance(method, FSDPModule)


def whole(value: Any, keep: bool) -> Any:
    """Nested dicts and lists with every split tensor put together, on the CPU; other tensors as they are.

    All processes must call it alike. keep: whether this one wants the result; otherwise tensors are dropped
    as soon as they are gathered, and None stands in their places.
    """
    from torch.distributed.tensor import DTensor

    if isinstance(value, Mapping):
        return {name: whole(item, keep) for name, item in value.items()}
    if isinstance(value, list):
        return [whole(item, keep) for item in value]
    if not isinstance(value, Tensor):
        return value
    if isinstance(value, DTensor):
        gathered = value.full_tensor().detach()
        return gathered.cpu() if keep else None
    return value if keep else None


def split_like(value: Tensor, model: Tensor) -> Tensor:
    """A whole tensor, which every process has, split as `model` is; as it is where `model` is not split."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(model, DTensor) or value.shape != model.shape:
        return value
    on_device = value.to(model.device)
    return distribute_tensor(on_device, model.device_mesh, model.placements, src_data_rank=None)


def split_state(state: Mapping[int, Any], parameters: list[Tensor]) -> dict[int, Any]:
    """Optimiser state by number of the parameter, split as the parameters are."""
    return {
        index: {
            name: split_like(value, parameters[index]) if isinstance(value, Tensor) else value
            for name, value in values.items()
        }
        for index, values in state.items()
    }


def total_norm(gradients: list[Tensor]) -> Tensor:
    """Global 2-norm of gradients, split or not. All processes must call it alike."""
    from torch.distributed.tensor import DTensor

    norm: Any = torch.nn.utils.get_total_norm(gradients)
    return norm.full_tensor() if isinstance(norm, DTensor) else norm
