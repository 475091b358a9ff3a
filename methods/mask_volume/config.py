"""Settings of `MaskVolume`: by default the original's networks with sampling, compositing and edges mended.

What published weights need instead is spelt out by options; `configs/mask_volume/original` sets them all.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from common.errors import UserError
from geometry.planes import Sampling
from methods.mask_volume.losses import LossConfig
from methods.mask_volume.optimisers import OptimizerConfig

PlaneFile = Literal["html", "llff"]  # a page that shows planes, LLFF's folder


@dataclass
class ViewsConfig:
    """Which frames of a video of a static scene are given and made in training (specs/mask_volume 4.4).

    Of a rig any cameras are drawn, whatever this says.
    """

    frames: int = 10  # of a stretch, out of which sources and target are drawn
    min_stride: int = 3  # frames between two of them
    max_stride: int = 10

    def __post_init__(self) -> None:
        if self.frames < 3 or not 1 <= self.min_stride <= self.max_stride:
            raise UserError(
                f"model.sampler: frames {self.frames}, min_stride {self.min_stride}, max_stride "
                f"{self.max_stride}: at least 3 frames, and strides of at least 1 in this order"
            )


@dataclass
class AugmentConfig:
    """How training photos are changed, the photos of a sample alike (specs/mask_volume 4.4)."""

    crop: int = 0  # side of the square that is cut out, pixels; 0 keeps whole photos
    max_scale: float = 1.0  # photos are enlarged by 1 to this before
    colours: bool = False  # one of: brightness, saturation, hue, contrast, none

    def __post_init__(self) -> None:
        if self.crop < 0 or self.max_scale < 1:
            raise UserError(
                f"model.augment: crop {self.crop} must be at least 0, max_scale {self.max_scale} at least 1"
            )


@dataclass
class RenderConfig:
    """How views are made; nothing here is trained."""

    dtype: Literal["float32", "bfloat16", "float16"] = "float32"  # of the networks; norms stay in float32
    backend: Literal["auto", "compiled", "triton", "twin"] = "auto"  # of the plane renderer
    plain: bool = False  # networks as the tables say them, plates encoded every time: slower, the same views


@dataclass
class MaskVolumeConfig:
    """The model: planes, networks, and how both are used."""

    checkpoint: str = ""  # what is tested and filmed with where there is no -r, as -r names it
    stage: Literal["mpi", "mask"] = "mask"  # mpi: the first network alone, for static scenes
    views: int = 2  # sources of a multi-plane image, the first of them its reference
    width: int = 8  # channels of the networks' first layer
    planes: int = 32
    near: float = 1.0  # depths of the planes, where the views bring no bounds
    far: float = 100.0
    margin: float = 0.0  # by which planes exceed the reference photo on every side, as a fraction of it
    sampling: Sampling = "consistent"  # original: half a pixel off, as published weights saw it
    premultiplied: bool = True  # mix and warp colours multiplied by alpha
    own_colours: bool = True  # a photo that does not reach a voxel gives it no colour
    backdrop: bool = True  # the farthest plane is opaque and has no edge
    stored: str = ""  # folder of LLFF's multi-plane image to show in place of photos (-i FOLDER)
    page: tuple[PlaneFile, ...] = ("html",)  # what videos write of the planes of their first moment (--mpi)
    sampler: ViewsConfig = field(default_factory=ViewsConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    render: RenderConfig = field(default_factory=RenderConfig)

    def __post_init__(self) -> None:
        for name, least in (("views", 2), ("width", 1), ("planes", 2)):
            if getattr(self, name) < least:
                raise UserError(f"model.{name} is {getattr(self, name)}: it must be at least {least}")
        if not 0 < self.near < self.far:
            raise UserError(f"model.near {self.near:g} and model.far {self.far:g}: need 0 < near < far")
        if not 0 <= self.margin <= 1:
            raise UserError(f"model.margin is {self.margin:g}: it must be in [0, 1]")

    @property
    def as_published(self) -> bool:
        """Whether volumes and planes are those that published weights were trained on."""
        mended = self.premultiplied or self.own_colours or self.backdrop or self.margin > 0
        return self.sampling == "original" and not mended
