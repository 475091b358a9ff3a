"""Gaussians from points, their optimisation and files, against recorded ones (specs/scene_lifting 3.5)."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from engine.config import TrainingConfig
from engine.schedule import learning_rate_schedule
from geometry.cameras import Cameras
from geometry.gaussian_files import read_gaussians, write_gaussians
from geometry.gaussian_projection import project_gaussians
from geometry.gaussians import Gaussians, from_points, neighbour_distances, quaternions_to_matrices
from geometry.spherical_harmonics import evaluate_sh, rgb_to_dc
from methods.scene_lifting.config import GaussianConfig
from methods.scene_lifting.splatting import GaussianFit, padded_ssim, photometric_loss
from methods.scene_lifting.state import LiftedView
from tests.parity.cases import Case

ORIGINAL = GaussianConfig(
    steps=6,
    learn_opacity=False,
    opacity=1 / (1 + math.exp(-1)),
    width=1.0,
    position_lr=1.6e-12,
    pose_lr=1e-4,
    view_directions="translation",
    principal_point="middle",
)


def check_functions(case: Case) -> None:
    tolerance = case.meta["tolerance"]
    a, b, x = case.input("a"), case.input("b"), case.input("x")
    case.close("ssim", padded_ssim(a, b), **tolerance)
    case.close("l1", photometric_loss(a, b, 0.0), **tolerance)
    sh, directions = case.input("sh"), case.input("dirs")
    for name in ("sh_deg3", "sh_plenoctree"):
        case.close(name, evaluate_sh(sh[:, :1], sh[:, 1:], directions), **tolerance)
    case.close("rotation", quaternions_to_matrices(case.input("quat")), **tolerance)
    case.close("inverse_sigmoid", torch.logit(x), **tolerance)
    case.close("rgb2sh", rgb_to_dc(x), **tolerance)
    case.close("mean_knn3_dist2", neighbour_distances(case.input("points")), **tolerance)
    decay = learning_rate_schedule(TrainingConfig(steps=5, schedule="exponential", final_lr_factor=0.01))
    case.close("lr_decay", [1e-3 * decay(step) for step in (0, 1, 2, 4, 5)], rtol=tolerance["rtol"])
    constant = learning_rate_schedule(TrainingConfig(schedule="constant"))
    case.close("lr_const", [1.3 * ORIGINAL.position_lr * constant(step) for step in range(4)], rtol=1e-4)


def check_init(case: Case) -> None:
    made = from_points(case.input("points"), case.input("colors"))
    for name, tensor in {
        "xyz": made.means,
        "scaling": made.log_scales,
        "rotation": made.quaternions,
        "opacity": made.opacity_logits,
        "f_dc": made.sh_dc,
    }.items():
        case.close(name, tensor, **case.meta["tolerance"])


def recorded_views(case: Case) -> list[LiftedView]:
    """The two views in the recorded world, of cameras at azimuth 0 and 25 degrees."""
    height, width = case.config["height"], case.config["width"]
    views = []
    for i, azimuth in enumerate((0.0, 25.0)):
        c, s = math.cos(math.radians(azimuth)), math.sin(math.radians(azimuth))
        w2c = torch.tensor([[c, 0, -s, 0], [0, -1, 0, 0], [-s, 0, -c, 0.01], [0, 0, 0, 1.0]])
        K = torch.tensor([[width, 0, (width - 1) / 2], [0, width, (height - 1) / 2], [0, 0, 1.0]])
        camera = Cameras(K, torch.linalg.inv(w2c), height, width)
        image = case.input(f"image{i}").permute(2, 0, 1) / 255
        views.append(LiftedView(image, camera, Tensor(), Tensor(), f"view{i}"))
    return views


def check_optimise(case: Case) -> None:
    start = from_points(case.input("points"), case.input("colors"), ORIGINAL.opacity, ORIGINAL.width)
    fit, tolerance = GaussianFit(start, recorded_views(case), ORIGINAL), case.meta["tolerance"]
    projected = project_gaussians(fit.gaussians, fit.cameras[0], fit.cameras[0].w2c)
    for name, ours in (("xys", projected.xy), ("conics", projected.conics)):
        torch.testing.assert_close(ours, case.tensors[f"mid.{name}_0"], rtol=1e-3, atol=1e-3)
    alphas = projected.opacities[:, None]
    torch.testing.assert_close(alphas, case.tensors["mid.alpha_per_gaussian_0"], rtol=1e-3, atol=1e-3)
    losses = []
    for i, view in enumerate(case.input("view_sequence").tolist()):
        if i < 2:
            made = fit.render(view)
            case.close(f"render_{i}", made.image.permute(1, 2, 0), **tolerance["render"])
        if i == 0:
            case.close("accumulated_alpha_0", made.opacity[0], **tolerance["render"])
        losses.append(fit.step(view))
    case.close("losses", torch.tensor(losses), **tolerance["losses"])
    case.close("pose_deltas", fit.pose_deltas, **tolerance["pose_deltas"])
    for name, tensor in {
        "f_dc": fit.gaussians.sh_dc,
        "opacity": fit.gaussians.opacity_logits,
        "rotation": fit.gaussians.quaternions,
        "scaling": fit.gaussians.log_scales,
    }.items():
        case.close(name, tensor, atol=tolerance["parameters"]["atol"])
        mean = (tensor - case.output(name)).abs().mean()
        assert mean <= tolerance["parameters"]["mean_abs"], f"{name}: {mean:.1e}"


def check_ply(case: Case) -> None:
    given = Gaussians(
        means=case.input("xyz"),
        log_scales=case.input("scaling"),
        quaternions=case.input("rotation"),
        opacity_logits=case.input("opacity"),
        sh_dc=case.input("f_dc"),
        sh_rest=case.input("f_rest"),
    )
    with TemporaryDirectory() as folder:
        path = Path(folder) / "scene.ply"
        write_gaussians(path, given)
        assert path.read_bytes() == bytes(case.output("ply_bytes").numpy())
        read = read_gaussians(path)
    assert all(torch.equal(a, b) for a, b in zip(vars(given).values(), vars(read).values(), strict=True))


CHECKS: dict[str, Callable[[Case], None]] = {
    "gs_functions": check_functions,
    "gs_init": check_init,
    "gs_optimise": check_optimise,
    "gs_ply": check_ply,
}
