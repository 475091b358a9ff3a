"""The two networks with what stands before and behind them: plane sweeps and multi-plane images.

Everything here works on batches [B]; the first source view is the reference.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from geometry.cameras import Cameras
from geometry.plane_render import sweep_photos
from geometry.planes import OUT_OF_VIEW, Beyond, in_view
from methods.mask_volume.config import MaskVolumeConfig
from methods.mask_volume.network import PLAIN, Forms, MaskNet, MpiNet, Part, UNet3d

_AT_ONCE = 1 << 20  # positions of a volume that become planes together


@dataclass
class Frame:
    """Where planes stand. reference: cameras [B], as large as the planes. depths: [B, D], far to near."""

    reference: Cameras
    depths: Tensor


@dataclass
class Swept:
    """Photos of V views, each swept through the planes of a frame.

    first: [B, 3, H, W], the reference's, whose slices are all the same. others: [B, V - 1, 3, D, H, W].
    reach: where each view reaches, [B, V, D, H, W] bool; None: colours out of view are `OUT_OF_VIEW` and
    take part as they are.
    """

    first: Tensor
    others: Tensor
    reach: Tensor | None = None

    @property
    def planes(self) -> int:
        return self.others.shape[3]

    def parts(self, start: int, dtype: torch.dtype) -> list[Part]:
        """The channels that a network is shown, from number `start`: colours, or a flag out of view."""
        others = self.others
        if self.reach is not None:
            others = torch.where(self.reach[:, 1:, None], others, OUT_OF_VIEW)
        volume = others.flatten(1, 2).to(dtype, memory_format=torch.channels_last_3d)
        if self.reach is None:
            return [Part(start, image=self.first.to(dtype)), Part(start + 3, volume=volume)]
        inside = self.reach[:, :1, 0]  # the reference reaches as far on every plane
        return [
            Part(start, image=torch.where(inside, self.first, OUT_OF_VIEW).to(dtype)),
            Part(start + 3, volume=volume),
        ]


class PlaneModel(nn.Module):
    """Photos -> multi-plane images, and masks that mix two of them."""

    def __init__(self, config: MaskVolumeConfig) -> None:
        super().__init__()
        self.config = config
        self.mpi_net = MpiNet(config.views, config.width)
        self.mask_net = MaskNet(config.views, config.width) if config.stage == "mask" else None

    def set_plain(self, plain: bool) -> None:
        """Whether the networks run as the tables say them."""
        for net in (self.mpi_net, self.mask_net):
            if net is not None:
                net.forms = PLAIN if plain else Forms()

    def frame(self, reference: Cameras, depths: Tensor) -> Frame:
        """The planes of reference cameras [B], with the margin that the settings ask for."""
        height, width = reference.height, reference.width
        y, x = round(self.config.margin * height), round(self.config.margin * width)
        return Frame(reference.crop(-y, -x, height + 2 * y, width + 2 * x) if x or y else reference, depths)

    def sweep(self, images: Tensor, cameras: Cameras, frame: Frame) -> Swept:
        """Photos [B, V, 3, h, w] and their cameras [B, V] through the planes."""
        sampling, own = self.config.sampling, self.config.own_colours
        beyond: Beyond = "edge" if own else "flag"
        reference, how = frame.reference, (sampling, beyond)
        first = sweep_photos(images[:, :1], cameras[:, :1], reference, frame.depths[:, :1], *how)
        others = sweep_photos(images[:, 1:], cameras[:, 1:], reference, frame.depths, *how)
        if not own:
            return Swept(first[:, 0, :, 0], others)
        reach = in_view(cameras[:, 1:], frame.reference, frame.depths)
        same = in_view(cameras[:, :1], frame.reference, frame.depths[:, :1])  # on every plane
        return Swept(first[:, 0, :, 0], others, torch.cat([same.expand_as(reach[:, :1]), reach], 1))

    def mpi(self, swept: Swept) -> Tensor:
        """The multi-plane image [B, D, H, W, 4] that the first network makes of a sweep."""
        net, count = self.mpi_net, swept.planes
        # nothing else holds the response, which the network gives up as soon as it can
        raw = net.after_first(
            net.response(swept.parts(0, _dtype(net)), count, bias=True), swept.others.shape[3:]
        )
        alpha, logits = MpiNet.head(raw.float())
        step = max(1, _AT_ONCE // alpha[:, 0].numel())
        parts = [slice(start, start + step) for start in range(0, count, step)]
        return torch.cat([self._layers(swept, part, alpha[:, part], logits[:, :, part]) for part in parts], 1)

    def _layers(self, swept: Swept, part: slice, alpha: Tensor, logits: Tensor) -> Tensor:
        """Some of the planes [B, n, H, W, 4]: the views' colours, mixed as logits [B, V, n, H, W] say, and
        alpha [B, n, H, W].
        """
        if swept.reach is not None:
            reach = swept.reach[:, :, part]
            nowhere = ~reach.any(1, keepdim=True)  # no view reaches there: edge colours of all
            logits = logits.masked_fill(~(reach | nowhere), -torch.inf)
        weights = logits.softmax(1)
        color = weights[:, :1] * swept.first[:, :, None]
        for view in range(1, weights.shape[1]):
            color = color + weights[:, view : view + 1] * swept.others[:, view - 1, :, part]
        if self.config.backdrop and part.start == 0:
            alpha = torch.cat([torch.ones_like(alpha[:, :1]), alpha[:, 1:]], 1)
        if self.config.premultiplied:
            color = color * alpha[:, None]
        return torch.stack([*color.unbind(1), alpha], -1)

    def still_response(self, plates: Swept) -> Tensor:
        """What plates contribute to the mask network's first convolution."""
        net = self._mask_net()
        return net.response(plates.parts(3 * self.config.views, _dtype(net)), plates.planes, bias=True)

    def mask(self, swept: Swept, still: Tensor) -> Tensor:
        """The mask volume [B, 1, D, H, W] in [0, 1] of a sweep. still: `still_response` of its plates."""
        net = self._mask_net()
        raw = net.after_first(
            net.response(swept.parts(0, _dtype(net)), swept.planes).add_(still), swept.others.shape[3:]
        )
        return raw.float().sigmoid()

    def _mask_net(self) -> MaskNet:
        assert self.mask_net is not None, "the settings have no mask network"
        return self.mask_net


def blend(mask: Tensor, now: Tensor, still: Tensor) -> Tensor:
    """Two multi-plane images [B, D, H, W, 4] mixed by a mask [B, 1, D, H, W], all four channels alike."""
    return torch.lerp(still, now, mask[:, 0, ..., None])


def _dtype(net: UNet3d) -> torch.dtype:
    return net.conv1_1.conv.weight.dtype
