"""3D Gaussians fitted to the views of a lifted scene (specs/scene_lifting 3.5)."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from common.cli import progress
from engine.metrics import ssim_map
from geometry.cameras import Cameras
from geometry.gaussian_render import render_gaussians
from geometry.gaussians import Gaussians, from_points
from geometry.views import Rendering
from methods.scene_lifting.config import GaussianConfig
from methods.scene_lifting.state import LiftedScene, LiftedView

log = logging.getLogger(__name__)

_ADAM_EPS = 1e-15
_SMALLEST_ANGLE = 1e-4  # squared radians: below it rotations are computed as at it
_HALF_WINDOW = 5  # pixels of SSIM's window beyond its centre


def optimise(scene: LiftedScene, config: GaussianConfig, seed: int = 0) -> Gaussians:
    """Gaussians from the points of a scene, fitted to its views for `config.steps` steps.

    Every step takes one view, drawn with the seed. Ctrl-C ends the work early and keeps what there is so far;
    a second one is not caught. Raises UserError for a backend that is not there.
    """
    gaussians = from_points(scene.points.float(), scene.colors.float(), config.opacity, config.width)
    fit = GaussianFit(gaussians, scene.views, config)
    order = list(draw_views(len(scene.views), config.steps, seed))
    with progress(order, "gaussians", unit="step", disable=not order) as bar:
        try:
            for view in bar:
                bar.set_postfix(loss=f"{fit.step(view):.4f}", refresh=False)
        except KeyboardInterrupt:
            log.warning("stopped after %d of %d steps; the Gaussians are kept as they are", bar.n, len(order))
    return fit.gaussians.map(Tensor.detach)


def draw_views(views: int, steps: int, seed: int) -> Iterator[int]:
    """The view of every step, drawn with replacement."""
    generator = torch.Generator().manual_seed(seed)
    return iter(torch.randint(max(views, 1), (steps,), generator=generator).tolist())


class GaussianFit:
    """Gaussians on their way to agree with views, one step at a time.

    gaussians: the current ones. pose_deltas: [V, 6], corrections of the views' poses (`corrected_pose`);
    they serve the fit and are no part of its result. Raises ValueError without views.
    """

    def __init__(self, gaussians: Gaussians, views: list[LiftedView], config: GaussianConfig) -> None:
        if not views:
            raise ValueError("Gaussians are fitted to views: there is none")
        self.config, device = config, gaussians.means.device
        self.gaussians = gaussians.map(lambda tensor: tensor.detach().clone().requires_grad_(True))
        self.images = [view.image.to(device, gaussians.means.dtype) for view in views]
        self.cameras = [self._camera(view.camera).to(device, gaussians.means.dtype) for view in views]
        self.pose_deltas = gaussians.means.new_zeros(len(views), 6).requires_grad_(config.pose_lr > 0)
        self.optimizer = torch.optim.Adam(self._groups(), eps=_ADAM_EPS)
        self.pose_optimizer = torch.optim.Adam([self.pose_deltas], config.pose_lr)

    def _camera(self, camera: Cameras) -> Cameras:
        if self.config.principal_point == "camera":
            return camera
        K = camera.K.clone()
        K[0, 2], K[1, 2] = camera.width / 2, camera.height / 2
        return replace(camera, K=K)

    def _groups(self) -> list[dict]:
        """What Adam changes, and how fast."""
        config, made = self.config, self.gaussians
        made.opacity_logits.requires_grad_(config.learn_opacity)
        rates = [
            (made.means, config.position_lr * scene_extent(made.means.detach(), self.cameras)),
            (made.log_scales, config.scale_lr),
            (made.quaternions, config.rotation_lr),
            (made.opacity_logits, config.opacity_lr),
            (made.sh_dc, config.color_lr),
            (made.sh_rest, config.rest_lr),
        ]
        return [{"params": [tensor], "lr": rate} for tensor, rate in rates if tensor.requires_grad]

    def render(self, view: int) -> Rendering:
        """What the Gaussians show at one of the views."""
        w2c = corrected_pose(self.cameras[view].w2c, self.pose_deltas[view])
        quirk = self.config.view_directions == "translation"
        return render_gaussians(
            self.gaussians,
            self.cameras[view],
            w2c,
            w2c[:3, 3].detach() if quirk else None,
            backend=self.config.backend,
        )

    def step(self, view: int) -> float:
        """Improve the agreement with one view; returns the loss before."""
        loss = photometric_loss(self.render(view).image.clamp(0, 1), self.images[view], self.config.dssim)
        self.optimizer.zero_grad(set_to_none=True)
        if self.pose_deltas.grad is not None:
            self.pose_deltas.grad = None
        loss.backward()
        self.optimizer.step()
        if self.config.pose_lr > 0:
            self.pose_optimizer.step()
        return float(loss.detach())


def photometric_loss(image: Tensor, target: Tensor, dssim: float) -> Tensor:
    """(1 - dssim) L1 + dssim (1 - SSIM) of images [3, H, W] in [0, 1] (Kerbl et al. 2023, equation 7)."""
    return (1 - dssim) * (image - target).abs().mean() + dssim * (1 - padded_ssim(image, target))


def padded_ssim(image: Tensor, target: Tensor) -> Tensor:
    """Mean SSIM of images [3, H, W] over all pixels, with zeros beyond their borders."""
    image, target = (torch.nn.functional.pad(item[None], [_HALF_WINDOW] * 4) for item in (image, target))
    return ssim_map(image, target).mean()


def scene_extent(points: Tensor, cameras: list[Cameras]) -> float:
    """Median distance of points [P, 3] from the mean of the cameras' centres: how large a scene is."""
    middle = torch.stack([camera.center for camera in cameras]).mean(0)
    return float((points - middle.to(points)).norm(dim=-1).median())


def corrected_pose(w2c: Tensor, delta: Tensor) -> Tensor:
    """A pose w2c [4, 4] changed by a vector [6]: the world turned about its origin, the camera shifted."""
    motion = exp_so3_r3(delta)
    rotation, translation = w2c[:3, :3] @ motion[:3, :3], w2c[:3, 3] + motion[:3, 3]
    return torch.cat([torch.cat([rotation, translation[:, None]], dim=1), w2c[3:]])


def exp_so3_r3(delta: Tensor) -> Tensor:
    """Rigid motions [..., 4, 4] of vectors [..., 6]: a translation, then a rotation vector in radians.

    The rotation is the exponential of the latter alone; the translation is taken as it is.
    """
    translation, rotation = delta[..., :3], delta[..., 3:]
    squared = (rotation**2).sum(-1)[..., None, None].clamp(min=_SMALLEST_ANGLE)
    angle = squared.sqrt()
    x, y, z = rotation.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))
    eye = torch.eye(3, dtype=delta.dtype, device=delta.device)
    turn = eye + angle.sin() / angle * cross + (1 - angle.cos()) / squared * (cross @ cross)
    top = torch.cat([turn, translation[..., None]], dim=-1)
    bottom = delta.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(*delta.shape[:-1], 1, 4)
    return torch.cat([top, bottom], dim=-2)
