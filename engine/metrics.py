"""The one metric protocol: what is scored, how, and on which pixels.

Images are in [0, 1], float32, clamped and rounded to 8 bits before scoring. PSNR is per image, then averaged.
SSIM: Gaussian 11x11, sigma 1.5, data range 1, valid region, mean over channels (Wang et al. 2004). LPIPS:
version 0.1 of Zhang et al. 2018 on inputs in [-1, 1]. Masked versions score covered pixels only.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from common.errors import UserError
from engine.vgg import torchvision_convolutions, weights_file
from geometry.views import Rendering, Views

log = logging.getLogger(__name__)

DEFINITIONS = {
    "psnr": "dB, per image over the full frame, 8-bit rounded",
    "ssim": "Gaussian 11x11, sigma 1.5, data range 1, valid region, full frame",
    "psnr_covered": "dB over the pixels that the method (and the scene's surface, if it has one) covers",
    "psnr_uncovered": "dB, image pairs: over the pixels of the photo that the warp does not cover",
    "ssim_covered": "mean of the SSIM map over windows centred on covered pixels",
    "coverage": "fraction of the frame that counts as covered",
    "lpips_vgg": "LPIPS 0.1, VGG-16, full frame",
    "lpips_alex": "LPIPS 0.1, AlexNet, full frame",
}

_SSIM_WINDOW, _SSIM_SIGMA = 11, 1.5
_SSIM_C1, _SSIM_C2 = 0.01**2, 0.03**2


def quantize(images: Tensor) -> Tensor:
    """Clamp to [0, 1] and round to multiples of 1/255: what an 8-bit file would hold."""
    return (images.float().clamp(0, 1) * 255).round() / 255


def check_mask(mask: Tensor) -> Tensor:
    """Return a mask unchanged if it is {0, 1}.

    Raises ValueError otherwise: a soft mask is not a set of pixels.
    """
    if not torch.all((mask == 0) | (mask == 1)):
        raise ValueError("a metric's mask must be 0 or 1 everywhere")
    return mask


def psnr(images: Tensor, targets: Tensor, mask: Tensor | None = None) -> Tensor:
    """Peak signal-to-noise ratio per image.

    images, targets: [N, 3, H, W] in [0, 1]. mask: [N, 1, H, W] {0, 1}; only its pixels count.
    Returns [N] in dB: inf for identical images, nan where the mask is empty.
    """
    squared = (images - targets) ** 2
    if mask is None:
        mean = squared.flatten(1).mean(1)
    else:
        weight = check_mask(mask).expand_as(squared)
        mean = (squared * weight).flatten(1).sum(1) / weight.flatten(1).sum(1)
    return -10 * torch.log10(mean)


def ssim_map(images: Tensor, targets: Tensor, bias_correction: bool = False) -> Tensor:
    """Structural similarity of every 11x11 window inside the images.

    images, targets: [N, 3, H, W] in [0, 1]. bias_correction: multiply (co)variances by n / (n - 1) with n =
    121, as scikit-image does unless told otherwise. Returns [N, H - 10, W - 10], mean over channels. Raises
    UserError for images smaller than a window.
    """
    height, width = images.shape[-2:]
    if min(height, width) < _SSIM_WINDOW:
        raise UserError(
            f"images of {width}x{height} are too small to score: SSIM needs {_SSIM_WINDOW} pixels a side; "
            "raise data.max_size"
        )
    x = torch.arange(_SSIM_WINDOW, dtype=torch.float64) - _SSIM_WINDOW // 2
    gauss = torch.exp(-(x**2) / (2 * _SSIM_SIGMA**2))
    gauss = (gauss / gauss.sum()).to(images)
    channels = images.shape[1]

    def blur(image: Tensor) -> Tensor:
        image = torch.nn.functional.conv2d(image, gauss.expand(channels, 1, 1, -1), groups=channels)
        return torch.nn.functional.conv2d(image, gauss[:, None].expand(channels, 1, -1, 1), groups=channels)

    mean_x, mean_y = blur(images), blur(targets)
    var_x, var_y = blur(images**2) - mean_x**2, blur(targets**2) - mean_y**2
    covariance = blur(images * targets) - mean_x * mean_y
    if bias_correction:
        samples = _SSIM_WINDOW**2
        var_x, var_y, covariance = (c * samples / (samples - 1) for c in (var_x, var_y, covariance))
    similarity = (2 * mean_x * mean_y + _SSIM_C1) * (2 * covariance + _SSIM_C2)
    similarity = similarity / ((mean_x**2 + mean_y**2 + _SSIM_C1) * (var_x + var_y + _SSIM_C2))
    return similarity.mean(1)


def ssim(images: Tensor, targets: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean of `ssim_map` per image, [N]; with a mask [N, 1, H, W] {0, 1}, of windows centred on it."""
    similarity = ssim_map(images, targets)
    if mask is None:
        return similarity.flatten(1).mean(1)
    border = _SSIM_WINDOW // 2
    inner = check_mask(mask)[:, 0, border:-border, border:-border]
    return (similarity * inner).flatten(1).sum(1) / inner.flatten(1).sum(1)


def depth_scores(depth: Tensor, target: Tensor, valid: Tensor) -> dict[str, float]:
    """Depth errors over the valid pixels (Eigen et al. 2014 and followers).

    depth, target: any shape, positive where valid; valid: {0, 1}. MAE and rmse in the depth's unit, silog x
    100. Raises ValueError when no pixel is valid or a valid depth is not positive.
    """
    chosen = check_mask(valid) > 0
    predicted, true = depth[chosen].double(), target[chosen].double()
    if true.numel() == 0:
        raise ValueError("no valid pixel to score depth on")
    if predicted.min() <= 0 or true.min() <= 0:
        raise ValueError("depth must be positive on valid pixels")
    ratio = torch.maximum(predicted / true, true / predicted)
    logs = predicted.log() - true.log()
    scores = {
        "mae": (predicted - true).abs().mean(),
        "abs_rel": ((predicted - true).abs() / true).mean(),
        "rmse": ((predicted - true) ** 2).mean().sqrt(),
        "log10": (logs.abs() / torch.log(torch.tensor(10.0, dtype=torch.float64))).mean(),
        "silog": 100 * (logs**2).mean().sub(logs.mean() ** 2).clamp(min=0).sqrt(),
        **{f"delta{k}": (ratio < 1.25**k).double().mean() for k in (1, 2, 3)},
    }
    return {name: float(value) for name, value in scores.items()}


@dataclass
class ImageMetrics:
    """The image protocol, with the perceptual networks that could be loaded.

    networks: metric name -> function of images in [-1, 1], [N, 3, H, W] x 2 -> [N]. missing: metric name ->
    why.
    """

    networks: dict[str, Callable[[Tensor, Tensor], Tensor]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def score(self, rendering: Rendering, target: Views) -> list[dict[str, float]]:
        """Score renderings [N] against their targets: one dict per image."""
        images, truth = quantize(rendering.image), quantize(target.images)
        mask = rendering.covered()
        if target.coverage is not None:
            mask = mask * check_mask(target.coverage)
        columns = {
            "psnr": psnr(images, truth),
            "ssim": ssim(images, truth),
            "psnr_covered": psnr(images, truth, mask),
            "ssim_covered": ssim(images, truth, mask),
            "coverage": mask.flatten(1).mean(1),
        }
        for name, network in self.networks.items():
            columns[name] = network(images * 2 - 1, truth * 2 - 1)
        return [{name: float(values[i]) for name, values in columns.items()} for i in range(len(images))]


def load_image_metrics(weights_dir: Path | None = None, device: torch.device | None = None) -> ImageMetrics:
    """The image protocol with `lpips_vgg` and `lpips_alex` where their weights can be had.

    weights_dir: folder with torchvision's `vgg16*.pth` / `alexnet*.pth`; None asks torchvision's hub cache. A
    network without weights is listed in `missing`, with one log line, and is never given a number.
    """
    metrics = ImageMetrics()
    for name, backbone in (("lpips_vgg", "vgg16"), ("lpips_alex", "alexnet")):
        path = weights_file(backbone, weights_dir)
        if path is None:
            where = weights_dir or "the torch hub cache"
            metrics.missing[name] = (
                f"no {backbone} weights in {where}: pass --weights_dir, or get them with "
                f"python -c 'from torchvision import models; models.{backbone}(weights=\"DEFAULT\")'"
            )
            log.info("%s is not reported: %s", name, metrics.missing[name])
        else:
            metrics.networks[name] = _load_lpips(name.removeprefix("lpips_"), backbone, path, device)
    return metrics


def _load_lpips(
    net: str, backbone: str, path: Path, device: torch.device | None
) -> Callable[[Tensor, Tensor], Tensor]:
    """LPIPS 0.1 with the backbone's weights from a torchvision state dict."""
    import lpips

    model = lpips.LPIPS(net=net, version="0.1", pnet_rand=True, verbose=False).eval().requires_grad_(False)
    features = torchvision_convolutions(path)
    # lpips cuts the backbone's `features` into slices but keeps the order of its convolutions
    own = list(model.net.parameters())
    if [tuple(t.shape) for t in own] != [tuple(t.shape) for t in features]:
        raise UserError(f"{path} does not hold the convolutions of {backbone}: take torchvision's file")
    for parameter, value in zip(own, features, strict=True):
        parameter.data.copy_(value)
    model = model.to(device or torch.device("cpu"))
    return lambda images, targets: model(images, targets).flatten()
