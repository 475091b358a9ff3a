"""The Triton kernels of planes: interpreted on the CPU, translated for GPUs, and run where there is one."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch import Tensor

from geometry.cameras import pinhole
from geometry.plane_render import Backend, render_planes
from geometry.planes import PlaneImage, plane_depths

triton = pytest.mark.skipif(not find_spec("triton"), reason="no Triton")

INTERPRETED = """
import torch
from geometry import plane_triton, planes
from geometry.cameras import pinhole

def check(premultiplied, backdrop, dtype):
    draw = torch.Generator().manual_seed(1)
    layers = torch.rand(2, 2, 4, 6, 4, generator=draw).to(dtype).requires_grad_()
    pose = torch.eye(4, dtype=torch.float64).repeat(2, 1, 1, 1)
    pose[0, 0, :3, 3] = torch.tensor([0.2, 0.1, -0.1])
    pose[1, 0, 2, 3] = 1.5  # before the nearest plane
    depths = planes.plane_depths(1.0, 9.0, 2).expand(2, -1)
    reference = pinhole(5.0, 4, 6).with_poses(torch.eye(4, dtype=torch.float64).expand(2, 4, 4))
    maps = planes.plane_homographies(reference, pinhole(7.0, 4, 8).with_poses(pose), depths)
    rows = planes.disparity_rows(maps, depths)
    ours = plane_triton.composite(layers, maps, rows, 4, 8, premultiplied, backdrop)
    made = planes.composite(layers.float(), maps, rows, 4, 8, premultiplied, backdrop)
    twin = torch.cat([made.color, made.alpha, made.disparity], 2)
    torch.testing.assert_close(ours, twin, rtol=0, atol=1e-5)
    pull = torch.randn(twin.shape, generator=draw)
    gradients = [torch.autograd.grad(out, layers, pull)[0].float() for out in (ours, twin)]
    torch.testing.assert_close(*gradients, rtol=1e-5 if dtype == torch.float32 else 1e-2, atol=1e-4)

check(False, True, torch.float32)
check(True, False, torch.bfloat16)
"""

TRANSLATED = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from geometry import plane_triton_kernels as kernels

def translate(kernel, layers, capability, **constants):
    types = dict.fromkeys(("maps", "rows", "out", "light", "pull", "gradient"), "*fp32")
    types |= dict.fromkeys(("H", "W", "D", "N", "height", "width", "view"), "i32") | {"layers": layers}
    constants |= dict(PREMULTIPLIED=False, TALL=4, WIDE=32)
    signature = {name: types.get(name, "constexpr") for name in kernel.arg_names}
    aligned = {(i,): [["tt.divisibility", 16]] for i, t in enumerate(signature.values()) if t[0] == "*"}
    source = ASTSource(kernel, signature, constants, aligned)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32)).asm["ptx"]

assert "ld.global.v4" in translate(kernels.composite, "*fp32", 80, KEEP=False)
translate(kernels.composite, "*bf16", 90, KEEP=True)
assert "red" in translate(kernels.add_gradient, "*fp32", 80)
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
def test_the_kernels_translate_for_gpus(tmp_path: Path, repo_root: Path) -> None:
    """The interpreter accepts programs that the compiler does not."""
    run(TRANSLATED, tmp_path, repo_root, TRITON_INTERPRET="0")


def rendered(device: str, backend: Backend, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """What two cameras see of random planes, and the gradient of a random sum of it."""
    draw = torch.Generator().manual_seed(1)
    layers = torch.rand(8, 90, 160, 4, generator=draw).to(device, dtype).requires_grad_()
    pose = torch.eye(4, dtype=torch.float64).repeat(2, 1, 1)
    pose[0, :3, 3] = torch.tensor([0.2, 0.1, -0.1])
    pose[1, 2, 3] = 1.5
    image = PlaneImage(layers, plane_depths(1.0, 9.0, 8), pinhole(150.0, 90, 160), backdrop=True)
    made = render_planes(image, pinhole(150.0, 120, 200).with_poses(pose), backend)
    outputs = made.color, made.alpha, made.disparity
    loss = sum(
        (part * torch.randn(part.shape, generator=draw).to(device, part.dtype)).sum() for part in outputs
    )
    assert isinstance(loss, Tensor)
    (gradient,) = torch.autograd.grad(loss, layers)
    return tuple(part.detach().cpu().float() for part in (*outputs, gradient))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_on_a_gpu(dtype: torch.dtype) -> None:
    ours, wanted = rendered("cuda", "triton", dtype), rendered("cpu", "compiled", dtype)
    for name, a, b in zip(("color", "alpha", "disparity", "gradient"), ours, wanted, strict=True):
        tolerance = 2e-4 if name != "gradient" else 2e-3 * b.abs().max().item()
        torch.testing.assert_close(a, b, rtol=0, atol=tolerance)
