"""Settings of `WarpDiffusion`: by default the full-size networks of MegaScenes NVS, its defects mended.

What published weights need instead is spelt out by options that name the original or the defect.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from common.errors import UserError


@dataclass
class UNetConfig:
    """The denoiser, a Stable-Diffusion-1 UNet (specs/warp_diffusion 2.1)."""

    width: int = 320  # channels at full resolution
    multipliers: tuple[int, ...] = (1, 2, 4, 4)  # of the width, per level
    blocks: int = 2  # residual blocks per level
    attention: tuple[int, ...] = (1, 2, 4)  # downsampling factors whose levels have attention
    heads: int = 8
    context: int = 768  # width of the cross-attention token
    checkpointing: bool = False  # recompute activations in the backward pass: less memory, more time


@dataclass
class AutoencoderConfig:
    """Between images and latents: a KL autoencoder (2.2), or pixels folded into channels."""

    kind: Literal["kl", "pixels"] = "kl"
    width: int = 128  # kl: channels at full resolution
    multipliers: tuple[int, ...] = (1, 2, 4, 4)  # kl: of the width; each level but the last halves the size
    blocks: int = 2  # kl: residual blocks per level
    channels: int = 4  # kl: of the latents
    patch: int = 2  # pixels: side of the square that becomes the channels of one latent pixel
    scale: float = 0.18215  # latents are multiplied by it (kl)

    @property
    def factor(self) -> int:
        """Image pixels per latent pixel, each way."""
        return self.patch if self.kind == "pixels" else 2 ** (len(self.multipliers) - 1)

    @property
    def latent_channels(self) -> int:
        return 3 * self.patch**2 if self.kind == "pixels" else self.channels


@dataclass
class ImageEncoderConfig:
    """CLIP's image tower (2.3): OpenAI's ViT-L/14 by default."""

    layers: int = 24  # 0: no image encoder, the token is made of the pose alone
    width: int = 1024
    heads: int = 16
    patch: int = 14
    projection: int = 768  # width of the embedding


@dataclass
class SamplingConfig:
    """How views are drawn. The defaults are the few-step ones; `sampler: original` is MegaScenes'."""

    sampler: Literal["unipc", "dpmpp", "ddim", "original"] = "unipc"
    steps: int = 16  # network evaluations; 'original' executes one less than it is asked for
    guidance: float = 3.0  # classifier-free guidance; 1 = none
    eta: float = 0.0  # ddim: share of fresh noise per step; 'original' takes 1
    samples: int = 1  # drawn per view of a video; the one closest to the warp is shown
    batch: int = 16  # views in one network call, before guidance doubles them
    composite: Literal["none", "latent", "pixels", "both"] = "none"  # keep what the warp shows
    noise: Literal["independent", "shared", "warped"] = "independent"  # initial noise of a path's views
    sequential: bool = False  # later views of a path see the earlier ones, lifted
    seed: int = 0  # of the initial noise
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"  # the networks compute in
    compile: bool = False  # let torch.compile translate the denoiser

    def check_steps(self) -> None:
        """Raise UserError for a number of steps that the sampler cannot take of the 1000 there are."""
        least, most = (2, 500) if self.sampler == "original" else (1, 1000)
        if not least <= self.steps <= most:
            raise UserError(
                f"model.sampling.steps is {self.steps}: the sampler {self.sampler} takes {least} to {most}"
            )


@dataclass
class WarpDiffusionConfig:
    """Settings of `WarpDiffusion`."""

    warp: Literal["pixels", "none", "latent"] = "pixels"  # 11 channels; 8 (ZeroNVS); encoded warp + coverage
    resolution: int = 256  # side of the square canvas the images are padded to
    unet: UNetConfig = field(default_factory=UNetConfig)
    autoencoder: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    image_encoder: ImageEncoderConfig = field(default_factory=ImageEncoderConfig)
    finetune: str = ""  # original checkpoint that training starts from (-f); missing inputs are added
    pretrained: str = ""  # what autoencoder and image encoder are taken from; empty = as `finetune`
    checkpoint_file: str = ""  # name of the weights file in an original's iter_N; empty = the one it holds
    prediction: Literal["epsilon", "v_prediction"] = "epsilon"  # what the network predicts
    residual: bool = False  # diffuse the view's difference to the encoded warp, not the view (warp: latent)
    scaled_source: bool = False  # multiply the source's latents as the target's are (published: not)
    token: Literal["image_and_pose", "image"] = "image_and_pose"  # image: --warponly of the original
    pose: Literal["relative", "zeronvs"] = "relative"  # zeronvs: translations squashed as in its training
    warp_edges: Literal["full", "faded"] = "full"  # faded: to black, as the original renders silhouettes
    max_angle: float = 70.0  # degrees; surface seen more grazingly is torn out of the warp
    far: float = 100.0  # depths beyond are set to it, in units of the 20th percentile
    sky: Literal["wall", "drop"] = "wall"  # what lies at `far` or beyond: a wall there, or nothing
    depth_model: str = "LiheYoung/depth-anything-large-hf"  # hub id or folder, for photos without depth
    # training
    dropout: Literal["joint", "original"] = "joint"  # what is hidden for guidance: see `conditioning.py`
    freeze_projection: bool = False  # the original never trained it, by mistake
    ema_of_original: bool = False  # take an original checkpoint's averaged weights (ZeroNVS's own choice)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)

    def __post_init__(self) -> None:
        factor = self.autoencoder.factor
        if self.resolution % (factor * 2 ** (len(self.unet.multipliers) - 1)):
            raise UserError(
                f"model.resolution is {self.resolution}: it must be a multiple of "
                f"{factor * 2 ** (len(self.unet.multipliers) - 1)} for these networks"
            )
        for name in ("samples", "batch"):
            if getattr(self.sampling, name) < 1:
                raise UserError(
                    f"model.sampling.{name} is {getattr(self.sampling, name)}: it must be at least 1"
                )
        if self.residual and self.warp != "latent":
            raise UserError("model.residual needs the encoded warp: set model.warp=latent")
        if not 0 < self.max_angle <= 90:
            raise UserError(f"model.max_angle is {self.max_angle}: it must lie in (0, 90] degrees")
        self.sampling.check_steps()
        self._check_token()

    def _check_token(self) -> None:
        width = self.image_encoder.projection if self.image_encoder.layers else 0
        if self.token == "image" and width != self.unet.context:
            raise UserError(
                f"model.token is image: it needs an image encoder whose model.image_encoder.projection is "
                f"model.unet.context, {self.unet.context} (here it is {width})"
            )

    @property
    def latent_size(self) -> int:
        """Side of the square latents."""
        return self.resolution // self.autoencoder.factor

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of a view's latents."""
        return self.autoencoder.latent_channels, self.latent_size, self.latent_size

    @property
    def condition_channels(self) -> int:
        """Channels beside the noisy latents: the source's latents, and the warp."""
        channels = self.autoencoder.latent_channels
        return channels + {"none": 0, "pixels": 3, "latent": channels + 1}[self.warp]

    @property
    def in_channels(self) -> int:
        """Input channels of the UNet."""
        return self.autoencoder.latent_channels + self.condition_channels
