"""What both stages are trained to minimise (specs/mask_volume 5.1)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, l1_loss, mse_loss

from common.errors import UserError
from engine.metrics import ssim_map
from engine.perceptual import perceptual_loss

# The original's names, of both stages (vgg and vgg_only are the same), and l1_ssim, which needs no weights.
LossName = Literal[
    "mse",
    "l1",
    "vgg",
    "vgg_only",
    "full_loss",
    "no_mask",
    "masked_l1",
    "l1_ssim",
    "l1_ssim_mask",
]
# Names of the original that cannot be trained on: its model has not had what they compare for long.
UNUSABLE = {
    "vgg_video": "it compares clips, and the model makes single frames",
    "fgbgvgg": "it compares clips, and the model makes single frames",
    "fgbgl1": "it compares a foreground and a background, and the model makes one picture",
}

_VGG = ("vgg", "vgg_only", "full_loss", "no_mask")
_MASK = ("full_loss", "l1_ssim_mask")
_SPARSE = ("full_loss", "no_mask")
_SSIM_SHARE = 0.2
_DILATION = 5  # pixels a side of the box that keeps the mask term off the edges of what moves
_TINY = 1e-8


@dataclass
class LossConfig:
    """What is minimised (`model.loss`)."""

    name: LossName = "l1_ssim"  # see LossName
    mask: float = 0.25  # weight of the mask term, where the loss has it: full_loss, l1_ssim_mask
    sparse: float = 0.10  # weight of the sparse term, where the loss has it: full_loss, no_mask
    weights: str = ""  # file of torchvision's vgg19_bn, or its folder; empty: torchvision's cache
    train_mode: bool = False  # VGG normalises by each batch's statistics, as in the original's training

    def __post_init__(self) -> None:
        for key, weight in (("mask", self.mask), ("sparse", self.sparse)):
            if weight < 0:
                raise UserError(f"config key 'model.loss.{key}' is {weight}: it must be at least 0")


class Criterion:
    """A loss by its name. VGG is loaded by `prepare`; it is no part of the method, so that checkpoints and
    optimisers stay free of it.
    """

    def __init__(self, config: LossConfig) -> None:
        self.config = config
        self._network: nn.Module | None = None

    @property
    def needs_mask(self) -> bool:
        """Whether targets must say what moves in them."""
        return self.config.name in _MASK or self.config.name == "masked_l1"

    @property
    def needs_volume(self) -> bool:
        """Whether it looks at the mask volume or what is rendered of it: such a loss is for stage 2."""
        return self.config.name in _MASK or self.config.name in _SPARSE

    def prepare(self) -> None:
        """Load what the loss needs. Raises UserError where there are no weights for it."""
        if self.config.name not in _VGG or self._network is not None:
            return
        try:
            self._network = perceptual_loss("vgg19_bn", self.config.weights, self.config.train_mode)
        except UserError as error:
            raise UserError(f"{error} in model.loss.weights") from None

    def losses(
        self,
        rgb: Tensor,
        target: Tensor,
        alpha: Tensor | None = None,
        mask: Tensor | None = None,
        volume: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Losses of one training batch: 'loss', what it is made of, and the 'psnr' of what was made.

        rgb, target: [B, 3, H, W], made (not clipped) and true. alpha: [B, 1, H, W] how much of the masked
        planes is seen there. mask: [B, 1, H, W] in [0, 1], what moves there. volume: [B, 1, D, H, W] in
        [0, 1]. Raises UserError where the loss needs one of them that is None.
        """
        rgb = rgb.float()
        squared = mse_loss(rgb.detach(), target)
        name, image = self._image_term(rgb, target, mask)
        terms, loss = {name: image}, image
        if self.config.name in _MASK:
            terms["mask"] = mask_term(self._given(alpha, "volume"), self._given(mask, "mask"))
            loss = loss + self.config.mask * terms["mask"]
        if self.config.name in _SPARSE:
            terms["sparse"] = sparse_term(self._given(volume, "volume"))
            loss = loss + self.config.sparse * terms["sparse"]
        return {"loss": loss, **terms, "psnr": -10 * squared.log10()}

    def _image_term(self, rgb: Tensor, target: Tensor, mask: Tensor | None) -> tuple[str, Tensor]:
        """The part of the loss that compares pictures, and its name."""
        name = self.config.name
        if name in _VGG:
            assert self._network is not None, "prepare() loads it"
            return "vgg", self._network.to(rgb.device)(rgb, target)
        if name == "masked_l1":
            return name, masked_l1(rgb, target, self._given(mask, "mask"))
        plain: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"mse": mse_loss, "l1": l1_loss}
        if name in plain:
            return name, plain[name](rgb, target)
        return "l1_ssim", l1_ssim(rgb, target)

    def _given(self, value: Tensor | None, what: Literal["mask", "volume"]) -> Tensor:
        if value is not None:
            return value
        needs = {
            "mask": "masks of what moves in the target views, and the data have none",
            "volume": "a mask volume, and stage 1 has none",
        }
        raise UserError(f"model.loss.name {self.config.name} needs {needs[what]}: choose another loss")


def l1_ssim(rgb: Tensor, target: Tensor) -> Tensor:
    """0.8 mean absolute difference + 0.2 (1 - SSIM), over all images [N, 3, H, W]; SSIM as in the metrics.

    In single precision whatever the training's: SSIM is made of small differences of large numbers.
    """
    with torch.autocast(rgb.device.type, enabled=False):
        structure = 1 - ssim_map(rgb.float(), target.float()).mean()
    return (1 - _SSIM_SHARE) * l1_loss(rgb, target) + _SSIM_SHARE * structure


def masked_l1(rgb: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Absolute difference where the mask is: summed over channels, averaged over the mask's pixels.

    rgb, target: [B, 3, H, W]. mask: [B, 1, H, W]. For one image it is the original's; with more, the
    original multiplies images with each other's masks.
    """
    return ((rgb - target) * mask).abs().sum() / (mask.sum() + _TINY)


def mask_term(alpha: Tensor, mask: Tensor) -> Tensor:
    """What is missing of the masked planes where something moves, and too much of them where nothing does.

    alpha: [B, 1, H, W] of the masked planes, seen from the target. mask: [B, 1, H, W] in [0, 1]. Pixels
    within two of the mask's edge, outside, do not count.
    """
    alpha, still = alpha.float(), 1 - dilated(mask)
    missing = (mask * (1 - alpha)).sum() / (mask.sum() + _TINY)
    surplus = (still * alpha).sum() / (still.sum() + _TINY)
    return 0.5 * missing + 0.5 * surplus


def dilated(mask: Tensor) -> Tensor:
    """A mask [B, 1, H, W] summed over boxes of 5x5 pixels, at most 1."""
    total = avg_pool2d(mask, _DILATION, stride=1, padding=_DILATION // 2, divisor_override=1)
    return total.clamp(0, 1)


def sparse_term(volume: Tensor) -> Tensor:
    """Mean of a mask volume, of any shape: everything should be background that can be."""
    return volume.float().abs().mean()
