"""Checks of the hash grid against recorded outputs: values, gradients, addresses, initial numbers."""

from __future__ import annotations

from typing import Any, get_args

import torch
from torch import Tensor

from methods.hash_manifold.grid import twin
from methods.hash_manifold.grid.encoding import Implementation, hash_encode
from methods.hash_manifold.grid.initial import initial_params
from methods.hash_manifold.grid.layout import GridConfig, GridLayout, Kind, grid_layout
from tests.parity.cases import Case

RUN_HERE: tuple[Implementation, ...] = ("twin", "numba")


def layout_of(case: Case) -> GridLayout:
    """The grid of a case, whose levels must lie where the case says."""
    encoding: dict[str, Any] = case.config["encoding"]
    kinds = {f"{kind}Grid": kind for kind in get_args(Kind)}
    config = GridConfig(
        n_levels=encoding["n_levels"],
        n_features=encoding["n_features_per_level"],
        log2_hashmap_size=encoding.get("log2_hashmap_size", 19),
        base_resolution=encoding["base_resolution"],
        per_level_scale=encoding["per_level_scale"],
        interpolation=encoding["interpolation"],
        kind=encoding.get("type", kinds.get(encoding["otype"], "Hash")),
        n_dims=encoding["n_input_dims"],
    )
    layout = grid_layout(config)
    assert layout.n_params == case.config["n_params"]
    for level, recorded in zip(layout.levels, case.config["levels"], strict=True):
        ours = (level.scale, level.resolution, level.size, level.offset, not level.hashed)
        assert ours == tuple(recorded[key] for key in ("scale", "resolution", "size", "offset", "dense"))
    return layout


def corners_of(x: Tensor, layout: GridLayout) -> tuple[Tensor, Tensor, Tensor]:
    """Cells [N, L, D] as uint32 numbers, addresses and weights [N, L, 2^D] of the corners."""
    cells, addresses, weights = [], [], []
    for level in layout.levels:
        cell, fraction = twin.locate(x, level)
        cells.append(cell & 0xFFFFFFFF)
        addresses.append(twin.corner_addresses(cell, level))
        weights.append(twin.corner_weights(fraction, layout.config.interpolation))
    return torch.stack(cells, 1), torch.stack(addresses, 1), torch.stack(weights, 1)


def check_grid(case: Case) -> None:
    """Addresses exactly; weights, values and both gradients of every implementation that runs here."""
    layout, tolerance = layout_of(case), case.meta["tolerance"]
    x, cotangent = case.input("x"), case.input("cotangent")
    if "mid.index" in case.tensors:
        _, addresses, weights = corners_of(x, layout)
        recorded = case.tensors["mid.weight"]
        assert torch.equal(addresses[..., : recorded.shape[-1]], case.tensors["mid.index"].long())
        torch.testing.assert_close(weights, recorded, rtol=0, **tolerance["weight"])
    for implementation in RUN_HERE:
        table = case.input("params").view(layout.entries, -1).requires_grad_()
        points = x.clone().requires_grad_()
        y = hash_encode(points, table, layout, implementation)
        of_points, of_table = torch.autograd.grad(y, (points, table), cotangent, materialize_grads=True)
        case.close("y", y.detach(), **tolerance["y"])
        case.close("grad_params", of_table.flatten(), **tolerance["grad_params"])
        largest = case.output("grad_x").abs().max().item()
        case.close("grad_x", of_points, atol=tolerance["grad_x"]["relative_to_max"] * largest)


def check_addresses(case: Case) -> None:
    """Cells and addresses of the shipped configuration exactly, and weights."""
    layout = layout_of(case)
    cells, addresses, weights = corners_of(case.input("x"), layout)
    assert torch.equal(cells, case.output("cell").long())
    assert torch.equal(addresses, case.output("index").long())
    case.close("weight", weights, **case.meta["tolerance"]["weight"])


def check_initial(case: Case) -> None:
    """The first numbers of the table."""
    params = initial_params(case.config["n_params"], case.config["seed"])
    case.close("params", params, **case.meta["tolerance"]["params"])
