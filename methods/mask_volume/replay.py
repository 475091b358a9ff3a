"""The original's schedule of a video (specs/mask_volume 1.4) in plain torch, which `MaskVolume` spares.

Every output frame sweeps photos and plates through all planes at once, runs both networks, the first on a
batch of both, mixes, warps every plane and adds them up. `Ways` takes over exact speed-ups one by one; the
frames stay the same. For published weights' settings, two views, and inference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor
from torch.nn import functional

from common.errors import UserError
from geometry.cameras import Cameras
from geometry.plane_render import composite_planes, sweep_photos
from geometry.planes import (
    OUT_OF_VIEW,
    Composite,
    disparity_rows,
    map_pixels,
    plane_depths,
    plane_homographies,
    shining_through,
    sweep_homographies,
)
from geometry.views import Views
from methods.mask_volume.config import MaskVolumeConfig
from methods.mask_volume.convolutions import conv3d, upsampled_conv
from methods.mask_volume.data import plane_range
from methods.mask_volume.model import Frame, PlaneModel
from methods.mask_volume.network import Block, Forms, Part, UNet3d
from methods.mask_volume.norms import rectified_norm, rectified_norm_twin


@dataclass(frozen=True)
class Ways:
    """Which exact speed-ups are taken; without any it is the original's schedule."""

    plates_once: bool = False  # the plates' multi-plane image made once per clip
    moments_once: bool = False  # a moment's multi-plane image made once for all poses that see it
    half_kept: bool = False  # the plates' half of the mask network's first convolution made once per clip
    constant: bool = False  # slices that are all the same convolved in two dimensions
    subpixel: bool = False  # convolutions after upsampling done on the coarse grid
    one_dnn: bool = False  # all convolutions by oneDNN
    channels_last: bool = False  # volumes and kernels stored channels last
    norms: bool = False  # ReLU and norms in place
    sweep: bool = False  # photos swept by compiled kernels
    composite: bool = False  # planes composited by compiled kernels, which never hold all warped ones


SPEEDUPS = {  # alone, by what they do
    "none: the original's schedule": Ways(),
    "planes of the plates kept for the clip": Ways(plates_once=True),
    "planes kept for the poses of a moment": Ways(moments_once=True),
    "plates' half of the mask network's first convolution kept": Ways(half_kept=True),
    "equal slices convolved in two dimensions": Ways(constant=True),
    "upsampling and convolution on the coarse grid": Ways(subpixel=True),
    "all convolutions by oneDNN": Ways(one_dnn=True),
    "channels last": Ways(channels_last=True),
    "ReLU and norms in place": Ways(norms=True),
    "compiled plane sweep": Ways(sweep=True),
    "compiled compositor": Ways(composite=True),
    "all of them": Ways(**{field.name: True for field in fields(Ways)}),
}


@dataclass
class Kept:
    """What is made once per clip, where the ways say so.

    planes: the plates' multi-plane image [D, H, W, 4]. response: their share of the mask network's first
    convolution.
    """

    planes: Tensor | None = None
    response: Tensor | None = None


class Replay:
    """Films a clip as `ways` say, with a model's weights. Raises UserError for settings of new models."""

    def __init__(self, model: PlaneModel, ways: Ways | None = None) -> None:
        if not model.config.as_published or model.config.views != 2 or model.mask_net is None:
            raise UserError("the original's schedule is for published weights: two views, a mask network")
        self.ways = ways = ways or Ways()
        layout = torch.channels_last_3d if ways.channels_last else torch.contiguous_format
        self.mpi_net = deepcopy(model.mpi_net).to(memory_format=layout)
        self.mask_net = deepcopy(model.mask_net).to(memory_format=layout)
        for net in (self.mpi_net, self.mask_net):
            net.forms = Forms(ways.one_dnn, ways.subpixel, ways.constant)
        self.config, self.layout = model.config, layout

    @torch.no_grad()
    def film(
        self, source: Callable[[int], Views], cameras: Cameras, moments: Sequence[int]
    ) -> Iterator[tuple[int, Composite]]:
        """Pairs of the number of a pose [N] and what it sees, not cut to [0, 1]. moments: of the poses."""
        order = list(range(len(cameras)))
        if self.ways.moments_once:
            order.sort(key=lambda pose: moments[pose])
        kept, planes, last = self.keep(source(moments[order[0]])), None, None
        for pose in order:
            if planes is None or not self.ways.moments_once or moments[pose] != last:
                views, last = source(moments[pose]), moments[pose]
                planes = None  # not two at a time
                planes = self.planes(views, kept)
            yield pose, self.view(planes, self.frame(views), cameras[pose : pose + 1])

    def frame(self, source: Views) -> Frame:
        """The planes of the first of the source views [2]."""
        near, far = plane_range(source.bounds, self.config).to(source.images.device)
        return Frame(
            source.cameras[:1].to(torch.float64), plane_depths(near[None], far[None], self.config.planes)
        )

    def keep(self, source: Views) -> Kept:
        """What is made once per clip: nothing, unless the ways say so."""
        kept, ways = Kept(), self.ways
        if not (ways.plates_once or ways.half_kept):
            return kept
        plates = self.sweep([_plates(source)], self.frame(source))
        if ways.plates_once:
            kept.planes = self.mpi(plates)[0]
        if ways.half_kept:
            parts = self.parts(plates.reshape(1, 6, *plates.shape[2:]), 6)
            kept.response = self.mask_net.response(parts, self.config.planes, bias=True)
        return kept

    def planes(self, source: Views, kept: Kept) -> Tensor:
        """The multi-plane image [D, H, W, 4] of a moment."""
        frame = self.frame(source)
        needs_plates = kept.planes is None or kept.response is None
        swept = self.sweep([source, _plates(source)] if needs_plates else [source], frame)
        if kept.planes is None:
            now, still = self.mpi(swept)
        else:
            now, still = self.mpi(swept[:2])[0], kept.planes
        mask = self.mask(swept, kept)
        return mask * now + (1 - mask) * still

    def sweep(self, pairs: Sequence[Views], frame: Frame) -> Tensor:
        """Photos through all planes at once, the reference's too: [2 n, 3, D, H, W] of n pairs."""
        photos = torch.cat([pair.images for pair in pairs])
        cameras = pairs[0].cameras.to(torch.float64)[torch.arange(2).repeat(len(pairs))]
        if self.ways.sweep:
            return sweep_photos(photos, cameras, frame.reference[0], frame.depths[0], "original")
        maps = sweep_homographies(frame.reference[0], cameras, frame.depths[0])
        shape = frame.reference.height, frame.reference.width
        grids = _grids(maps.flatten(0, 1), *shape, cameras.height, cameras.width).to(photos)
        repeated = (photos - OUT_OF_VIEW).repeat_interleave(maps.shape[1], 0)
        sampled = functional.grid_sample(repeated, grids, "bilinear", "zeros", align_corners=True)
        return (sampled + OUT_OF_VIEW).unflatten(0, maps.shape[:2]).transpose(1, 2).contiguous()

    def parts(self, volume: Tensor, start: int = 0) -> list[Part]:
        """Channels [B, 6 m, D, H, W] for the first convolution, counted from number `start`."""
        if not self.ways.constant:
            return [Part(start, volume=volume.contiguous(memory_format=self.layout))]
        parts = []
        for first in range(0, volume.shape[1], 6):
            other = volume[:, first + 3 : first + 6].contiguous(memory_format=self.layout)
            parts.append(Part(start + first, image=volume[:, first : first + 3, 0]))
            parts.append(Part(start + first + 3, volume=other))
        return parts

    def mpi(self, swept: Tensor) -> Tensor:
        """Multi-plane images [n, D, H, W, 4] of n pairs, as one batch."""
        volume = swept.view(-1, 6, *swept.shape[2:])
        raw = self.unet(self.mpi_net, self.parts(volume))
        weights = torch.cat([torch.zeros_like(raw[:, :1]), raw[:, 1:]], 1).softmax(1)
        color = weights[:, :1] * volume[:, :3] + weights[:, 1:] * volume[:, 3:]
        return torch.cat([color, raw[:, :1].sigmoid()], 1).permute(0, 2, 3, 4, 1).contiguous()

    def mask(self, swept: Tensor, kept: Kept) -> Tensor:
        """The mask volume [D, H, W, 1] of photos and plates."""
        used = swept if kept.response is None else swept[:2]
        raw = self.unet(self.mask_net, self.parts(used.reshape(1, -1, *used.shape[2:])), kept.response)
        return raw.sigmoid()[0, 0, ..., None]

    def unet(self, net: UNet3d, parts: Sequence[Part], kept: Tensor | None = None) -> Tensor:
        """A network, layer by layer. kept: what the first convolution makes of channels not in `parts`."""
        if kept is not None:
            first = net.response(parts, self.config.planes).add_(kept)
        elif len(parts) > 1:
            first = net.response(parts, self.config.planes, bias=True)
        else:
            assert parts[0].volume is not None
            first = self.convolve(net.conv1_1, parts[0].volume)
        c1 = self.block(net.conv1_2, self.finish(net.conv1_1, first))
        del first
        c2 = self.block(net.conv2_2, self.block(net.conv2_1, c1))
        c3 = self.block(net.conv3_2, self.block(net.conv3_1, c2))
        c4 = self.block(net.conv4_2, self.block(net.conv4_1, c3))
        c5 = self.block(net.conv5_2, self.up(net.conv5_1, c4, c3))
        c6 = self.block(net.conv6_2, self.up(net.conv6_1, c5, c2))
        c7 = self.block(net.conv7_2, self.up(net.conv7_1, c6, c1))
        return self.convolve(net.conv7_3, c7)

    def convolve(self, block: Block, x: Tensor) -> Tensor:
        conv = block.conv
        if not self.ways.one_dnn:
            return conv(x)
        return conv3d(x, conv.weight, conv.bias, conv.stride[0], int(conv.padding[0]))

    def finish(self, block: Block, x: Tensor) -> Tensor:
        assert block.norm is not None
        return (rectified_norm if self.ways.norms else rectified_norm_twin)(x, block.norm)

    def block(self, block: Block, x: Tensor) -> Tensor:
        return self.finish(block, self.convolve(block, x))

    def up(self, block: Block, coarse: Tensor, skip: Tensor) -> Tensor:
        """Join features cut to the same size, grow them by 2 and convolve."""
        joined = torch.cat([coarse[..., : skip.shape[-2], : skip.shape[-1]], skip], 1)
        if self.ways.subpixel:
            return self.finish(block, upsampled_conv(joined, block.conv.weight, block.bias))
        return self.finish(block, self.convolve(block, functional.interpolate(joined, scale_factor=2.0)))

    def view(self, planes: Tensor, frame: Frame, camera: Cameras) -> Composite:
        """Planes [D, H, W, 4] seen from a camera [1]."""
        maps = plane_homographies(frame.reference, camera.to(torch.float64).reshape(1, 1), frame.depths)
        rows = disparity_rows(maps, frame.depths)
        size = camera.height, camera.width
        if self.ways.composite:
            made = composite_planes(planes[None], maps, rows, *size)
            return Composite(made.color[0], made.alpha[0], made.disparity[0])
        return _composite(planes, maps[0, 0], rows[0, 0], *size)


def _plates(source: Views) -> Views:
    assert source.background is not None, "the source views have no plates"
    return replace(source, images=source.background, background=None)


def _grids(maps: Tensor, height: int, width: int, from_height: int, from_width: int) -> Tensor:
    """Where to sample [N, height, width, 2], by maps [N, 3, 3] from new pixels to those of images of another
    size. Computed in float64, one by one; the original's are float32.
    """
    grids = torch.empty(len(maps), height, width, 2, device=maps.device)
    size = maps.new_tensor([from_width, from_height])
    for i, matrix in enumerate(maps):
        pixels, _ = map_pixels(matrix, height, width)
        grids[i] = (pixels / size * 2 - 1).clamp(-4, 4)
    return grids


def _composite(planes: Tensor, maps: Tensor, rows: Tensor, height: int, width: int) -> Composite:
    """Planes [D, H, W, 4], all in front of the view, warped and added up: maps [D, 3, 3], rows [D, 3]."""
    grids = _grids(maps, height, width, *planes.shape[1:3])
    warped = functional.grid_sample(planes.permute(0, 3, 1, 2), grids, "bilinear", "zeros", False)
    weights = warped[:, 3] * shining_through(warped[:, 3])
    color = (weights[:, None] * warped[:, :3]).sum(0)
    x = torch.arange(width, device=planes.device) + 0.5
    y = torch.arange(height, device=planes.device)[:, None] + 0.5
    a, b, c = (row[:, None, None] for row in rows.to(planes).unbind(-1))
    disparity = (weights * (a * x + b * y + c)).sum(0)
    return Composite(color[None], weights.sum(0)[None, None], disparity[None, None])


def published_settings() -> MaskVolumeConfig:
    """What the schedule is for: settings of published weights."""
    return MaskVolumeConfig(sampling="original", premultiplied=False, own_colours=False, backdrop=False)


@torch.no_grad()
def scatter(model: PlaneModel) -> None:
    """Change weights at random, so that opacities, mixtures and masks spread over their range."""
    for net, factor in ((model.mpi_net, 4), (model.mask_net, 6)):
        assert net is not None
        for parameter in net.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
        for parameter in net.conv7_3.parameters():
            parameter.mul_(factor)
