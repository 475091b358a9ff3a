"""Every implementation of the hash grid computes what the twin computes."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from common.errors import UserError
from methods.hash_manifold.grid import encoding, twin
from methods.hash_manifold.grid.buffers import Buffers
from methods.hash_manifold.grid.encoding import HashGrid, Implementation, hash_encode
from methods.hash_manifold.grid.layout import GridConfig, GridLayout, grid_layout

# n_levels, n_features, log2_hashmap_size, base_resolution, per_level_scale, interpolation, kind, n_dims
SHAPES = [
    GridConfig(5, 8, 9, 6, 1.5, "Smoothstep", "Hash", 3),
    GridConfig(3, 2, 8, 7, 1.7, "Nearest", "Hash", 3),
    GridConfig(3, 4, 6, 4, 1.6, "Linear", "Tiled", 2),
    GridConfig(2, 1, 8, 3, 1.5, "Smoothstep", "Dense", 4),
]


def random_grid(layout: GridLayout, count: int = 300, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Points [count, D], some outside the domain, a table and a cotangent of the features."""
    draw = torch.Generator().manual_seed(seed)
    points = torch.rand(count, layout.config.n_dims, generator=draw) * 1.6 - 0.3
    table = torch.rand(layout.entries, layout.config.n_features, generator=draw) - 0.5
    return points, table, torch.randn(count, layout.n_outputs, generator=draw)


def results(
    points: Tensor, table: Tensor, cotangent: Tensor, layout: GridLayout, name: Implementation
) -> tuple[Tensor, Tensor, Tensor]:
    """Features, and gradients of points and table."""
    points, table = points.clone().requires_grad_(), table.clone().requires_grad_()
    features = hash_encode(points, table, layout, name)
    cotangent = cotangent.to(features.dtype)
    gradients = torch.autograd.grad(features, (points, table), cotangent, materialize_grads=True)
    return features.detach(), *gradients


def assert_same(ours: tuple[Tensor, ...], twins: tuple[Tensor, ...]) -> None:
    for name, a, b in zip(("features", "of points", "of table"), ours, twins, strict=True):
        largest = b.abs().max().item()
        tolerance = 1e-3 if b.dtype == torch.float16 else 2e-6
        torch.testing.assert_close(a, b, rtol=0, atol=tolerance * largest, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("config", SHAPES, ids=str)
def test_numba_is_the_twin(config: GridConfig) -> None:
    layout = grid_layout(config)
    drawn = random_grid(layout)
    assert_same(results(*drawn, layout, "numba"), results(*drawn, layout, "twin"))


def test_a_half_table_is_rounded_as_the_original_does() -> None:
    layout = grid_layout(SHAPES[0])
    points, table, cotangent = random_grid(layout)
    drawn = points, table.half(), cotangent
    ours, twins = results(*drawn, layout, "numba"), results(*drawn, layout, "twin")
    assert ours[0].dtype == ours[2].dtype == torch.float16
    assert torch.equal(ours[0], twins[0])
    assert_same(ours, twins)
    full = hash_encode(points, table, layout, "twin")
    torch.testing.assert_close(ours[0].float(), full, rtol=0, atol=4e-3)


@given(
    levels=st.integers(1, 4),
    log2_size=st.integers(3, 12),
    base=st.integers(1, 40),
    growth=st.floats(1.0, 3.0),
    interpolation=st.sampled_from(["Linear", "Smoothstep", "Nearest"]),
    kind=st.sampled_from(["Hash", "Dense", "Tiled"]),
    count=st.sampled_from([0, 1, 63, 64, 65, 200]),
    spread=st.sampled_from([1.0, 50.0, 1e6]),
)
@settings(max_examples=25, deadline=None)
def test_any_configuration(
    levels: int,
    log2_size: int,
    base: int,
    growth: float,
    interpolation: Any,
    kind: Any,
    count: int,
    spread: float,
) -> None:
    layout = grid_layout(GridConfig(levels, 8, log2_size, base, growth, interpolation, kind))
    if layout.entries > 1_000_000:
        return
    points, table, cotangent = random_grid(layout, count, seed=levels)
    drawn = points * spread, table, cotangent
    ours, twins = results(*drawn, layout, "numba"), results(*drawn, layout, "twin")
    for a, b in zip(ours, twins, strict=True):
        atol = 1e-5 * max(1.0, b.abs().max().item() if len(b) else 1.0)
        torch.testing.assert_close(a, b, rtol=0, atol=atol)


def test_the_features_are_linear_in_the_table_and_smooth_in_the_points() -> None:
    layout = grid_layout(GridConfig(2, 8, 14, 4, 1.5))
    points, table, cotangent = random_grid(layout, 60)
    for name in ("twin", "numba"):
        _, of_points, of_table = results(points, table, cotangent, layout, name)
        change = torch.rand_like(table)
        with torch.no_grad():
            direct = ((hash_encode(points, change, layout, name)) * cotangent).sum()
        torch.testing.assert_close((of_table * change).sum(), direct, rtol=1e-4, atol=1e-4)
        for axis in range(3):
            step = torch.zeros(3)
            step[axis] = 1e-3
            ahead, behind = (
                hash_encode(points + sign * step, table, layout, name) * cotangent for sign in (1, -1)
            )
            difference = (ahead - behind).sum(1) / 2e-3
            torch.testing.assert_close(of_points[:, axis], difference, rtol=2e-3, atol=2e-2)


@pytest.fixture
def thread_count() -> Any:
    """Restores the number of threads."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_the_bits_do_not_depend_on_the_threads(thread_count: Any) -> None:
    layout = grid_layout(SHAPES[0])
    points, table, cotangent = random_grid(layout, 20000)
    seen = []
    for threads in (1, 2, 3, 16):  # 16: more than levels, which are then cut
        thread_count(threads)
        sparse = table.clone().requires_grad_()
        hash_encode(points, sparse, layout, "numba", sparse_gradient=True).backward(cotangent)
        seen.append((*results(points, table, cotangent, layout, "numba"), sparse.grad.to_dense()))
    for other in seen[1:]:
        assert all(torch.equal(a, b) for a, b in zip(seen[0], other, strict=True))


def test_the_sparse_gradient_is_the_dense_one() -> None:
    layout = grid_layout(SHAPES[0])
    points, table, cotangent = random_grid(layout, 30)
    dense = results(points, table, cotangent, layout, "numba")[2]
    leaf = table.clone().requires_grad_()
    features = hash_encode(points, leaf, layout, "numba", sparse_gradient=True)
    (sparse,) = torch.autograd.grad(features, leaf, cotangent)
    assert sparse.is_sparse
    assert sparse.is_coalesced()
    rows = sparse.indices()[0]
    assert (rows[1:] > rows[:-1]).all()
    assert torch.equal(sparse.to_dense(), dense)
    untouched = torch.ones(layout.entries, dtype=torch.bool)
    untouched[rows] = False
    assert untouched.any()
    assert dense[untouched].count_nonzero() == 0


def test_sparse_gradients_accumulate() -> None:
    layout = grid_layout(SHAPES[0])
    points, table, cotangent = random_grid(layout, 100)
    leaf = table.clone().requires_grad_()
    expected = torch.zeros_like(table)
    for part in (slice(0, 40), slice(40, 100)):  # the second must not disturb the first
        hash_encode(points[part], leaf, layout, "numba", sparse_gradient=True).backward(cotangent[part])
        expected += results(points[part], table, cotangent[part], layout, "numba")[2]
        torch.testing.assert_close(leaf.grad.to_dense(), expected)


def test_no_points() -> None:
    layout = grid_layout(SHAPES[0])
    _, table, _ = random_grid(layout)
    leaf = table.requires_grad_()
    features = hash_encode(torch.zeros(0, 3), leaf, layout, "numba", sparse_gradient=True)
    assert features.shape == (0, layout.n_outputs)
    features.sum().backward()
    assert leaf.grad is not None
    assert leaf.grad._nnz() == 0


def test_points_that_are_no_numbers_stay_inside_the_table() -> None:
    layout = grid_layout(SHAPES[0])
    _, table, _ = random_grid(layout)
    points = torch.tensor([[float("nan")] * 3, [float("inf")] * 3, [-1e30] * 3])
    assert hash_encode(points, table, layout, "numba").shape == (3, layout.n_outputs)


def test_buffers_are_lent_again_only_when_nobody_has_them() -> None:
    buffers = Buffers()
    first = buffers.take(100, 10)
    place = first.data_ptr()
    view = first.view(-1)[5:10]
    del first
    second = buffers.take(100, 10)
    assert second.data_ptr() != place  # the view still needs it
    view.fill_(3)
    second.fill_(4)
    assert (view == 3).all()
    del view
    assert buffers.zeros(100, 9).data_ptr() == place
    many = [buffers.take(1000).fill_(i) for i in range(20)]
    assert all((tensor == i).all() for i, tensor in enumerate(many))


def test_the_module() -> None:
    grid = HashGrid(SHAPES[0])
    assert [name for name, _ in grid.named_parameters()] == ["params"]
    assert grid.params.shape == (grid.layout.entries, 8)
    points = torch.rand(2, 7, 3)
    features = grid(points)
    assert features.shape == (2, 7, grid.n_outputs)
    torch.testing.assert_close(features[1], twin.encode(points[1], grid.params, grid.layout))
    flat = torch.randn(grid.layout.n_params)
    grid.from_flat(flat)
    assert torch.equal(grid.to_flat(), flat)
    assert torch.equal(grid.params[3], flat[24:32])
    assert grid.half()(points).dtype == torch.float32
    with pytest.raises(UserError, match="config"):
        grid.from_flat(flat[1:])


def test_inputs_that_do_not_fit() -> None:
    layout = grid_layout(SHAPES[0])
    points, table, _ = random_grid(layout)
    for bad in ((points[:, :2], table), (points, table[1:]), (points, table.double()), (points[0], table)):
        with pytest.raises(ValueError, match=r"points are|params are"):
            hash_encode(*bad, layout)
    with pytest.raises(UserError, match="no implementation"):
        hash_encode(points, table, layout, "numbat")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="params on meta"):
        hash_encode(points, table.to("meta"), layout)
    with pytest.raises(UserError, match="'numba' needs tensors on the CPU"):
        hash_encode(points.to("meta"), table.to("meta"), layout, "numba")
    with pytest.raises(UserError, match="'triton'"):
        hash_encode(points, table, layout, "triton")
    assert encoding.choose_implementation(torch.device("mps")) == "twin"


def test_the_compiled_twin_traces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the compiler itself, which takes half a minute: see the next test."""
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f: compile_(f, backend="eager", fullgraph=True))
    monkeypatch.setattr(encoding, "can_compile", lambda: True)
    encoding._compiled.cache_clear()
    layout = grid_layout(SHAPES[2])
    drawn = random_grid(layout)
    assert_same(results(*drawn, layout, "compiled"), results(*drawn, layout, "twin"))
    encoding._compiled.cache_clear()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no compiler")
def test_the_compiled_twin() -> None:
    encoding._compiled.cache_clear()
    assert encoding.can_compile()
    layout = grid_layout(SHAPES[0])
    drawn = random_grid(layout)
    assert_same(results(*drawn, layout, "compiled"), results(*drawn, layout, "twin"))


def test_without_a_compiler_the_twin_runs(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: Any) -> Any:
        raise RuntimeError("no C++ compiler\nand a traceback")

    monkeypatch.setattr(torch, "compile", broken)
    encoding.can_compile.cache_clear()
    encoding._compiled.cache_clear()
    layout = grid_layout(SHAPES[0])
    drawn = random_grid(layout)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert_same(results(*drawn, layout, "compiled"), results(*drawn, layout, "twin"))
    assert [record.getMessage() for record in caplog.records] == [
        "torch.compile does not work here (no C++ compiler): hash grids run uncompiled"
    ]
    encoding.can_compile.cache_clear()
    encoding._compiled.cache_clear()


def test_tinycudann_where_it_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tinycudann", None)
    layout = grid_layout(SHAPES[0])
    points, table, _ = random_grid(layout)
    encoding._library_encoding.cache_clear()
    with pytest.raises(UserError, match="'tinycudann' cannot be loaded"):
        hash_encode(points, table, layout, "tinycudann")


class LibraryEncoding(nn.Module):
    """Stands in for tinycudann.Encoding: a flat parameter, and the twin behind it."""

    def __init__(self, n_dims: int, description: dict[str, Any], dtype: torch.dtype) -> None:
        super().__init__()
        names = ("n_levels", "log2_hashmap_size", "base_resolution", "per_level_scale", "interpolation")
        shared = {name: description[name] for name in names}
        features = description["n_features_per_level"]
        config = GridConfig(n_features=features, n_dims=n_dims, kind=description["type"], **shared)
        self.layout = grid_layout(config)
        self.params = nn.Parameter(torch.zeros(self.layout.n_params))

    def forward(self, x: Tensor) -> Tensor:
        return twin.encode(x, self.params.view(self.layout.entries, -1), self.layout)


def test_tinycudann_takes_our_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tinycudann", SimpleNamespace(Encoding=LibraryEncoding))
    encoding._library_encoding.cache_clear()
    layout = grid_layout(SHAPES[0])
    drawn = random_grid(layout)
    assert_same(results(*drawn, layout, "tinycudann"), results(*drawn, layout, "twin"))
    encoding._library_encoding.cache_clear()


def test_kernels_compile_where_no_folder_can_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    import numba

    from methods.hash_manifold.grid.jit import kernel

    njit = numba.njit

    def without_cache(function: Any, cache: bool = False, **options: Any) -> Any:
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return njit(function, **options)

    monkeypatch.setattr(numba, "njit", without_cache)
    assert kernel(lambda x: x + 1)(2) == 3


def test_importing_compiles_nothing(repo_root: Path) -> None:
    modules = "methods.hash_manifold.lazy_adam, methods.hash_manifold.grid.encoding"
    command = [sys.executable, "-c", f"import sys, {modules}; print(*sys.modules)"]
    run = subprocess.run(command, cwd=repo_root, check=True, capture_output=True, text=True)
    assert not {"numba", "triton", "tinycudann"} & set(run.stdout.split())
