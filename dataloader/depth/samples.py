"""Training samples of depth completion: a photo, its depth, and what of it the network is told.

Half of the samples hide the depth behind a hole mask and give it a random scale, so that the network learns
to continue depth whatever its unit; the others tell it nothing (specs/scene_lifting 4.4). All randomness is
in `Draws`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.errors import UserError

_WINDOW = (slice(8, 472), slice(8, 632))  # of 480x640: NYU's photos have a white border
_LOW = 0.01  # quantile of the depth that stands for its smallest value
_AUGMENT = 0.1  # photometric factors are within 1 +- this


@dataclass(frozen=True)
class SampleSettings:
    """How samples are made. Defaults are the corrected way."""

    min_depth: float = 1e-3  # range of rescaled depth
    max_depth: float = 10.0
    inpaint_probability: float = 0.5  # of samples that keep some of their depth
    rescale: bool = True  # give the depth of those a random scale
    crop: bool = True  # cut rows 8 to 472 and columns 8 to 632, which NYU's photos fill
    # smallest depth: its 1 % quantile | the very minimum, where a zero makes the sample NaN
    scaling: Literal["robust", "original"] = "robust"
    flip_masks: bool = True  # with the photo (the original leaves them)
    mask_zeros: bool = True  # depth below min_depth is no ground truth (the original trains on it)

    def __post_init__(self) -> None:
        if not 0 < self.min_depth < self.max_depth:
            raise UserError(
                f"data: min_depth {self.min_depth} and max_depth {self.max_depth} are no range above 0"
            )
        if not 0 <= self.inpaint_probability <= 1:
            raise UserError(f"data: inpaint_probability {self.inpaint_probability} is not in [0, 1]")


@dataclass(frozen=True)
class Draws:
    """The random choices of a sample.

    inpaint, scale, flip, augment: in [0, 1). gamma, brightness, color (per channel): factors around 1.
    """

    inpaint: float
    scale: float
    flip: float
    augment: float
    gamma: float = 1.0
    brightness: float = 1.0
    color: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def inpaints(self, settings: SampleSettings) -> bool:
        """Whether the sample keeps some of its depth, and so needs a hole mask."""
        return self.inpaint < settings.inpaint_probability


def draw(generator: torch.Generator) -> Draws:
    """Draw the choices of a sample. Every sample takes as many numbers, whatever they decide."""
    inpaint, scale, flip, augment = torch.rand(4, generator=generator, dtype=torch.float64).tolist()
    factors = 1 + _AUGMENT * (2 * torch.rand(5, generator=generator, dtype=torch.float64) - 1)
    gamma, brightness, red, green, blue = factors.tolist()
    return Draws(inpaint, scale, flip, augment, gamma, brightness, (red, green, blue))


@dataclass
class CompletionSample:
    """A sample, or a batch of them where tensors have a leading axis.

    image: [3, h, w] in [0, 1]. depth: [1, h, w], what is to be predicted. masked_depth: [1, h, w], what the
    network is told, 0 where hidden. keep: [1, h, w] {0, 1}, where it is told. valid: [1, h, w] {0, 1}, where
    `depth` is ground truth.
    """

    image: Tensor
    depth: Tensor
    masked_depth: Tensor
    keep: Tensor
    valid: Tensor


def make_sample(
    photo: NDArray[np.uint8],
    depth: NDArray[np.float32],
    hole: NDArray[np.uint8] | None,
    draws: Draws,
    settings: SampleSettings,
    seen: NDArray[np.float32] | None = None,
) -> CompletionSample:
    """Make a sample from a photo [H, W, 3], its depth [H, W] >= 0 and a hole mask [h', w'] of any size.

    hole: 1 where depth is hidden; resized to the photo (nearest), and not needed unless the sample inpaints.
    seen: [H, W], what another view knows of the depth; it is told in place of the truth, errors included.
    Source: specs/scene_lifting 4.4. Raises ValueError when sizes differ, a mask is missing, the depth is 0
    everywhere, or `seen` is to be rescaled or cropped.
    """
    if seen is not None and (settings.rescale or settings.crop):
        raise ValueError("depth seen by another view is neither rescaled nor cropped")
    if depth.shape != photo.shape[:2]:
        raise ValueError(f"the photo is {photo.shape[:2]}, its depth {depth.shape}")
    if settings.crop:
        photo, depth = photo[_WINDOW], depth[_WINDOW]
    image = torch.from_numpy(photo.astype(np.float32) / 255).permute(2, 0, 1)
    dense = torch.from_numpy(np.array(depth, dtype=np.float32))[None]
    told = dense if seen is None else torch.from_numpy(np.array(seen, dtype=np.float32))[None]
    keep = torch.zeros_like(dense)
    if draws.inpaints(settings):
        if hole is None:
            raise ValueError("a sample that inpaints needs a hole mask")
        if settings.rescale:
            dense = told = _rescaled(dense, draws.scale, settings)
        keep = 1 - _resize_mask(hole, dense.shape[1], dense.shape[2])
    if draws.flip > 0.5:
        image, dense, told = image.flip(-1), dense.flip(-1), told.flip(-1)
        keep = keep.flip(-1) if settings.flip_masks else keep
    if draws.augment > 0.5:
        image = _augmented(image, draws)
    valid = (dense >= settings.min_depth).float() if settings.mask_zeros else torch.ones_like(dense)
    return CompletionSample(image.contiguous(), dense.contiguous(), told * keep, keep.contiguous(), valid)


def _rescaled(depth: Tensor, draw: float, settings: SampleSettings) -> Tensor:
    """Depth times a random factor that brings it somewhere into the range, and clipped to it."""
    largest = depth.max()
    if largest <= 0:
        raise ValueError("the depth is 0 everywhere")
    high = settings.max_depth / largest
    if settings.scaling == "robust":
        low = torch.minimum(settings.min_depth / _low_quantile(depth), high)
    else:
        low = settings.min_depth / depth.min()
    factor = draw * (high - low) + low
    return (depth * factor).clamp(settings.min_depth, settings.max_depth)


def _low_quantile(depth: Tensor) -> Tensor:
    """The depth above 0 that `_LOW` of such depths do not exceed."""
    known = depth[depth > 0]
    return known.kthvalue(max(1, round(_LOW * known.numel()))).values


def _resize_mask(mask: NDArray[np.uint8], height: int, width: int) -> Tensor:
    """A mask [h, w] at [1, height, width], by the nearest sample."""
    values = torch.from_numpy(np.array(mask)).float()[None, None]
    return torch.nn.functional.interpolate(values, size=(height, width), mode="nearest")[0]


def _augmented(image: Tensor, draws: Draws) -> Tensor:
    factors = draws.brightness * image.new_tensor(draws.color)[:, None, None]
    return (image**draws.gamma * factors).clamp(0, 1)
