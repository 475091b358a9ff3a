"""Rendering of Gaussians: what single ones look like, order, limits, gradients, and that backends agree."""

from __future__ import annotations

import math
import sys
from dataclasses import fields
from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from common.errors import UserError
from geometry import gaussian_render as module
from geometry.cameras import Cameras, pinhole, stack_cameras
from geometry.gaussian_projection import BLUR
from geometry.gaussian_render import render_gaussians
from geometry.gaussians import Gaussians
from geometry.spherical_harmonics import rgb_to_dc
from tests.geometry.test_gaussians import camera, random_gaussians


def single(mean: list[float], scale: float, opacity: float, rgb: list[float]) -> Gaussians:
    """One round Gaussian."""
    return Gaussians(
        means=torch.tensor([mean], dtype=torch.float64),
        log_scales=torch.full((1, 3), math.log(scale), dtype=torch.float64),
        quaternions=torch.tensor([[1.0, 0, 0, 0]], dtype=torch.float64),
        opacity_logits=torch.logit(torch.tensor([[opacity]], dtype=torch.float64)),
        sh_dc=rgb_to_dc(torch.tensor([[rgb]], dtype=torch.float64)),
        sh_rest=torch.zeros(1, 15, 3, dtype=torch.float64),
    )


def joined(*scenes: Gaussians) -> Gaussians:
    return Gaussians(
        *(torch.cat([getattr(scene, item.name) for scene in scenes]) for item in fields(Gaussians))
    )


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_one_gaussian_is_a_bell(backend: module.Backend) -> None:
    camera = pinhole(20.0, 24, 32)
    made = render_gaussians(single([0.025, 0.025, 1.0], 0.1, 0.5, [1, 0.5, 0]), camera, backend=backend)
    variance = 20**2 * 0.1**2 + BLUR  # pixels; the perspective of so central a Gaussian hardly tilts it
    peak = 0.5 * (variance - BLUR) / variance
    assert made.image[0, 12, 16].item() == pytest.approx(peak, rel=1e-3)  # its centre is that pixel's
    side = peak * math.exp(-(2**2) / (2 * variance))
    assert made.image[0, 12, 18].item() == pytest.approx(side, rel=1e-2)
    assert made.image[:, 12, 16].tolist() == pytest.approx([peak, peak / 2, 0], rel=1e-3)
    assert made.depth[0, 12, 16].item() == pytest.approx(1)
    assert made.depth[0, 0, 0] == 0
    assert made.opacity[0, 0, 0] == 0


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_the_nearer_one_covers_the_farther(backend: module.Backend) -> None:
    far = single([0.025, 0.025, 2.0], 0.2, 0.6, [0, 1, 0])
    near = single([0.0125, 0.0125, 1.0], 0.1, 0.6, [1, 0, 0])
    hidden = single([0.0, 0.0, -1.0], 0.1, 0.6, [0, 0, 1])
    made = render_gaussians(joined(far, near, hidden), pinhole(40.0, 24, 32), backend=backend)
    red, green, blue = made.image[:, 12, 16].tolist()
    a, b = red, green / (1 - red)
    assert a == pytest.approx(b, rel=0.02)
    assert red > 0.55
    assert blue == 0
    assert made.opacity[0, 12, 16].item() == pytest.approx(1 - (1 - a) * (1 - b))
    assert made.depth[0, 12, 16].item() == pytest.approx((a + 2 * b * (1 - a)) / (a + b * (1 - a)))


def gradients(scene: Gaussians, target: Cameras, backend: module.Backend) -> tuple[Tensor, list[Tensor]]:
    """The image with depth and opacity, and the gradients of an arbitrary function of them."""
    scene = scene.map(lambda tensor: tensor.clone().requires_grad_(True))
    pose = target.w2c.clone().requires_grad_(True)
    made = render_gaussians(scene, target, pose, backend=backend)
    maps = torch.cat([made.image, made.depth, made.opacity])
    weights = torch.linspace(-1, 1, maps.numel(), dtype=maps.dtype).reshape(maps.shape).sin()
    return maps.detach(), list(torch.autograd.grad((maps * weights).sum(), [*vars(scene).values(), pose]))


@given(seed=st.integers(0, 10**6))
@settings(max_examples=5, deadline=None)
def test_the_compiled_twin_agrees(seed: int) -> None:
    scene = random_gaussians(60, seed)
    scene.opacity_logits = scene.opacity_logits * 4  # some are nearly opaque, some vanish
    expected, expected_gradients = gradients(scene, camera(), "torch")
    made, made_gradients = gradients(scene, camera(), "numba")
    torch.testing.assert_close(made, expected, atol=1e-9, rtol=1e-7)
    for ours, theirs in zip(made_gradients, expected_gradients, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6 * float(theirs.abs().max()) + 1e-12, rtol=1e-5)


def test_gradients_are_those_of_small_changes() -> None:
    scene = random_gaussians(4, 5)
    scene.log_scales = scene.log_scales + 1.5  # so large that no pixel is near the limit of visibility

    def image(*tensors: Tensor) -> Tensor:
        return render_gaussians(Gaussians(*tensors), pinhole(10.0, 4, 4), backend="torch").image

    inputs = [tensor.clone().requires_grad_(True) for tensor in vars(scene).values()]
    assert torch.autograd.gradcheck(image, inputs, eps=1e-6, atol=1e-4, rtol=1e-3, fast_mode=True)


def test_groups_of_tiles_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = random_gaussians(80, 2)
    whole = render_gaussians(scene, camera(), backend="torch")
    monkeypatch.setattr(module, "_AT_ONCE", 1)
    torch.testing.assert_close(render_gaussians(scene, camera(), backend="torch").image, whole.image)


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_nothing_in_sight(backend: module.Backend) -> None:
    for scene in (random_gaussians(0, 0), single([0, 0, -2.0], 0.1, 0.5, [1, 1, 1])):
        made = render_gaussians(scene, camera(), backend=backend)
        assert made.image.shape == (3, 35, 40)
        assert not made.image.any()
        assert not made.depth.any()


def test_colours_depend_on_where_they_are_seen_from() -> None:
    scene = random_gaussians(10, 1)
    own = render_gaussians(scene, camera())
    same = render_gaussians(scene, camera(), view_from=torch.zeros(3, dtype=torch.float64))
    other = render_gaussians(scene, camera(), view_from=torch.tensor([0.0, 0, 6], dtype=torch.float64))
    assert torch.equal(own.image, same.image)
    assert (own.image - other.image).abs().max() > 0.05


def test_gsplat_is_given_what_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in with the library's interface, which renders what it was given with the twin."""

    def rasterization(**given: Any) -> tuple[Tensor, Tensor, dict]:
        assert given["rasterize_mode"] == "antialiased"
        assert (given["near_plane"], given["eps2d"]) == (0.01, 0.3)
        scene = Gaussians(
            means=given["means"],
            log_scales=given["scales"].log(),
            quaternions=given["quats"],
            opacity_logits=torch.logit(given["opacities"])[:, None],
            sh_dc=rgb_to_dc(given["colors"])[:, None],
            sh_rest=given["colors"].new_zeros(len(given["means"]), 0, 3),
        )
        view = Cameras(
            given["Ks"][0], torch.linalg.inv(given["viewmats"][0]), given["height"], given["width"]
        )
        made = render_gaussians(scene, view, backend="torch")
        total = torch.cat([made.image, made.depth * made.opacity]).permute(1, 2, 0)
        return total[None], made.opacity[0, :, :, None][None], {}

    library = ModuleType("gsplat")
    library.rasterization = rasterization  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "gsplat", library)
    monkeypatch.setattr(module, "_choose", lambda backend, device: backend)
    scene = random_gaussians(40, 7)
    made, expected = (render_gaussians(scene, camera(), backend=backend) for backend in ("gsplat", "torch"))
    torch.testing.assert_close(made.image, expected.image)
    torch.testing.assert_close(made.depth, expected.depth)


def test_nonsense_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = random_gaussians(1, 0)
    with pytest.raises(ValueError, match="single camera"):
        render_gaussians(scene, stack_cameras([camera(), camera()]))
    with pytest.raises(ValueError, match="backend"):
        render_gaussians(scene, camera(), backend="magic")  # type: ignore[arg-type]
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="install it"):
        render_gaussians(scene, camera(), backend="gsplat")
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: object())
    with pytest.raises(UserError, match="needs CUDA"):
        render_gaussians(scene, camera(), backend="gsplat")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_agrees() -> None:
    scene = random_gaussians(60, 3)
    expected = render_gaussians(scene, camera())
    made = render_gaussians(scene.map(Tensor.cuda), camera(), backend="torch")
    torch.testing.assert_close(made.image.cpu(), expected.image)
