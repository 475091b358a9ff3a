"""Perceptual training losses: LPIPS, the weighted VGG-19 distance of GS-LRM and LVSM, and that of VGG-19 with
batch normalisations of *Deep 3D Mask Volume*.

Their networks are frozen, stay out of checkpoints and run in whatever precision the caller's autocast asks
for; differences are taken in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from common.errors import UserError
from engine.vgg import (
    BLOCKS,
    VggFeatures,
    check_shapes,
    folded,
    matconvnet_convolutions,
    torchvision_convolutions,
    torchvision_normalised,
    weights_file,
)

PerceptualName = Literal["none", "lpips", "vgg19", "vgg19_bn"]

# What LPIPS subtracts from and divides images in [-1, 1] by (Zhang et al. 2018, version 0.1).
_LPIPS_SHIFT, _LPIPS_SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
_TINY = 1e-20  # keeps the gradient of a norm finite where all features are zero

_MATCONVNET_MEAN = (123.68, 116.779, 103.939)  # of images in [0, 255]
_TORCHVISION_MEAN, _TORCHVISION_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of images in [0, 1]
# Of the errors of pixels and of relu1_2 ... relu5_2, and of their sum (specs/lvsm 5.2).
_DIVISORS, _SUM_DIVISOR = (1.0, 2.6, 4.8, 3.7, 5.6, 0.15), 255.0

# Of the same errors where VGG has batch normalisations (specs/mask_volume 5.1).
_NORMALISED_DIVISORS = (1.0, 2.6, 4.8, 3.7, 5.6, 0.15)

_COMMANDS = {
    "vgg16": "python -c 'from torchvision import models; models.vgg16(weights=\"DEFAULT\")'",
    "vgg19_bn": "python -c 'from torchvision import models; models.vgg19_bn(weights=\"DEFAULT\")'",
    "vgg19": "wget https://www.vlfeat.org/matconvnet/models/imagenet-vgg-verydeep-19.mat",
}


def _per_channel(values: Sequence[float], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device=like.device)[:, None, None]


class LpipsLoss(nn.Module):
    """LPIPS 0.1 with VGG-16, mean over images; the gradient goes to the prediction.

    convolutions: weights and biases of VGG-16. heads: per block, [C] non-negative weights of its channels.
    """

    def __init__(self, convolutions: Sequence[Tensor], heads: Sequence[Tensor]) -> None:
        super().__init__()
        self.features = VggFeatures(BLOCKS["vgg16"], convolutions, BLOCKS["vgg16"], "max")
        self._heads = [head.detach().float().flatten() for head in heads]

    def forward(self, images: Tensor, targets: Tensor) -> Tensor:
        """Images and targets [..., 3, H, W] in [0, 1] -> scalar."""
        return self.distances(images.flatten(0, -4), targets.flatten(0, -4)).mean()

    def distances(self, images: Tensor, targets: Tensor) -> Tensor:
        """Images and targets [N, 3, H, W] in [0, 1] -> [N]."""
        maps = self.features(self._normalise(images))
        with torch.no_grad():
            true_maps = self.features(self._normalise(targets))
        total = images.new_zeros(len(images), dtype=torch.float32)
        for one, other, head in zip(maps, true_maps, self._heads, strict=True):
            squared = (_unit(one) - _unit(other)) ** 2
            total = total + (squared * head.to(squared.device)[:, None, None]).sum(1).mean((1, 2))
        return total

    def _normalise(self, images: Tensor) -> Tensor:
        shift, scale = _per_channel(_LPIPS_SHIFT, images), _per_channel(_LPIPS_SCALE, images)
        return (images.float() * 2 - 1 - shift) / scale


def _unit(maps: Tensor) -> Tensor:
    """Maps [N, C, h, w] with unit length over channels."""
    maps = maps.float()
    return maps / ((maps.square().sum(1, keepdim=True) + _TINY).sqrt() + 1e-10)


class Vgg19Loss(nn.Module):
    """L1 distances of pixels and of five VGG-19 maps, weighted (GS-LRM, official LVSM; specs/lvsm 5.2).

    Max pooling is replaced by average pooling. torchvision: whether the weights want torchvision's input; the
    maps are then brought to the scale that MatConvNet's have, for which the divisors were chosen.
    """

    def __init__(self, convolutions: Sequence[Tensor], torchvision: bool = False) -> None:
        super().__init__()
        self.features = VggFeatures(BLOCKS["vgg19"], convolutions, (2, 2, 2, 2, 2), "average")
        self.torchvision = torchvision
        self.gain = 255 * sum(_TORCHVISION_STD) / 3 if torchvision else 1.0

    def forward(self, images: Tensor, targets: Tensor) -> Tensor:
        """Images and targets [..., 3, H, W] in [0, 1] -> scalar."""
        errors = self.errors(images.flatten(0, -4), targets.flatten(0, -4))
        return (errors / errors.new_tensor(_DIVISORS)).sum() / _SUM_DIVISOR

    def errors(self, images: Tensor, targets: Tensor) -> Tensor:
        """Images and targets [N, 3, H, W] in [0, 1] -> [6] mean absolute differences, not yet weighted."""
        maps = self.features(self._normalise(images))
        with torch.no_grad():
            true_maps = self.features(self._normalise(targets))
        pixels = 255 * (images.float() - targets.float()).abs().mean()
        pairs = zip(maps, true_maps, strict=True)
        return torch.stack([pixels, *(self.gain * (a.float() - b.float()).abs().mean() for a, b in pairs)])

    def _normalise(self, images: Tensor) -> Tensor:
        images = images.float()
        if self.torchvision:
            return _torchvision_input(images)
        return images * 255 - _per_channel(_MATCONVNET_MEAN, images)


class Vgg19BnLoss(nn.Module):
    """L1 distances of pixels and of five maps of VGG-19 with batch normalisations, weighted
    (specs/mask_volume 5.1).

    tensors, norms: as `VggFeatures` takes them. train_mode: normalise each batch by its own statistics,
    images and targets separately, as the original's trainer did (5.3); otherwise by the running ones.
    """

    def __init__(self, tensors: Sequence[Tensor], norms: Sequence[Tensor], train_mode: bool = False) -> None:
        super().__init__()
        tensors, norms = (tensors, norms) if train_mode else (folded(tensors, norms), ())
        self.features = VggFeatures(BLOCKS["vgg19_bn"], tensors, (2, 2, 2, 2, 2), "max", norms)

    def forward(self, images: Tensor, targets: Tensor) -> Tensor:
        """Images and targets [..., 3, H, W] in [0, 1] -> scalar."""
        errors = self.errors(images.flatten(0, -4), targets.flatten(0, -4))
        return (errors / errors.new_tensor(_NORMALISED_DIVISORS)).sum()

    def errors(self, images: Tensor, targets: Tensor) -> Tensor:
        """Images and targets [N, 3, H, W] in [0, 1] -> [6] mean absolute differences, not yet weighted."""
        images = _torchvision_input(images)
        maps = self.features(images)
        with torch.no_grad():
            targets = _torchvision_input(targets)
            true_maps = self.features(targets)
        pairs = zip((images, *maps), (targets, *true_maps), strict=True)
        return torch.stack([(a.float() - b.float()).abs().mean() for a, b in pairs])


def _torchvision_input(images: Tensor) -> Tensor:
    """Images in [0, 1] as torchvision's weights take them."""
    shift, scale = _per_channel(_TORCHVISION_MEAN, images), _per_channel(_TORCHVISION_STD, images)
    return (images.float() - shift) / scale


def perceptual_loss(name: PerceptualName, weights: str = "", train_mode: bool = False) -> nn.Module | None:
    """The perceptual loss of that name, of images and targets [..., 3, H, W] in [0, 1]; None for 'none'.

    weights: the network's file, or a folder that holds it; empty asks torchvision's hub cache. lpips takes
    torchvision's vgg16, vgg19 the MatConvNet model or torchvision's vgg19, vgg19_bn torchvision's vgg19_bn.
    train_mode: see `Vgg19BnLoss`, which alone has it. The module has no parameters, no buffers and nothing in
    its state dict, so that a method may hold it. Raises UserError where there is no such file, with the
    command that gets it, or where it holds something else.
    """
    if name == "none":
        return None
    backbone = {"lpips": "vgg16"}.get(name, name)
    path = weights_file(backbone, Path(weights) if weights else None)
    if path is None:
        raise UserError(
            f"no {backbone} weights in {weights or 'the torch hub cache'}, which the loss {name!r} needs: "
            f"get them with {_COMMANDS[backbone]}, and name the file or its folder"
        )
    matconvnet = path.suffix == ".mat"
    if matconvnet and backbone != "vgg19":
        raise UserError(f"{path} is a MatConvNet file: the loss {name!r} needs torchvision's {backbone}")
    if name == "vgg19_bn":
        tensors, norms = torchvision_normalised(path)
        check_shapes(tensors, backbone, path)
        return Vgg19BnLoss(tensors, norms, train_mode).eval()
    tensors = matconvnet_convolutions(path) if matconvnet else torchvision_convolutions(path)
    check_shapes(tensors, backbone, path)
    if name == "lpips":
        return LpipsLoss(tensors, lpips_heads()).eval()
    return Vgg19Loss(tensors, torchvision=not matconvnet).eval()


def lpips_heads() -> list[Tensor]:
    """The channel weights [C] of LPIPS 0.1 for VGG-16, which come with the package."""
    try:
        import lpips
    except ImportError:
        raise UserError("the loss 'lpips' needs the package lpips: pip install lpips") from None
    model = lpips.LPIPS(net="vgg", version="0.1", pnet_rand=True, verbose=False)
    return [head.model[-1].weight.detach().flatten() for head in model.lins]
