"""LazyAdam moves the touched rows as Adam would, and no others."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from common.errors import UserError
from methods.hash_manifold.lazy_adam import LazyAdam, touched_rows

ROWS, WIDTH = 500, 8


def gradients(steps: int = 12, touched: int = 60) -> list[Tensor]:
    """Coalesced sparse gradients [ROWS, WIDTH]."""
    draw = torch.Generator().manual_seed(3)
    made = []
    for _ in range(steps):
        rows = torch.randperm(ROWS, generator=draw)[:touched].sort().values
        values = torch.randn(touched, WIDTH, generator=draw)
        values[0, :-1] = 0  # a row counts as touched when one number is not zero
        made.append(
            torch.sparse_coo_tensor(
                rows[None], values, (ROWS, WIDTH), is_coalesced=True, check_invariants=True
            )
        )
    return made


def trained(kind: Any, given: list[Tensor], **options: Any) -> tuple[Tensor, torch.optim.Optimizer]:
    table = nn.Parameter(torch.linspace(-1, 1, ROWS * WIDTH).view(ROWS, WIDTH))
    optimizer = kind([table], lr=1e-2, **options)
    for gradient in given:
        table.grad = gradient
        optimizer.step()
    return table.detach(), optimizer


@pytest.mark.parametrize("dense", [False, True])
def test_numba_is_torch(dense: bool) -> None:
    given = [gradient.to_dense() if dense else gradient for gradient in gradients()]
    ours, _ = trained(LazyAdam, given, implementation="numba")
    twin, _ = trained(LazyAdam, given, implementation="torch")
    torch.testing.assert_close(ours, twin, rtol=0, atol=1e-6)


@pytest.mark.parametrize("implementation", ["numba", "torch"])
def test_a_dense_gradient_moves_what_the_sparse_one_does(implementation: str) -> None:
    given = gradients()
    sparse, _ = trained(LazyAdam, given, implementation=implementation)
    dense, _ = trained(LazyAdam, [gradient.to_dense() for gradient in given], implementation=implementation)
    assert torch.equal(sparse, dense)


def test_it_is_sparse_adam() -> None:
    """Which adds eps before the bias correction: equal where eps is next to nothing."""
    given = gradients()
    ours, _ = trained(LazyAdam, given, eps=1e-15)
    theirs, _ = trained(torch.optim.SparseAdam, given, eps=1e-15)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-6)


def test_it_is_adam_where_every_row_is_touched() -> None:
    given = [gradient.to_dense() for gradient in gradients(touched=ROWS)]
    ours, _ = trained(LazyAdam, given, eps=1e-3, betas=(0.8, 0.95))
    theirs, _ = trained(torch.optim.Adam, given, eps=1e-3, betas=(0.8, 0.95))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-6)


def test_other_rows_stay_where_they_are() -> None:
    given = gradients(steps=2, touched=5)
    table, optimizer = trained(LazyAdam, given)
    start, _ = trained(LazyAdam, [])
    touched = torch.cat([gradient.indices()[0] for gradient in given]).unique()
    moved = (table != start).any(1).nonzero()[:, 0]
    assert torch.equal(moved, touched)
    (state,) = optimizer.state.values()
    assert torch.equal(state["exp_avg"].any(1).nonzero()[:, 0], touched)
    assert state["step"] == 2


def test_gradients_given_in_parts() -> None:
    first, second = gradients(steps=2)
    whole, _ = trained(LazyAdam, [(first.to_dense() + second.to_dense()).to_sparse(1)])
    parts, _ = trained(LazyAdam, [first + second])
    torch.testing.assert_close(parts, whole)


def test_rows_in_any_order_and_twice() -> None:
    rows = torch.tensor([[7, 3, 7]])
    values = torch.randn(3, WIDTH)
    gradient = torch.sparse_coo_tensor(rows, values, (ROWS, WIDTH), check_invariants=True)
    listed, summed = touched_rows(gradient)
    assert listed.tolist() == [3, 7]
    torch.testing.assert_close(summed, torch.stack([values[1], values[0] + values[2]]))
    ordered = torch.sparse_coo_tensor(rows[:, 1:], values[1:], (ROWS, WIDTH), check_invariants=True)
    assert touched_rows(ordered)[1].data_ptr() == ordered._values().data_ptr()  # not sorted again


def test_many_rows_on_many_threads() -> None:
    draw = torch.Generator().manual_seed(0)
    gradient = torch.randn(200_000, 2, generator=draw)
    tables = []
    before = torch.get_num_threads()
    for threads in (1, 4):
        torch.set_num_threads(threads)
        table = nn.Parameter(torch.zeros(200_000, 2))
        table.grad = gradient
        LazyAdam([table]).step()
        tables.append(table.detach())
    torch.set_num_threads(before)
    assert torch.equal(*tables)
    torch.testing.assert_close(tables[0], -1e-3 * gradient.sign(), rtol=0, atol=1e-5)


def test_its_state_survives_a_file_that_runs_no_code() -> None:
    given = gradients()
    straight, _ = trained(LazyAdam, given)
    table, optimizer = trained(LazyAdam, given[:5])
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    resumed = nn.Parameter(table.clone())
    again = LazyAdam([resumed], lr=1)
    again.load_state_dict(torch.load(file, weights_only=True))
    for gradient in given[5:]:
        resumed.grad = gradient
        again.step()
    assert torch.equal(resumed.detach(), straight)


def test_a_closure_and_a_table_without_gradient() -> None:
    table, idle = nn.Parameter(torch.ones(4, 1)), nn.Parameter(torch.ones(3, 2))
    optimizer = LazyAdam([table, idle])

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = table[:2].square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure) == 2
    assert (table[:2] < 1).all()
    assert (table[2:] == 1).all()
    assert (idle == 1).all()
    assert idle not in optimizer.state


@pytest.mark.parametrize(
    "settings", [{"lr": -1}, {"betas": (1.0, 0.9)}, {"eps": -1}, {"implementation": "c"}]
)
def test_settings_out_of_range(settings: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="LazyAdam"):
        LazyAdam([nn.Parameter(torch.zeros(2, 2))], **settings)


@pytest.mark.parametrize("param", [torch.zeros(3), torch.zeros(3, 2, dtype=torch.float16)])
def test_only_float32_tables(param: Tensor) -> None:
    with pytest.raises(ValueError, match="float32 tables"):
        LazyAdam([nn.Parameter(param)])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu() -> None:
    given = gradients()
    ours = nn.Parameter(trained(LazyAdam, [])[0].cuda())
    optimizer = LazyAdam([ours], lr=1e-2)
    for gradient in given:
        ours.grad = gradient.cuda()
        optimizer.step()
    torch.testing.assert_close(ours.detach().cpu(), trained(LazyAdam, given)[0], rtol=0, atol=1e-6)
