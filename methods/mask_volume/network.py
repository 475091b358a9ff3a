"""The 3D U-Net of both networks, and their heads (specs/mask_volume 2).

The same weights run in several forms that agree (`Forms`); `response` and `after_first` together are
`forward` for volumes that come in parts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from methods.mask_volume.convolutions import (
    add_constant_conv,
    constant_conv,
    constant_conv_twin,
    conv3d,
    upsampled_conv,
    upsampled_conv_twin,
)
from methods.mask_volume.norms import rectified_norm


@dataclass(frozen=True)
class Forms:
    """How convolutions are computed; the result is the same.

    one_dnn: always by oneDNN on a CPU. subpixel: those after upsampling on the coarse grid. constant: those
    of images that are the same on all planes in two dimensions.
    """

    one_dnn: bool = True
    subpixel: bool = True
    constant: bool = True


PLAIN = Forms(one_dnn=False, subpixel=False, constant=False)  # as the tables say them


class Block(nn.Module):
    """Convolution, ReLU, and a norm over channels and positions together (one group); bare: without both."""

    def __init__(self, inputs: int, outputs: int, size: int = 3, stride: int = 1, bare: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv3d(inputs, outputs, size, stride, size // 2)
        self.norm = None if bare else nn.GroupNorm(1, outputs)

    def forward(self, x: Tensor, one_dnn: bool = True) -> Tensor:
        conv = self.conv
        if not one_dnn:
            return self.finish(conv(x))
        return self.finish(conv3d(x, conv.weight, conv.bias, conv.stride[0], int(conv.padding[0])))

    @property
    def bias(self) -> Tensor:
        assert self.conv.bias is not None
        return self.conv.bias

    def finish(self, x: Tensor) -> Tensor:
        """What follows the convolution, whose result may be overwritten."""
        return x if self.norm is None else rectified_norm(x, self.norm)


@dataclass
class Part:
    """Some channels of a volume. first: number of the first one.

    volume: [B, C, D, H, W]. image: [B, C, H, W] in its place, where all planes are the same.
    """

    first: int
    volume: Tensor | None = None
    image: Tensor | None = None


class UNet3d(nn.Module):
    """[B, inputs, D, H, W] -> [B, outputs, D, H, W] for any D, H and W (specs/mask_volume 2.2).

    Coarse features grow by nearest neighbours and are cut to the size of the finer ones. width: channels of
    the first layer (nf).
    """

    def __init__(self, inputs: int, outputs: int, width: int = 8) -> None:
        super().__init__()
        w = width
        self.conv1_1 = Block(inputs, w, 7)
        self.conv1_2 = Block(w, 2 * w, 7, 2)
        self.conv2_1 = Block(2 * w, 2 * w)
        self.conv2_2 = Block(2 * w, 4 * w, 3, 2)
        self.conv3_1 = Block(4 * w, 4 * w)
        self.conv3_2 = Block(4 * w, 8 * w, 3, 2)
        self.conv4_1 = Block(8 * w, 8 * w)
        self.conv4_2 = Block(8 * w, 8 * w)
        self.conv5_1 = Block(16 * w, 4 * w)
        self.conv5_2 = Block(4 * w, 4 * w)
        self.conv6_1 = Block(8 * w, 2 * w)
        self.conv6_2 = Block(2 * w, 2 * w)
        self.conv7_1 = Block(4 * w, 2 * w)
        self.conv7_2 = Block(2 * w, w)
        self.conv7_3 = Block(w, outputs, bare=True)
        self.forms = Forms()

    def forward(self, volume: Tensor) -> Tensor:
        response = self.response([Part(0, volume=volume)], volume.shape[2], bias=True)
        return self.after_first(response, volume.shape[-3:])

    def response(self, parts: Sequence[Part], planes: int, bias: bool = False) -> Tensor:
        """The first convolution of some channels alone [B, width, D, H, W]; over all parts they add up to it.

        bias: whether to add the layer's bias.
        """
        total: Tensor | None = None
        left = self.conv1_1.bias if bias else None
        for part in sorted(parts, key=lambda part: part.image is not None):  # volumes, then images
            if part.image is not None:
                total = self._add_image(total, part.image, self._kernel(part, part.image), planes)
                continue
            assert part.volume is not None
            kernel, convolve = self._kernel(part, part.volume), self._convolution()
            made = convolve(part.volume, kernel, left, 1, kernel.shape[-1] // 2)
            total, left = made if total is None else total + made, None
        assert total is not None
        return total if left is None else total + left[:, None, None, None]

    def _kernel(self, part: Part, given: Tensor) -> Tensor:
        """Of the first layer what looks at the channels of a part."""
        return self.conv1_1.conv.weight[:, part.first : part.first + given.shape[1]]

    def _convolution(self) -> Callable[..., Tensor]:
        return conv3d if self.forms.one_dnn else functional.conv3d

    def _add_image(self, total: Tensor | None, image: Tensor, kernel: Tensor, planes: int) -> Tensor:
        """What the first layer makes of an image in place of a volume, added to a total."""
        if not self.forms.constant:
            made = constant_conv_twin(image, planes, kernel)
            return made if total is None else total + made
        if total is None:
            return constant_conv(image, planes, kernel)
        return add_constant_conv(total, image, kernel)

    def after_first(self, response: Tensor, size: Sequence[int]) -> Tensor:
        """From the first convolution's result (which may be overwritten) to the output of size (D, H, W)."""
        own = self.forms.one_dnn
        c1 = self.conv1_2(self.conv1_1.finish(response), own)
        del response  # what nobody needs any more makes room
        c2 = self.conv2_2(self.conv2_1(c1, own), own)
        c3 = self.conv3_2(self.conv3_1(c2, own), own)
        x = self.conv4_2(self.conv4_1(c3, own), own)
        x = self.conv5_2(self._up(self.conv5_1, x, c3), own)
        x = self.conv6_2(self._up(self.conv6_1, x, c2), own)
        x = self._up(self.conv7_1, x, c1)
        del c1, c2, c3
        return _cut(self.conv7_3(self.conv7_2(x, own), own), size)

    def _up(self, block: Block, coarse: Tensor, skip: Tensor) -> Tensor:
        """Join features, grow them by 2 and convolve."""
        joined = torch.cat([_cut(coarse, skip.shape[-3:]), skip], 1)
        convolve = upsampled_conv if self.forms.subpixel else upsampled_conv_twin
        return block.finish(convolve(joined, block.conv.weight, block.bias))


def _cut(x: Tensor, size: Sequence[int]) -> Tensor:
    """The first D planes, H rows and W columns of a volume."""
    return x[..., : size[0], : size[1], : size[2]]


class MpiNet(UNet3d):
    """A plane sweep of V views [B, 3V, D, H, W] -> what to make of it (specs/mask_volume 2.3)."""

    def __init__(self, views: int = 2, width: int = 8) -> None:
        super().__init__(3 * views, views, width)

    @staticmethod
    def head(raw: Tensor) -> tuple[Tensor, Tensor]:
        """Raw output [B, V, D, H, W] -> opacity [B, D, H, W], and logits of the views [B, V, D, H, W].

        The first view's logit is 0.
        """
        return raw[:, 0].sigmoid(), torch.cat([torch.zeros_like(raw[:, :1]), raw[:, 1:]], 1)


class MaskNet(UNet3d):
    """Plane sweeps of V views and of their plates [B, 6V, D, H, W] -> logits of the mask [B, 1, D, H, W]."""

    def __init__(self, views: int = 2, width: int = 8) -> None:
        super().__init__(6 * views, 1, width)
