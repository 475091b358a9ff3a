"""Settings of `SceneLifting`. Defaults are the corrected method.

`configs/scene_lifting/original` restores what the original does (specs/scene_lifting).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from common.errors import UserError


@dataclass
class NetworkConfig:
    """The depth-completion network: ZoeDepth with a 5-channel patch embedding (specs/scene_lifting 2)."""

    height: int = 384  # pixels of its input; images of any shape are stretched to it
    width: int = 512
    hidden: int = 1024  # of tokens
    layers: int = 24
    heads: int = 16
    mlp: int = 4096
    window: int = 24  # patches along a side of the window that position biases were learned for
    hooks: tuple[int, ...] = (6, 12, 18, 24)  # blocks whose outputs the decoder takes, counted from 1
    reassemble: tuple[int, ...] = (256, 512, 1024, 1024)  # channels of the four scales
    features: int = 256  # of the decoder
    bins: int = 64
    embedding: Literal["extend", "reinit"] = (
        "extend"  # start of the two new channels: 0 beside the photo's, or anew
    )

    def __post_init__(self) -> None:
        for name in ("height", "width", "hidden", "layers", "heads", "mlp", "window", "features", "bins"):
            if getattr(self, name) < 1:
                raise UserError(f"model.network.{name} is {getattr(self, name)}: it must be at least 1")
        if self.height % 32 or self.width % 32:
            raise UserError(f"model.network is {self.height}x{self.width}: both must be multiples of 32")


@dataclass
class InpainterConfig:
    """The model that paints what a new view does not show yet (specs/scene_lifting 3.4)."""

    name: str = "stabilityai/stable-diffusion-2-inpainting"  # hub id, diffusers folder, or 'none'
    decoder: str = "cross-attention/asymmetric-autoencoder-kl-x-2"  # empty: the pipeline's own
    steps: int = 50
    guidance: float = 7.5
    offload: bool = False  # keep the weights on the CPU and move each part to the GPU as it is needed


@dataclass
class GenerationConfig:
    """How a photo becomes a scene (specs/scene_lifting 3)."""

    mode: Literal["single", "stage", "360"] = "stage"
    path: str = (
        ""  # a camera_path.json in place of the mode's cameras; the photo's camera is the world's origin
    )
    radius: float = 0.01  # of the circle on which the cameras of the modes sit, in depth units
    prompt: str = ""
    negative_prompt: str = ""
    prompts: tuple[str, ...] = ()  # one per outpainted view, in place of `prompt`
    negative_prompts: tuple[str, ...] = ()
    seed: int = 0
    first_scale: float = 1.0  # depth unit of the network's sparse channel, for the photo and for later views
    next_scale: float = 0.5
    snap_threshold: int = (
        12  # of 255 grey levels of depth: steeper pixels take the depth of a side of the edge
    )
    snap_erosion: int = 3  # pixels around such edges that are snapped too
    seams: Literal["honour", "network"] = (
        "honour"  # known depth is kept and blended into | the network's everywhere
    )
    half_pixel: bool = False  # the original's principal point, half a pixel off the image's middle


@dataclass
class GaussianConfig:
    """3D Gaussians from the points, optimised on the views (specs/scene_lifting 3.5)."""

    steps: int = 0  # 0: points only (the original: 990)
    learn_opacity: bool = True  # False: the original's constant
    opacity: float = 0.8  # to start from; the original: 0.731
    width: float = 0.5  # to start from, standard deviation in distances to the neighbours; the original: 1
    color_lr: float = 2.5e-3
    rest_lr: float = 1.25e-4
    scale_lr: float = 5e-3
    rotation_lr: float = 1e-3
    opacity_lr: float = 5e-2
    position_lr: float = 1.6e-4  # times the scene's extent; the original: 1.6e-12, that is, never moved
    pose_lr: float = 0.0  # of per-view pose corrections, thrown away afterwards; the original: 1e-4
    dssim: float = 0.2  # weight of 1 - SSIM beside L1
    view_directions: Literal["center", "translation"] = "center"  # translation: the original's quirk
    principal_point: Literal["camera", "middle"] = (
        "camera"  # middle: of the image, whatever the view's camera says
    )
    backend: Literal["auto", "torch", "numba", "gsplat"] = "auto"

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise UserError(f"model.gaussians.steps is {self.steps}: 0 (points only) or more")
        if not 0 < self.opacity < 1:
            raise UserError(f"model.gaussians.opacity is {self.opacity}: it must lie between 0 and 1")
        if not self.width > 0:
            raise UserError(f"model.gaussians.width is {self.width}: it must be above 0")
        if not 0 <= self.dssim <= 1:
            raise UserError(f"model.gaussians.dssim is {self.dssim}: it must lie between 0 and 1")


@dataclass
class LossConfig:
    """What is minimised in training: weights of the terms (specs/scene_lifting 5)."""

    silog: float = 1.0
    sparse: float = 1.0
    gradient: float = 0.0


@dataclass
class SceneLiftingConfig:
    """The `model:` section."""

    network: NetworkConfig = field(default_factory=NetworkConfig)
    inpainter: InpainterConfig = field(default_factory=InpainterConfig)
    generation: GenerationConfig = field(default_factory=GenerationConfig)
    gaussians: GaussianConfig = field(default_factory=GaussianConfig)
    loss: LossConfig = field(default_factory=LossConfig)
