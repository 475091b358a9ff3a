"""The Triton kernels: interpreted on the CPU, translated for a GPU, and run where there is one."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from methods.hash_manifold.grid.encoding import hash_encode
from methods.hash_manifold.grid.layout import GridConfig, grid_layout

triton = pytest.mark.skipif(not find_spec("triton"), reason="no Triton")

INTERPRETED = """
import torch
from methods.hash_manifold.grid import gpu, twin
from methods.hash_manifold.grid.layout import GridConfig, grid_layout

def check(config, dtype):
    layout = grid_layout(config)
    draw = torch.Generator().manual_seed(1)
    table = (torch.rand(layout.entries, config.n_features, generator=draw) - 0.5).to(dtype).requires_grad_()
    points = (torch.rand(100, config.n_dims, generator=draw) * 1.6 - 0.3).requires_grad_()
    pull = torch.randn(100, layout.n_outputs, generator=draw).to(dtype)
    results = []
    for module in (gpu, twin):
        out = module.encode(points, table, layout)
        of = torch.autograd.grad(out, (points, table), pull, materialize_grads=True)
        results.append((out.detach(), *of))
    for ours, twins in zip(*results):
        assert ours.dtype == twins.dtype
        tolerance = 1e-3 if ours.dtype == torch.float16 else 2e-6
        torch.testing.assert_close(ours, twins, rtol=0, atol=tolerance * twins.abs().max().item())

check(GridConfig(2, 8, 9, 6, 1.5), torch.float32)
check(GridConfig(1, 8, 9, 9, 1.5), torch.float16)
check(GridConfig(2, 2, 6, 5, 1.7, "Linear", "Tiled", 2), torch.float32)
check(GridConfig(1, 1, 8, 3, 1.5, "Smoothstep", "Hash", 4), torch.float32)
check(GridConfig(1, 4, 8, 5, 1.5, "Nearest", "Dense"), torch.float32)
"""

TRANSLATED = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from methods.hash_manifold.grid import triton_kernels as kernels

def translate(kernel, dims, features, **pointers):
    types = dict(points="*fp32", scales="*fp32", layout="*i64", count="i32", stride="i32", **pointers)
    constants = dict(D=dims, F=features, SMOOTH=True, NEAREST=False, BLOCK=128)
    signature = {name: types.get(name, "constexpr") for name in kernel.arg_names}
    aligned = {(i,): [["tt.divisibility", 16]] for i, t in enumerate(signature.values()) if t[0] == "*"}
    source = ASTSource(kernel, signature, constants, aligned)
    options = {"enable_fp_fusion": True}
    return triton.compile(source, target=GPUTarget("cuda", 80, 32), options=options).asm["ptx"]

assert "ld.global.v4" in translate(kernels.encode_points, 3, 8, table="*fp32", out="*fp32")
translate(kernels.encode_points, 4, 2, table="*fp16", out="*fp16")
assert "red" in translate(kernels.add_gradient, 3, 8, cotangent="*fp32", gradient="*fp32")
translate(kernels.point_gradient, 3, 8, table="*fp32", cotangent="*fp32", out="*fp32")
translate(kernels.point_gradient, 2, 1, table="*fp16", cotangent="*fp16", out="*fp32")
"""


def run(code: str, folder: Path, repo_root: Path, **variables: str) -> None:
    """Run code in a Python of its own: whether Triton interprets is settled when it is imported."""
    environment = {**os.environ, "TRITON_CACHE_DIR": str(folder), "PYTHONPATH": str(repo_root), **variables}
    command = [sys.executable, "-W", "ignore", "-c", code]
    result = subprocess.run(command, cwd=repo_root, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@triton
def test_the_kernels_interpreted_are_the_twin(tmp_path: Path, repo_root: Path) -> None:
    run(INTERPRETED, tmp_path, repo_root, TRITON_INTERPRET="1")


@triton
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Triton translates on Linux")
def test_the_kernels_translate_for_a_gpu(tmp_path: Path, repo_root: Path) -> None:
    """The interpreter accepts programs that the compiler does not."""
    run(TRANSLATED, tmp_path, repo_root, TRITON_INTERPRET="0")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_on_a_gpu(dtype: torch.dtype) -> None:
    layout = grid_layout(GridConfig(log2_hashmap_size=14))
    draw = torch.Generator().manual_seed(1)
    table = (torch.rand(layout.entries, 8, generator=draw) - 0.5).to(dtype)
    points = torch.rand(5000, 3, generator=draw)
    pull = torch.randn(5000, layout.n_outputs, generator=draw).to(dtype)
    results = []
    for device in ("cuda", "cpu"):
        x, t = points.to(device).requires_grad_(), table.to(device).requires_grad_()
        y = hash_encode(x, t, layout, "triton" if device == "cuda" else "twin")
        results.append(
            [v.detach().cpu().float() for v in (y, *torch.autograd.grad(y, (x, t), pull.to(device)))]
        )
    for ours, twins in zip(*results, strict=True):
        tolerance = 2e-3 if dtype == torch.float16 else 2e-5
        torch.testing.assert_close(ours, twins, rtol=0, atol=tolerance * twins.abs().max().item())
