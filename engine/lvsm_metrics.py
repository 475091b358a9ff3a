"""PSNR, SSIM and LPIPS as both published LVSM implementations define them (specs/lvsm 6.1).

Only for comparison with their tables: images are not rounded to 8 bits, and SSIM is scikit-image's, with
(co)variances of a sample. Of the originals, one clamps images before every score, the other for PSNR alone;
`lvsm_scores` clamps for all, which changes nothing for networks that end in a sigmoid. `engine.metrics` is
the protocol that results are compared by.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from engine.metrics import psnr, ssim_map

DEFINITIONS = {
    "psnr_lvsm": "dB, per image over the full frame, float32, clamped, not rounded",
    "ssim_lvsm": "scikit-image: Gaussian 11x11, sigma 1.5, data range 1, sample covariance, valid region",
    "lpips_lvsm": "LPIPS 0.1, VGG-16, full frame, float32, clamped, not rounded",
}

Network = Callable[[Tensor, Tensor], Tensor]


def psnr_lvsm(images: Tensor, targets: Tensor) -> Tensor:
    """PSNR per image in dB, [N]. images, targets: [N, 3, H, W], clamped to [0, 1]."""
    return psnr(images.float().clamp(0, 1), targets.float().clamp(0, 1))


def ssim_lvsm(images: Tensor, targets: Tensor) -> Tensor:
    """`skimage.metrics.structural_similarity` with Gaussian weights per image, [N].

    images, targets: [N, 3, H, W] in [0, 1], not clamped here.
    """
    return ssim_map(images.float(), targets.float(), bias_correction=True).flatten(1).mean(1)


def lpips_lvsm(images: Tensor, targets: Tensor, network: Network) -> Tensor:
    """LPIPS per image, [N].

    images, targets: [N, 3, H, W] in [0, 1], not clamped here. network: LPIPS of images in [-1, 1].
    """
    return network(images.float() * 2 - 1, targets.float() * 2 - 1)


def lvsm_scores(images: Tensor, targets: Tensor, network: Network | None) -> list[dict[str, float]]:
    """The scores of `DEFINITIONS` per image, all of clamped images; LPIPS where its network is there."""
    images, targets = images.float().clamp(0, 1), targets.float().clamp(0, 1)
    columns = {"psnr_lvsm": psnr_lvsm(images, targets), "ssim_lvsm": ssim_lvsm(images, targets)}
    if network is not None:
        columns["lpips_lvsm"] = lpips_lvsm(images, targets, network)
    return [{name: float(values[i]) for name, values in columns.items()} for i in range(len(images))]
