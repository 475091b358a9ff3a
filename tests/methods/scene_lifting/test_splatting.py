"""Gaussians fitted to views: they come to agree with them, by the seed, and as far as they are asked to."""

from __future__ import annotations

from dataclasses import replace
from itertools import count

import pytest
import torch
from torch import Tensor

from common.errors import UserError
from dataloader.builtin import motorcycle
from engine.metrics import psnr
from geometry.cameras import pinhole
from geometry.gaussian_render import render_gaussians
from geometry.gaussians import Gaussians, from_points
from geometry.points import splat
from methods.scene_lifting import splatting
from methods.scene_lifting.config import GaussianConfig
from methods.scene_lifting.splatting import (
    GaussianFit,
    corrected_pose,
    draw_views,
    exp_so3_r3,
    optimise,
    padded_ssim,
    photometric_loss,
    scene_extent,
)
from methods.scene_lifting.state import LiftedScene, LiftedView


def small_scene(views: int = 2) -> LiftedScene:
    """A slanted, smoothly coloured wall that cameras side by side look at, 24x32."""
    y, x = torch.meshgrid(torch.linspace(0, 1, 24), torch.linspace(0, 1, 32), indexing="ij")
    image = torch.stack([x, y, 0.5 + 0.4 * torch.sin(9 * x * y)])
    depth = 2 + 0.5 * x
    lifted = []
    for i in range(views):
        c2w = torch.eye(4)
        c2w[0, 3] = 0.05 * i
        camera = replace(pinhole(32.0, 24, 32).to(torch.float32), c2w=c2w)
        lifted.append(LiftedView(image, camera, depth, torch.zeros(24, 32, dtype=torch.bool), f"view{i}"))
    points = lifted[0].camera.unproject(depth).reshape(-1, 3)
    return LiftedScene(points, image.permute(1, 2, 0).reshape(-1, 3), lifted)


def mismatch(gaussians: Gaussians, view: LiftedView) -> float:
    return float(photometric_loss(render_gaussians(gaussians, view.camera).image, view.image, 0.2))


def same(first: Gaussians, second: Gaussians) -> bool:
    return all(torch.equal(a, b) for a, b in zip(vars(first).values(), vars(second).values(), strict=True))


def test_the_fit_improves() -> None:
    scene = small_scene(1)
    before = from_points(scene.points, scene.colors, 0.8, 0.5)
    after = optimise(scene, GaussianConfig(steps=20))
    assert mismatch(after, scene.views[0]) < 0.5 * mismatch(before, scene.views[0])
    assert not any(tensor.requires_grad for tensor in vars(after).values())


def test_no_steps_leave_the_points() -> None:
    scene = small_scene()
    config = GaussianConfig(steps=0)
    start = from_points(scene.points, scene.colors, config.opacity, config.width)
    assert same(optimise(scene, config), start)


def test_the_seed_decides() -> None:
    scene, config = small_scene(), GaussianConfig(steps=4)
    first, again, other = (optimise(scene, config, seed) for seed in (1, 1, 2))
    assert list(draw_views(2, 4, 1)) != list(draw_views(2, 4, 2))
    assert same(first, again)
    assert not same(first, other)


def test_what_has_no_rate_stays() -> None:
    scene = small_scene(1)
    config = GaussianConfig(steps=2, learn_opacity=False, position_lr=0.0)
    start, made = (
        from_points(scene.points, scene.colors, config.opacity, config.width),
        optimise(scene, config),
    )
    assert torch.equal(made.opacity_logits, start.opacity_logits)
    assert torch.equal(made.means, start.means)
    assert not torch.equal(made.log_scales, start.log_scales)


def test_poses_are_corrected() -> None:
    scene = small_scene()
    scene.views[1].camera = scene.views[0].camera  # the second photo was taken elsewhere than it claims
    scene.views[1].image = scene.views[0].image.roll(1, -1)
    config = GaussianConfig(pose_lr=1e-3)
    fit = GaussianFit(from_points(scene.points, scene.colors, 0.8, 0.5), scene.views, config)
    losses = [fit.step(1) for _ in range(12)]
    assert losses[-1] < losses[0]
    assert fit.pose_deltas[1].abs().max() > 1e-3
    assert not fit.pose_deltas[0].any()
    still = GaussianFit(fit.gaussians, scene.views, GaussianConfig())
    still.step(1)
    assert not still.pose_deltas.any()


def test_the_principal_point_may_be_moved_to_the_middle() -> None:
    scene = small_scene(1)
    K = scene.views[0].camera.K.clone()
    K[:2, 2] -= 0.5
    scene.views[0].camera = replace(scene.views[0].camera, K=K)
    start = from_points(scene.points, scene.colors, 0.8, 0.5)
    own, middle = (
        GaussianFit(start, scene.views, GaussianConfig(principal_point=choice)).cameras[0].K[:2, 2].tolist()
        for choice in ("camera", "middle")
    )
    assert own == [15.5, 11.5]
    assert middle == [16, 12]


def test_the_point_that_colours_are_seen_from_matters() -> None:
    scene = small_scene(2)
    start = from_points(scene.points, scene.colors, 0.8, 0.5)
    start.sh_rest = torch.ones_like(start.sh_rest) * 0.1
    turned = corrected_pose(scene.views[1].camera.w2c, torch.tensor([0.0, 0, 0.3, 0, 0.5, 0]))
    scene.views[1].camera = replace(scene.views[1].camera, c2w=torch.linalg.inv(turned))
    center, quirk = (
        GaussianFit(start, scene.views, GaussianConfig(view_directions=choice)).render(1).image
        for choice in ("center", "translation")
    )
    assert (center - quirk).abs().max() > 1e-3


def test_an_interrupt_keeps_what_there_is(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    scene, calls = small_scene(1), count(1)
    original = GaussianFit.step

    def step(self: GaussianFit, view: int) -> float:
        if next(calls) > 3:
            raise KeyboardInterrupt
        return original(self, view)

    monkeypatch.setattr(splatting.GaussianFit, "step", step)
    stopped = optimise(scene, GaussianConfig(steps=10))
    monkeypatch.undo()
    assert "stopped after 3 of 10 steps" in caplog.text
    assert same(stopped, optimise(scene, GaussianConfig(steps=3)))


def test_a_scene_without_views_is_refused() -> None:
    scene = small_scene(1)
    with pytest.raises(ValueError, match="views"):
        optimise(replace(scene, views=[]), GaussianConfig(steps=1))


@pytest.mark.parametrize(
    ("setting", "value"), [("steps", -1), ("opacity", 1.0), ("dssim", 1.5), ("width", 0.0)]
)
def test_settings_out_of_range_are_refused(setting: str, value: float) -> None:
    with pytest.raises(UserError, match=f"model.gaussians.{setting}"):
        GaussianConfig(**{setting: value})  # type: ignore[arg-type]


def test_motions() -> None:
    assert torch.equal(exp_so3_r3(torch.zeros(2, 6)), torch.eye(4).expand(2, 4, 4))
    quarter = exp_so3_r3(torch.tensor([1.0, 2, 3, 0, 0, torch.pi / 2], dtype=torch.float64))
    expected = [[0.0, -1, 0, 1], [1, 0, 0, 2], [0, 0, 1, 3], [0, 0, 0, 1]]
    torch.testing.assert_close(quarter, torch.tensor(expected, dtype=torch.float64))
    moved = corrected_pose(torch.eye(4, dtype=torch.float64), torch.tensor([1.0, 2, 3, 0, 0, 0]).double())
    assert moved[:3, 3].tolist() == [1, 2, 3]


def test_equal_images_have_no_loss() -> None:
    image = torch.rand(3, 16, 20)
    assert photometric_loss(image, image, 0.2) == pytest.approx(0, abs=1e-6)
    assert padded_ssim(image, image) == pytest.approx(1)
    assert photometric_loss(image, image + 0.1, 0.0) == pytest.approx(0.1)


def test_the_extent_of_a_scene() -> None:
    points = torch.tensor([[0.0, 0, 2], [0, 0, 3], [0, 0, 90]])
    assert scene_extent(points, [pinhole(1.0, 2, 2), pinhole(1.0, 2, 2)]) == 3


@pytest.mark.slow
def test_a_real_photo_is_better_as_gaussians_than_as_points() -> None:
    """The quarter-size stereo pair: lifted from the left photo, scored at the right camera."""
    pair, size = motorcycle(), (125, 185)
    left, right = pair.views([0], size), pair.views([1], size)
    assert left.depth is not None
    camera, other = (views.cameras[0].to(torch.float32) for views in (left, right))
    depth, image = left.depth[0, 0], left.images[0]
    known = depth > 0
    scene = LiftedScene(camera.unproject(depth)[known], image.permute(1, 2, 0)[known])
    scene.views = [LiftedView(image, camera, depth, torch.zeros_like(known), "left")]
    points = splat(scene.points, scene.colors, other)
    fitted = render_gaussians(optimise(scene, GaussianConfig(steps=50)), other)

    def score(made: Tensor, mask: Tensor | None = None) -> float:
        return float(psnr(made[None].clamp(0, 1), right.images[:1], mask))

    assert points.opacity is not None
    covered = points.opacity[None]
    assert score(fitted.image, covered) > score(points.image, covered) + 1
    assert score(fitted.image) > score(points.image) + 1
