"""Losses and scores of both LVSM implementations, against recorded ones (specs/lvsm 5.2 and 6.1)."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from engine.lvsm_metrics import lpips_lvsm, psnr_lvsm, ssim_lvsm
from engine.perceptual import LpipsLoss, Vgg19Loss, lpips_heads
from engine.vgg import BLOCKS
from tests.parity.cases import Case

_WIDTHS = (64, 128, 256, 512, 512)


def random_vgg(backbone: str, base: int) -> list[Tensor]:
    """Weights and biases of the convolutions by the cases' formula."""
    tensors: list[Tensor] = []
    inputs = 3
    outputs = [width for width, size in zip(_WIDTHS, BLOCKS[backbone], strict=True) for _ in range(size)]
    for i, width in enumerate(outputs):
        weight = np.random.RandomState(base + i).standard_normal((width, inputs, 3, 3))
        bias = np.random.RandomState(base + 100 + i).standard_normal(width) * 0.05
        tensors += [torch.from_numpy(weight * math.sqrt(2 / (9 * inputs))), torch.from_numpy(bias)]
        inputs = width
    return [tensor.float() for tensor in tensors]


def check_unofficial(case: Case) -> None:
    images, truth = case.input("pred"), case.input("gt")
    loss = LpipsLoss(random_vgg("vgg16", case.config["lpips_recipe_base_seed"]), lpips_heads())
    squared, perceptual = torch.nn.functional.mse_loss(images, truth), 0.5 * loss(images, truth)
    case.close("mse_loss", squared, rtol=1e-5)
    case.close("lpips_loss_weighted", perceptual, rtol=1e-4)
    case.close("total_loss", squared + perceptual, rtol=1e-4)
    case.close("lpips", loss.distances(images, truth), rtol=1e-4)
    case.close("psnr", psnr_lvsm(images, truth), rtol=1e-5)
    case.close("ssim", ssim_lvsm(images, truth), atol=1e-5)
    # the implementation's predictions are bf16, and so is the SSIM that it keeps of them
    rounded = images.bfloat16()
    case.close("psnr_bf16", psnr_lvsm(rounded, truth), rtol=1e-5)
    case.close("ssim_bf16_input", ssim_lvsm(rounded, truth).bfloat16(), atol=1e-5)


def check_official(case: Case) -> None:
    images, truth, base = case.input("pred"), case.input("gt"), case.config["base_seed"]
    loss = Vgg19Loss(random_vgg("vgg19", base))
    errors = loss.errors(images, truth)
    torch.testing.assert_close(errors, case.tensors["mid.perceptual_errors_unscaled"], rtol=1e-4, atol=0)
    squared = torch.nn.functional.mse_loss(images, truth)
    case.close("l2", squared, rtol=1e-5)
    case.close("perceptual", loss(images, truth), rtol=1e-4)
    case.close("loss", squared + 0.5 * loss(images, truth), rtol=1e-4)
    case.close("train_psnr", -10 * torch.log10(squared), rtol=1e-5)
    clamped = case.input("pred_unclamped").clamp(0, 1)  # the implementation clamps before every score
    case.close("psnr", psnr_lvsm(case.input("pred_unclamped"), truth), rtol=1e-5)
    case.close("ssim", ssim_lvsm(clamped, truth), atol=1e-5)
    loss16 = LpipsLoss(random_vgg("vgg16", base), lpips_heads())
    case.close(
        "lpips",
        lpips_lvsm(clamped, truth, lambda a, b: loss16.distances(a / 2 + 0.5, b / 2 + 0.5)),
        rtol=1e-4,
    )


CHECKS: dict[str, Callable[[Case], None]] = {
    "kh_losses_metrics": check_unofficial,
    "off_losses_metrics": check_official,
}
