"""Settings of `SceneLifting`. Defaults are the corrected method.

`configs/scene_lifting/original` restores what the original does (specs/scene_lifting).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from common.errors import UserError
from dataloader.depth.samples import SampleSettings

Aspect = Literal["stretch", "minimal", "lower_bound", "upper_bound"]


@dataclass
class NetworkConfig:
    """The depth-completion network: ZoeDepth with a 5-channel patch embedding (specs/scene_lifting 2)."""

    height: int = 384  # pixels of its input
    width: int = 512
    # how images of another shape come to it. stretch: both sides on their own, as published weights know it;
    # others keep the aspect, scaled by the side's factor closer to 1, or to at least, or at most, that size
    aspect: Aspect = "stretch"
    hidden: int = 1024  # of tokens
    layers: int = 24
    heads: int = 16
    mlp: int = 4096
    window: int = 24  # patches along a side of the window that position biases were learned for
    hooks: tuple[int, ...] = (6, 12, 18, 24)  # blocks whose outputs the decoder takes, counted from 1
    reassemble: tuple[int, ...] = (256, 512, 1024, 1024)  # channels of the four scales
    features: int = 256  # of the decoder
    bins: int = 64
    bin_embedding: int = 128  # channels of the metric head's embeddings
    embedding: Literal["extend", "reinit"] = (
        "extend"  # start of the two new channels: 0 beside the photo's, or anew
    )

    def __post_init__(self) -> None:
        for name in (
            "height",
            "width",
            "hidden",
            "layers",
            "heads",
            "mlp",
            "window",
            "features",
            "bins",
            "bin_embedding",
        ):
            if getattr(self, name) < 1:
                raise UserError(f"model.network.{name} is {getattr(self, name)}: it must be at least 1")
        if self.height % 32 or self.width % 32:
            raise UserError(f"model.network is {self.height}x{self.width}: both must be multiples of 32")


@dataclass
class InpainterConfig:
    """The model that paints what a new view does not show yet (specs/scene_lifting 3.4)."""

    name: str = "stabilityai/stable-diffusion-2-inpainting"  # hub id, diffusers folder, or 'none'
    decoder: str = "cross-attention/asymmetric-autoencoder-kl-x-2"  # empty: the pipeline's own
    steps: int = 50  # denoising steps; distilled models need 1 to 8
    guidance: float = 7.5  # towards the prompt, away from the negative one; distilled models: 0
    offload: bool = False  # keep the weights on the CPU and move each part to the GPU as it is needed

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise UserError(f"model.inpainter.steps is {self.steps}: it must be at least 1")
        if not self.guidance >= 0:
            raise UserError(f"model.inpainter.guidance is {self.guidance}: it must be at least 0")
        if not self.name:
            raise UserError("model.inpainter.name is empty: give a hub id, a folder, or 'none'")


@dataclass
class GenerationConfig:
    """How a photo becomes a scene (specs/scene_lifting 3)."""

    max_size: int = 768  # long side of the photo in pixels, larger ones are reduced; 0: as they are
    field_of_view: float = 0.0  # of the photo, degrees from left to right; 0: as EXIF says, else 53.13
    mode: Literal["single", "stage", "360"] = "stage"
    path: str = ""  # a camera_path.json in place of the mode's cameras, relative to the photo's camera
    radius: float = 0.01  # of the circle on which the cameras of the modes sit, in depth units
    prompt: str = ""
    negative_prompt: str = ""
    prompts: tuple[str, ...] = ()  # one per outpainted view, in place of `prompt`
    negative_prompts: tuple[str, ...] = ()
    seed: int = 0
    first_scale: float = 1.0  # depth unit of the network's sparse channel, for the photo and for later views
    next_scale: float = 0.5
    # sizes of rendered points: in pixels | relative to the image, as the original's
    rendering: Literal["pixels", "relative"] = "pixels"
    snap_threshold: int = 12  # of 255 grey levels of depth: steeper pixels take a side's depth
    snap_erosion: int = 3  # pixels around such edges that are snapped too
    # known depth and colours are kept and blended into | the networks' are taken everywhere
    seams: Literal["honour", "network"] = "honour"
    seam_reach: float = 0.04  # of the short side: how far into a hole known depth bends the network's
    half_pixel: bool = False  # the original's principal point, half a pixel off the image's middle
    source_depth: Literal["all", "first"] = "all"  # of several photos: whose own depth is used
    folder: str = ""  # where painted views are kept, for a later call to continue; empty = nowhere

    def __post_init__(self) -> None:
        _check("max_size", self.max_size, self.max_size == 0 or self.max_size >= 32, "0, or at least 32")
        _check("field_of_view", self.field_of_view, 0 <= self.field_of_view < 180, "in [0, 180)")
        for name in ("radius", "first_scale", "next_scale", "seam_reach"):
            _check(name, getattr(self, name), getattr(self, name) > 0, "above 0")
        _check("seed", self.seed, self.seed >= 0, "at least 0")
        _check("snap_threshold", self.snap_threshold, 1 <= self.snap_threshold <= 256, "in [1, 256]")
        _check("snap_erosion", self.snap_erosion, self.snap_erosion >= 0, "at least 0")


def _check(name: str, value: object, good: bool, what: str) -> None:
    if not good:
        raise UserError(f"model.generation.{name} is {value}: it must be {what}")


@dataclass
class PointsConfig:
    """How points are rendered where a scene has no Gaussians."""

    radius: float = 1.0  # pixels
    close_gaps: bool = (
        False  # pixels between neighbouring points take the nearest colour and count as covered
    )

    def __post_init__(self) -> None:
        if not self.radius > 0:
            raise UserError(f"model.points.radius is {self.radius}: it must be above 0")


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
    principal_point: Literal["camera", "middle"] = "camera"  # middle: of the image, whatever the camera says
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
    invariant: float = 0.0  # to scale and shift


@dataclass
class PathsConfig:
    """Where training data lie besides `data.root`, NYU's `sync` photos (specs/scene_lifting 4.1)."""

    teacher: str = ""  # depth of the photos, made by scripts/depth.py predict-teacher
    masks: str = ""  # occlusion masks, made by scripts/depth.py project-masks
    test: str = ""  # NYU's test photos with measured depth, made by scripts/depth.py nyu-splits; empty = none
    test_list: str = ""  # lines 'PHOTO DEPTH FOCAL' that choose among them; empty = all


@dataclass
class SceneLiftingConfig:
    """The `model:` section."""

    completion: Literal["network", "none"] = "network"  # none: only depth that comes with photos is used
    start: str = "Intel/zoedepth-nyu"  # first weights in training: hub id, folder, .pt file; empty = random
    equal_rates: bool = False  # training: the encoder learns as fast as the rest (where it starts at random)
    autocast: Literal["no", "bf16", "fp16"] = "no"  # precision of the network in use
    network: NetworkConfig = field(default_factory=NetworkConfig)
    inpainter: InpainterConfig = field(default_factory=InpainterConfig)
    generation: GenerationConfig = field(default_factory=GenerationConfig)
    points: PointsConfig = field(default_factory=PointsConfig)
    gaussians: GaussianConfig = field(default_factory=GaussianConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    samples: SampleSettings = field(default_factory=SampleSettings)
    paths: PathsConfig = field(default_factory=PathsConfig)
