"""Losses, scores and schedules of mask_volume, against recorded ones (specs/mask_volume 5 and 6)."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor
from torch.nn.functional import conv2d, mse_loss, pad

from engine.config import TrainingConfig
from engine.metrics import psnr
from engine.perceptual import Vgg19BnLoss
from engine.schedule import learning_rate_schedule
from engine.vgg import BLOCKS
from methods.mask_volume.losses import Criterion, LossConfig, dilated, mask_term, masked_l1, sparse_term
from tests.parity.cases import Case

_WIDTHS = (64, 128, 256, 512, 512)


def check_losses(case: Case) -> None:
    rgb, truth, volume = (case.input(name) for name in ("rgb", "tgt_rgb", "volume"))
    alpha, mask = case.input("alpha")[:, None], case.input("tgt_mask")[:, None]
    for name in ("mse", "l1"):
        case.close(name, Criterion(LossConfig(name)).losses(rgb, truth)["loss"], rtol=1e-5)
    # the original's masks have no channels: with two images it multiplies each with the other's mask
    one = Criterion(LossConfig("masked_l1")).losses(rgb[:1], truth[:1], mask=mask[:1])
    case.close("masked_l1", one["loss"], rtol=1e-5)
    both = ((rgb - truth).abs() * mask).sum() / mask.sum()
    torch.testing.assert_close(masked_l1(rgb, truth, mask), both, rtol=1e-5, atol=0)
    torch.testing.assert_close(dilated(mask)[:, 0], case.tensors["mid.dilated"], rtol=0, atol=0)
    missing = mask_term(alpha, mask) - mask_term(alpha * (1 - mask), mask)  # what masked pixels say
    wanted = case.tensors["mid.mask_fg_term"]
    torch.testing.assert_close(0.5 - 0.5 * (alpha * mask).sum() / mask.sum(), wanted, rtol=1e-5, atol=0)
    torch.testing.assert_close(0.5 + missing, wanted, rtol=1e-5, atol=0)
    case.close("mask_loss", mask_term(alpha, mask), rtol=1e-5)
    case.close("mask_loss_empty", mask_term(alpha, torch.zeros_like(mask)), rtol=1e-5)
    case.close("sparse", sparse_term(volume), rtol=1e-5)
    # a loss that no command of the original takes
    case.close("charbonnier", ((rgb - truth) ** 2 + 1e-6).sqrt().mean(), rtol=1e-5)


def _scattered(shape: tuple[int, ...], position: int) -> Tensor:
    """The numbers in [-1, 1) that the case fills the tensor at that position of the state with."""
    index = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
    s = torch.sin(12.9898 * index + 78.233 * position) * 43758.5453
    return (2 * (s - s.floor()) - 1).reshape(shape)


@cache
def vgg() -> tuple[list[Tensor], list[Tensor]]:
    """Convolutions and batch normalisations by the case's formula."""
    convolutions: list[Tensor] = []
    norms: list[Tensor] = []
    inputs = 3
    widths = (width for width, size in zip(_WIDTHS, BLOCKS["vgg19_bn"], strict=True) for _ in range(size))
    for i, width in enumerate(widths):
        weight, *rest = (
            _scattered((width, inputs, 3, 3), 6 * i),
            *(_scattered((width,), 6 * i + k) for k in range(1, 6)),
        )
        bias, scale, shift, mean, variance = rest
        convolutions += [weight * (6 / (inputs * 9)) ** 0.5, 0.1 * bias]
        norms += [1 + 0.1 * scale, 0.1 * shift, 0.1 * mean, 1 + 0.2 * variance]
        inputs = width
    return [tensor.float() for tensor in convolutions], [tensor.float() for tensor in norms]


def check_vgg(case: Case) -> None:
    rgb, truth = case.input("rgb"), case.input("tgt_rgb")
    for mode in ("eval", "train"):
        loss = Vgg19BnLoss(*vgg(), train_mode=mode == "train")
        images = rgb.clone().requires_grad_()
        with torch.enable_grad():
            value = loss(images, truth)
            value.backward()
        case.close(f"{mode}.loss", value.detach(), rtol=1e-4)
        assert images.grad is not None
        case.close(f"{mode}.grad", images.grad, rtol=5e-3, atol=1e-6)
        if mode == "train":  # both passes have moved the running statistics
            mean, variance = loss.features._norms[2:4]
            case.close("train.running_mean_1_after", mean, rtol=1e-4, atol=1e-6)
            case.close("train.running_var_1_after", variance, rtol=1e-4)
        case.close(f"{mode}.raw_terms", loss.errors(rgb, truth), rtol=1e-4)
        maps = loss.features(_normalised(rgb))
        case.close(f"{mode}.feature_mean", torch.stack([x.mean() for x in maps]), rtol=1e-4)
        case.close(f"{mode}.feature_std", torch.stack([x.std() for x in maps]), rtol=1e-4)
        case.close(f"{mode}.relu5_2", maps[-1], rtol=1e-4, atol=2e-3 if mode == "train" else 1e-5)
    extras = case.input("alpha")[:, None], case.input("tgt_mask")[:, None], case.input("volume")
    for name, output in (("full_loss", "full_loss_eval"), ("no_mask", "no_mask_loss_eval")):
        criterion = Criterion(LossConfig(name))  # type: ignore[arg-type]
        criterion._network = Vgg19BnLoss(*vgg())
        case.close(output, criterion.losses(rgb, truth, *extras)["loss"], rtol=1e-4)


def _normalised(images: Tensor) -> Tensor:
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return (images - mean[:, None, None]) / std[:, None, None]


def check_metrics(case: Case) -> None:
    """Scores of the original's training log: of a whole batch at once, without rounding.

    The product scores every image by itself, rounded to 8 bits, with the usual SSIM (`engine.metrics`), and
    no published table was made with the original's. So it has no second set of them: PSNR follows from pieces
    that it has, and the original's SSIM, which its own code cannot run, is written down here only.
    """
    made, truth, mask = case.input("pred"), case.input("gt"), case.input("mask")
    case.close("mse", mse_loss(made, truth), rtol=1e-5)
    case.close("mse_masked", mse_loss(made[mask], truth[mask]), rtol=1e-5)
    case.close("psnr_per_image", psnr(made, truth), rtol=1e-5)
    as_one = made.transpose(0, 1).flatten(1, 2)[None], truth.transpose(0, 1).flatten(1, 2)[None]
    case.close("psnr", psnr(*as_one)[0], rtol=1e-5)
    kept = [image[mask].reshape(1, 1, 1, -1) for image in (made, truth)]
    case.close("psnr_masked", psnr(*kept)[0], rtol=1e-5)
    similarity = small_ssim(made, truth)
    case.close("ssim_map", similarity, rtol=1e-5)
    case.close("ssim", 1 - 2 * ((1 - similarity) / 2).clamp(0, 1).mean(), rtol=1e-5)


def small_ssim(images: Tensor, targets: Tensor) -> Tensor:
    """SSIM [N, C, H, W] of Gaussian 3x3 windows (sigma 1.5) around every pixel, images reflected at edges.

    Variances are small differences of large numbers, so the order of operations matters in float32.
    """
    x = torch.exp(-torch.tensor([1.0, 0.0, 1.0]) / (2 * 1.5**2))
    x = x / x.sum()
    window = (x[:, None] * x).expand(images.shape[1], 1, 3, 3).to(images)

    def blur(image: Tensor) -> Tensor:
        return conv2d(pad(image, (1, 1, 1, 1), "reflect"), window, groups=image.shape[1])

    a, b = blur(images), blur(targets)
    aa, bb, ab = a**2, b**2, a * b
    var_a, var_b, cov = blur(images**2) - aa, blur(targets**2) - bb, blur(images * targets) - ab
    c1, c2 = 0.01**2, 0.03**2
    return (2 * ab + c1) * (2 * cov + c2) / ((aa + bb + c1) * (var_a + var_b + c2) + 1e-12)


_RATE, _EPOCHS = 5e-4, 16


def _rates(**settings: object) -> Tensor:
    """Learning rates at epochs 0 ... 17, an epoch being one step here."""
    config = TrainingConfig(**{"learning_rate": _RATE, "steps": _EPOCHS, **settings})  # type: ignore[arg-type]
    factor = learning_rate_schedule(config)
    return torch.tensor([config.learning_rate * factor(epoch) for epoch in range(18)], dtype=torch.float64)


def check_schedules(case: Case) -> None:
    milestones, gamma = case.config["decay_step"], case.config["decay_gamma"]
    assert case.config["num_epochs"] == _EPOCHS
    steps = {"schedule": "multistep", "milestone_factor": gamma}
    case.close("default", _rates(), rtol=1e-6)
    case.close("steplr", _rates(milestones=tuple(milestones), **steps), rtol=1e-6)
    case.close("poly_intended", _rates(schedule="poly"), rtol=1e-6)
    # its cosine reaches the lowest rate with epoch 16, one after the last; then it would rise again
    cosine = _rates(schedule="cosine", steps=_EPOCHS + 1, final_lr_factor=1e-8 / _RATE)
    cosine[17] = cosine[15]
    case.close("cosine", cosine, rtol=1e-6)
    # after a warm-up of N epochs the schedule counts from epoch N + 1, at the risen rate
    for rise in (1, 4):
        settings = {"warmup_steps": 3, "initial_lr_factor": 1 / rise, "learning_rate": rise * _RATE}
        shifted = tuple(epoch + 4 for epoch in milestones)
        case.close(f"steplr_warmup3_mult{rise}", _rates(milestones=shifted, **settings, **steps), rtol=1e-6)
    # its cosine goes on from the rate that the warm-up left, in PyTorch's recursion, and so overshoots: only
    # the warm-up is the same
    settings = {"warmup_steps": 4, "initial_lr_factor": 0.5, "learning_rate": 2 * _RATE}
    ours = _rates(schedule="cosine", **settings)
    recorded = case.output("cosine_warmup4_mult2")
    torch.testing.assert_close(ours[:5], recorded[:5], rtol=1e-6, atol=0)
    assert recorded[5] > recorded[4]
    assert (ours[5:16].diff() < 0).all()


CHECKS: dict[str, Callable[[Case], None]] = {
    "losses_basic": check_losses,
    "vgg_perceptual": check_vgg,
    "metrics": check_metrics,
    "lr_schedules": check_schedules,
}
