"""Scores and the choice of frames of the MegaScenes evaluation, against recorded ones."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from engine.generative import kernel_distance
from engine.megascenes_metrics import MegascenesMetrics, binary_mask, composite, literal_mask, truncate
from methods.warp_diffusion.best_frame import (
    best_frame,
    content_crop,
    frame_errors,
    original_content_crop,
    wrapped_best_frame,
    wrapped_frame_errors,
)
from tests.parity.cases import Case

_PSNR, _SSIM, _FID, _KID = 1e-3, 1e-5, 1e-3, 1e-6  # the case's tolerances: dB, absolute, relative, absolute


class _Pooled(nn.Module):
    """The case's stand-in for Inception: the mean colours of the four quarters, [N, 12]."""

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool2d(images.float() / 255, 2).flatten(1)


def check_metrics(case: Case) -> None:
    pred, gt, warp = (case.input(name).permute(0, 3, 1, 2) for name in ("pred", "gt", "highwarp"))
    for quantize in (False, True):
        found = _scores(MegascenesMetrics(quantize=quantize), pred, gt, warp)
        for prefix in ("", "mask_"):
            name = f"quantize_{quantize}.{prefix}"
            case.close(f"{name}psnr", found[f"{prefix}psnr_megascenes"], atol=_PSNR)
            case.close(f"{name}ssim", found[f"{prefix}ssim_megascenes"], atol=_SSIM)
    found = _scores(MegascenesMetrics(mask="binary"), pred, gt, warp)
    case.close("binary_mask.mask_psnr", found["mask_psnr_megascenes"], atol=_PSNR)
    case.close("binary_mask.mask_ssim", found["mask_ssim_megascenes"], atol=_SSIM)
    _check_bytes(case, pred, gt, warp)
    _check_sets(case, pred, gt, warp)


def _scores(metrics: MegascenesMetrics, *images: Tensor) -> dict:
    """The scores of the images, added in two batches."""
    for chosen in (torch.arange(4), torch.arange(4, len(images[0]))):
        metrics.update(*(batch[chosen] for batch in images), chosen)
    return metrics.compute()


def _check_bytes(case: Case, pred: Tensor, gt: Tensor, warp: Tensor) -> None:
    """The recorded 8-bit images, which are no outputs."""

    def recorded(name: str) -> Tensor:
        return case.tensors[f"mid.{name}"]

    assert torch.equal(truncate(pred).permute(0, 2, 3, 1), recorded("quantized_pred"))
    assert torch.equal(truncate(gt).permute(0, 2, 3, 1), recorded("quantized_gt"))
    assert torch.equal(binary_mask(warp).permute(0, 2, 3, 1), recorded("binary_mask").float())
    assert torch.equal(composite(truncate(pred), truncate(gt), literal_mask(warp)), recorded("masked_pred"))


def _check_sets(case: Case, pred: Tensor, gt: Tensor, warp: Tensor) -> None:
    metrics = MegascenesMetrics(inception=_Pooled())
    found = _scores(metrics, pred, gt, warp)
    plain, masked = metrics.sets[""], metrics.sets["masked_"]
    case.close("gen.fid", found["fid_megascenes"], rtol=_FID)
    case.close("gen.masked_fid", found["masked_fid_megascenes"], rtol=_FID)
    size = case.config["kid"]["subset_size"]  # here the whole set, not n - 1
    mean, std = kernel_distance(plain.state()["generated"], plain.state()["real"], subset_size=size)
    case.close("gen.kid_mean", mean, atol=_KID)
    case.close("gen.kid_std", std, atol=_KID)
    mean, _ = kernel_distance(masked.state()["generated"], masked.state()["real"], subset_size=size)
    case.close("gen.masked_kid_mean", mean, atol=_KID)


def check_best_frame(case: Case) -> None:
    frames, warp = case.input("frames_u8").permute(0, 3, 1, 2), case.input("warp_u8").permute(2, 0, 1)
    case.close("mse_float", frame_errors(frames, warp))
    case.close("best_float", [best_frame(frames, warp)])
    case.close("mse_literal", wrapped_frame_errors(frames, warp))
    case.close("best_literal", [wrapped_best_frame(frames, warp)])
    height, width = case.config["unpadded_size_hw"]
    canvas = torch.arange(256 * 256).reshape(256, 256)
    case.close("crop_index_map", canvas[original_content_crop(height, width)])
    assert canvas[content_crop(height, width)].shape == (height, width)
